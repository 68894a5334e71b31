"""Images: MLP, LeNet, residual networks with each norm, convolutions in every setting, a vision transformer."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from .batches import images, labelled
from .case import ANY, TANGENT, case, features, named
from .models import ResidualBlock
from .parts import conv, encoder, headed, learned, linear, net, sequence

case("mlp", sequence(linear(6, 9), nn.ReLU, linear(9, 7), nn.Tanh, linear(7, 4)))
lenet = sequence(
    conv(1, 3, 5, padding=2), nn.ReLU, partial(nn.MaxPool2d, 2), conv(3, 5, 3), nn.ReLU, partial(nn.MaxPool2d, 2),
    nn.Flatten, linear(45, 12), nn.ReLU, linear(12, 4),
)  # fmt: skip
case("lenet", lenet, labelled(8, 1, 16, 16))


def resnet(norm: Callable[[int], nn.Module]) -> Callable[[], nn.Module]:
    """A stem, one residual block with a shortcut of each kind, and a linear head on the mean over positions."""
    return headed(
        lambda net, x: net.blocks(F.relu(net.norm(net.stem(x)))).mean((2, 3)), 6,
        stem=conv(3, 4, 3, 1, 1, bias=False), norm=partial(norm, 4),
        blocks=sequence(partial(ResidualBlock, 4, 4, 1, norm), partial(ResidualBlock, 4, 6, 2, norm)),
    )  # fmt: skip


def settled(model: nn.Module) -> None:
    """Statistics that are not 0 and 1."""
    model.double()  # in float32 a product may round differently at every call of `Case.make`
    with torch.no_grad():
        model(torch.randn(16, 3, 8, 8).double() * 1.3 + 0.2)
    model.eval()


instance_norm = partial(nn.InstanceNorm2d, affine=True)
case("resnet_groupnorm", resnet(partial(nn.GroupNorm, 2)), images)
case("resnet_batchnorm_training", resnet(nn.BatchNorm2d), images, expect=TANGENT)
case("resnet_batchnorm_eval", resnet(nn.BatchNorm2d), images, change=settled)
case("resnet_instancenorm", resnet(instance_norm), images)
# In training the statistics are averaged over the batch but do not reach the output.
case("instancenorm_tracked", resnet(partial(instance_norm, track_running_stats=True)), images, expect=ANY)


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


def conv_net(rank: int, layer: str, kernel: int = 3, multiplier: int = 1, **options) -> nn.Sequential:
    """The layer (Conv or ConvTranspose) is in the middle, so that it has a gradient to pass on as well."""
    enter, middle = getattr(nn, f"Conv{rank}d"), getattr(nn, f"{layer}{rank}d")
    return nn.Sequential(
        enter(2, 4, 1), nn.Tanh(), middle(4, 4 * multiplier, kernel, **options),
        nn.Tanh(), nn.Flatten(2), nn.AdaptiveAvgPool1d(3), nn.Flatten(), nn.Linear(12 * multiplier, 4),
    )  # fmt: skip


for rank, size in ((1, 9), (2, 7), (3, 5)):
    for kind, layer, settings in (("conv", "Conv", CONVOLUTION), ("conv_transpose", "ConvTranspose", TRANSPOSED)):
        for setting, options in settings.items():
            make, data = partial(conv_net, rank, layer, **options), labelled(7, 2, *[size] * rank)
            case(f"{kind}{rank}d_{setting}", make, data, val=(3,))


@named(
    features, images, width=4, conv1=conv(3, 4, 3, padding=1), norm=partial(nn.GroupNorm, 2, 4),
    conv2=conv(4, 4, 3, padding=1), relu=partial(nn.ReLU, inplace=True),
)  # fmt: skip
def in_place_relu_and_residual(net, x):
    z = net.relu(net.norm(net.conv1(x)))
    branch = net.conv2(z)
    branch += z
    return net.relu(branch).mean((2, 3))


@named(features, images, width=6, conv=conv(3, 6, 3), down=conv(6, 2, 1), up=conv(2, 6, 1))
def squeeze_and_excite(net, x):
    z = net.conv(x)
    gate = net.up(net.down(z.mean((2, 3), keepdim=True)).relu()).sigmoid()
    return (z * gate).amax((2, 3))


@named(
    features, images, width=4, stem=conv(3, 4, 2, 2), depthwise=conv(4, 4, 3, padding=1, groups=4),
    norm=partial(nn.LayerNorm, 4), up=linear(4, 8), down=linear(8, 4), scale=learned(4),
)  # fmt: skip
def convnext_block(net, x):
    """Depthwise convolution, then LayerNorm and linear layers on channels-last rows, and a layer scale."""
    z = net.stem(x)
    y = net.norm(net.depthwise(z).permute(0, 2, 3, 1))
    y = net.down(F.gelu(net.up(y))) * net.scale
    return (z + y.permute(0, 3, 1, 2)).mean((2, 3))


def u_net(net, x):
    """Down, up by interpolation, concatenated; one label per pixel, averaged within the image."""
    z = net.enter(x).relu()
    low = net.low(F.max_pool2d(z, 2)).relu()
    return net.leave(torch.cat([z, F.interpolate(low, scale_factor=2, mode="bilinear")], 1))


dense_prediction = net(u_net, enter=conv(3, 4, 3, padding=1), low=conv(4, 5, 3, padding=1), leave=conv(9, 4, 1))
pixels = labelled(8, 3, 8, 8, target=lambda n: torch.randint(0, 4, (n, 8, 8)))
case("dense_prediction", dense_prediction, pixels)


def class_token(net, x):
    """Patches, class token, position embedding, nn.TransformerEncoder, layer scale, read at the class token."""
    z = net.patches(x).flatten(2).transpose(1, 2)
    z = torch.cat([net.cls.expand(len(x), -1, -1), z], 1) + net.pos
    return (z + net.scale * net.encoder(z))[:, 0]


vit = headed(
    class_token, 8, patches=conv(3, 8, 4, 4), cls=learned(1, 1, 8), pos=learned(1, 5, 8),
    encoder=partial(encoder, 8, 12, batch_first=True, norm_first=True, activation="gelu"), scale=learned(8),
)  # fmt: skip
case("vit", vit, images)
case("vit_eval", vit, images, change=nn.Module.eval)
