"""Images: MLP, LeNet, residual networks with each norm, convolutions in every setting, a vision transformer."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .case import ANY, LAYERWISE, TANGENT, case, forward, model
from .parts import conv, images, labelled, learned, linear, param

case("mlp", LAYERWISE, lambda: nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 7), nn.Tanh(), nn.Linear(7, 4)))


@model(LAYERWISE, labelled(8, 1, 16, 16))
def lenet():
    return nn.Sequential(
        nn.Conv2d(1, 3, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 5, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(45, 12), nn.ReLU(), nn.Linear(12, 4),
    )  # fmt: skip


class Block(nn.Module):
    """A residual block: two 3x3 convolutions, each with a norm."""

    def __init__(self, p: int, q: int, stride: int, norm):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(p, q, 3, stride, 1, bias=False), norm(q)
        self.conv2, self.norm2 = nn.Conv2d(q, q, 3, 1, 1, bias=False), norm(q)
        self.short = nn.Identity() if stride == 1 and p == q else nn.Conv2d(p, q, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))) + self.short(x))


class ResNet(nn.Module):
    """A stem, one block with a shortcut of each kind, and a linear head on the mean over positions."""

    def __init__(self, norm):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 4, 3, 1, 1, bias=False), norm(4)
        self.blocks = nn.Sequential(Block(4, 4, 1, norm), Block(4, 6, 2, norm))
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(F.relu(self.norm(self.stem(x)))).mean((2, 3)))


case("resnet_groupnorm", LAYERWISE, lambda: ResNet(partial(nn.GroupNorm, 2)), images)
case("resnet_batchnorm_training", TANGENT, lambda: ResNet(nn.BatchNorm2d), images)


@model(LAYERWISE, images)
def resnet_batchnorm_eval():
    model = ResNet(nn.BatchNorm2d).double()  # in float32 a product may round differently at every call of `Case.make`
    with torch.no_grad():
        model(torch.randn(16, 3, 8, 8).double() * 1.3 + 0.2)  # statistics that are not 0 and 1
    return model.eval()


instance_norm = partial(nn.InstanceNorm2d, affine=True)
case("resnet_instancenorm", LAYERWISE, lambda: ResNet(instance_norm), images)
# In training the statistics are averaged over the batch but do not reach the output.
case("instancenorm_tracked", ANY, lambda: ResNet(partial(instance_norm, track_running_stats=True)), images)


CONVOLUTION = {
    "plain": {},
    "no_bias": {"bias": False},
    "padded": {"padding": 1},
    "groups": {"groups": 2},
    "depthwise": {"groups": 4, "multiplier": 2},
    "stride": {"stride": 2, "padding": 1},
    "dilation": {"dilation": 2},
    "everything": {"stride": 2, "dilation": 2, "groups": 2, "padding": 2},
    "same": {"padding": "same", "kernel": 2},
    "same_dilated": {"padding": "same", "dilation": 2},
    "reflect": {"padding": 1, "padding_mode": "reflect"},
    "replicate": {"padding": 1, "padding_mode": "replicate"},
    "circular": {"padding": 1, "padding_mode": "circular"},
    "pointwise": {"kernel": 1},
}
TRANSPOSED = {
    "plain": {},
    "stride": {"stride": 2, "padding": 1, "output_padding": 1},
    "groups": {"groups": 2, "bias": False},
    "dilation": {"dilation": 2, "padding": 1},
}
RANKS = {  # the convolution, the transposed one, and the images' size
    1: (nn.Conv1d, nn.ConvTranspose1d, 9),
    2: (nn.Conv2d, nn.ConvTranspose2d, 7),
    3: (nn.Conv3d, nn.ConvTranspose3d, 5),
}


def conv_net(enter, layer, kernel: int = 3, multiplier: int = 1, **options) -> nn.Sequential:
    """The layer is in the middle, so that it has a gradient to pass on as well."""
    return nn.Sequential(
        enter(2, 4, 1), nn.Tanh(), layer(4, 4 * multiplier, kernel, **options),
        nn.Tanh(), nn.Flatten(2), nn.AdaptiveAvgPool1d(3), nn.Flatten(), nn.Linear(12 * multiplier, 4),
    )  # fmt: skip


for rank, (convolution, transposed, size) in RANKS.items():
    for kind, layer, settings in (("conv", convolution, CONVOLUTION), ("conv_transpose", transposed, TRANSPOSED)):
        for setting, options in settings.items():
            make, data = partial(conv_net, convolution, layer, **options), labelled(7, 2, *[size] * rank)
            case(f"{kind}{rank}d_{setting}", LAYERWISE, make, data, val=(3,))


@forward(
    LAYERWISE, images, conv1=conv(3, 4, 3, padding=1), norm=partial(nn.GroupNorm, 2, 4),
    conv2=conv(4, 4, 3, padding=1), relu=partial(nn.ReLU, inplace=True), head=linear(4, 4),
)  # fmt: skip
def in_place_relu_and_residual(net, x):
    z = net.relu(net.norm(net.conv1(x)))
    branch = net.conv2(z)
    branch += z
    return net.head(net.relu(branch).mean((2, 3)))


@forward(LAYERWISE, images, conv=conv(3, 6, 3), down=conv(6, 2, 1), up=conv(2, 6, 1), head=linear(6, 4))
def squeeze_and_excite(net, x):
    z = net.conv(x)
    gate = net.up(net.down(z.mean((2, 3), keepdim=True)).relu()).sigmoid()
    return net.head((z * gate).amax((2, 3)))


@forward(
    LAYERWISE, images, stem=conv(3, 4, 2, 2), depthwise=conv(4, 4, 3, padding=1, groups=4),
    norm=partial(nn.LayerNorm, 4), up=linear(4, 8), down=linear(8, 4), scale=learned(4), head=linear(4, 4),
)  # fmt: skip
def convnext_block(net, x):
    """Depthwise convolution, then LayerNorm and linear layers on channels-last rows, and a layer scale."""
    z = net.stem(x)
    y = net.norm(net.depthwise(z).permute(0, 2, 3, 1))
    y = net.down(F.gelu(net.up(y))) * net.scale
    return net.head((z + y.permute(0, 3, 1, 2)).mean((2, 3)))


def pixels(n=8):
    return torch.randn(n, 3, 8, 8), torch.randint(0, 4, (n, 8, 8))


@forward(LAYERWISE, pixels, enter=conv(3, 4, 3, padding=1), low=conv(4, 5, 3, padding=1), leave=conv(9, 4, 1))
def dense_prediction(net, x):
    """A small U-Net: down, up by interpolation, concatenated; one label per pixel, averaged within the image."""
    z = net.enter(x).relu()
    low = net.low(F.max_pool2d(z, 2)).relu()
    return net.leave(torch.cat([z, F.interpolate(low, scale_factor=2, mode="bilinear")], 1))


class ViT(nn.Module):
    """Patches, class token, position embedding, nn.TransformerEncoder, layer scale and a head on the class token."""

    def __init__(self, d: int = 8):
        super().__init__()
        self.patches = nn.Conv2d(3, d, 4, 4)
        self.cls, self.pos = param(1, 1, d), param(1, 5, d)
        layer = nn.TransformerEncoderLayer(d, 2, 12, 0.0, batch_first=True, norm_first=True, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.scale, self.head = param(d), nn.Linear(d, 4)

    def forward(self, x: Tensor) -> Tensor:
        z = self.patches(x).flatten(2).transpose(1, 2)
        z = torch.cat([self.cls.expand(len(x), -1, -1), z], 1) + self.pos
        return self.head((z + self.scale * self.encoder(z))[:, 0])


case("vit", LAYERWISE, ViT, images)
case("vit_eval", LAYERWISE, lambda: ViT().eval(), images)
