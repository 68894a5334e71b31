"""Images: MLP, LeNet, residual networks with each norm, convolutions in every setting, a vision transformer."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .case import ANY, LAYERWISE, TANGENT, Net, case, images, labels, param, vectors


@case(LAYERWISE)
def mlp():
    return (
        nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 7), nn.Tanh(), nn.Linear(7, 4)),
        vectors(9),
        vectors(4),
    )


@case(LAYERWISE)
def lenet():
    model = nn.Sequential(
        nn.Conv2d(1, 3, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 5, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(45, 12), nn.ReLU(), nn.Linear(12, 4),
    )  # fmt: skip
    return model, images(8, 1, 16), images(4, 1, 16)


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
    """A stem, one block an entry of `widths`, and a linear head on the mean over positions."""

    def __init__(self, norm, widths: tuple[int, ...] = (4, 6)):
        super().__init__()
        first = widths[0]
        self.stem, self.norm = nn.Conv2d(3, first, 3, 1, 1, bias=False), norm(first)
        pairs = zip((first, *widths), widths, strict=False)
        self.blocks = nn.Sequential(*(Block(p, q, 1 if p == q else 2, norm) for p, q in pairs))
        self.head = nn.Linear(widths[-1], 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(F.relu(self.norm(self.stem(x)))).mean((2, 3)))


@case(LAYERWISE)
def resnet_groupnorm():
    return ResNet(lambda q: nn.GroupNorm(2, q)), images(8), images(4)


@case(TANGENT)
def resnet_batchnorm_training():
    return ResNet(nn.BatchNorm2d), images(8), images(4)


@case(LAYERWISE)
def resnet_batchnorm_eval():
    model = ResNet(nn.BatchNorm2d).double()  # in float32 a product may round otherwise at every call of `make`
    with torch.no_grad():
        model(torch.randn(16, 3, 8, 8).double() * 1.3 + 0.2)  # statistics that are not 0 and 1
    return model.eval(), images(8), images(4)


@case(LAYERWISE)
def resnet_instancenorm():
    return ResNet(partial(nn.InstanceNorm2d, affine=True)), images(8), images(4)


@case(ANY)
def instancenorm_tracked():
    """In training the statistics are averaged over the batch but do not reach the output."""
    return ResNet(partial(nn.InstanceNorm2d, affine=True, track_running_stats=True)), images(8), images(4)


CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
SIZE = {1: 9, 2: 7, 3: 5}
CONV_SETTINGS = {
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
TRANSPOSED_SETTINGS = {
    "plain": {},
    "stride": {"stride": 2, "padding": 1, "output_padding": 1},
    "groups": {"groups": 2, "bias": False},
    "dilation": {"dilation": 2, "padding": 1},
}


def conv_net(layer, rank: int, kernel: int = 3, multiplier: int = 1, **options):
    """The layer in the middle, so that it has a gradient to pass on as well."""
    model = nn.Sequential(
        CONV[rank](2, 4, 1), nn.Tanh(), layer(4, 4 * multiplier, kernel, **options),
        nn.Tanh(), nn.Flatten(2), nn.AdaptiveAvgPool1d(3), nn.Flatten(), nn.Linear(12 * multiplier, 4),
    )  # fmt: skip
    size = (2, *[SIZE[rank]] * rank)
    return model, (torch.randn(7, *size), labels(7)), (torch.randn(3, *size), labels(3))


for rank in (1, 2, 3):
    for setting, options in CONV_SETTINGS.items():
        case(LAYERWISE, name=f"conv{rank}d_{setting}")(partial(conv_net, CONV[rank], rank, **options))
    for setting, options in TRANSPOSED_SETTINGS.items():
        case(LAYERWISE, name=f"conv_transpose{rank}d_{setting}")(partial(conv_net, TRANSPOSED[rank], rank, **options))


@case(LAYERWISE)
def in_place_relu_and_residual():
    def rule(net, x):
        z = net.relu(net.norm(net.conv1(x)))
        branch = net.conv2(z)
        branch += z
        return net.head(net.relu(branch).mean((2, 3)))

    conv1, conv2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
    model = Net(
        rule, conv1=conv1, norm=nn.GroupNorm(2, 4), conv2=conv2, relu=nn.ReLU(inplace=True), head=nn.Linear(4, 4)
    )
    return model, images(8), images(4)


@case(LAYERWISE)
def squeeze_and_excite():
    def rule(net, x):
        z = net.conv(x)
        gate = net.up(net.down(z.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return net.head((z * gate).amax((2, 3)))

    parts = {"conv": nn.Conv2d(3, 6, 3), "down": nn.Conv2d(6, 2, 1), "up": nn.Conv2d(2, 6, 1), "head": nn.Linear(6, 4)}
    return Net(rule, **parts), images(8), images(4)


@case(LAYERWISE)
def convnext_block():
    """Depthwise convolution, then LayerNorm and linear layers on channels-last rows, and a layer scale."""

    def rule(net, x):
        z = net.stem(x)
        y = net.norm(net.depthwise(z).permute(0, 2, 3, 1))
        y = net.down(F.gelu(net.up(y))) * net.scale
        return net.head((z + y.permute(0, 3, 1, 2)).mean((2, 3)))

    model = Net(
        rule, stem=nn.Conv2d(3, 4, 2, 2), depthwise=nn.Conv2d(4, 4, 3, padding=1, groups=4), norm=nn.LayerNorm(4),
        up=nn.Linear(4, 8), down=nn.Linear(8, 4), scale=param(4), head=nn.Linear(4, 4),
    )  # fmt: skip
    return model, images(8), images(4)


@case(LAYERWISE)
def dense_prediction():
    """A small U: down, up by interpolation, concatenated; one label a pixel, averaged within the image."""

    def rule(net, x):
        z = net.enter(x).relu()
        low = net.low(F.max_pool2d(z, 2)).relu()
        return net.leave(torch.cat([z, F.interpolate(low, scale_factor=2, mode="bilinear")], 1))

    def batch(n):
        return torch.randn(n, 3, 8, 8), torch.randint(0, 4, (n, 8, 8))

    parts = {"enter": nn.Conv2d(3, 4, 3, padding=1), "low": nn.Conv2d(4, 5, 3, padding=1), "leave": nn.Conv2d(9, 4, 1)}
    return Net(rule, **parts), batch(8), batch(4)


class ViT(nn.Module):
    """Patches, class token, position embedding, nn.TransformerEncoder, layer scale and a head on the class token."""

    def __init__(self, d: int = 8, layers: int = 2):
        super().__init__()
        self.patches = nn.Conv2d(3, d, 4, 4)
        self.cls, self.pos = param(1, 1, d), param(1, 5, d)
        layer = nn.TransformerEncoderLayer(d, 2, 12, 0.0, batch_first=True, norm_first=True, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.scale, self.head = param(d), nn.Linear(d, 4)

    def forward(self, x: Tensor) -> Tensor:
        z = self.patches(x).flatten(2).transpose(1, 2)
        z = torch.cat([self.cls.expand(len(x), -1, -1), z], 1) + self.pos
        return self.head((z + self.scale * self.encoder(z))[:, 0])


@case(LAYERWISE)
def vit():
    return ViT(), images(8), images(4)


@case(LAYERWISE)
def vit_eval():
    return ViT().eval(), images(8), images(4)
