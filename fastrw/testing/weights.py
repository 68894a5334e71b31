"""Computed weights: parametrizations old and new, masks, dropped weights, low-rank updates, hypernetworks."""

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from .case import ANY, LAYERWISE, case, forward, model
from .parts import images, learned, linear, param


def around_conv(second: nn.Module) -> nn.Sequential:
    """A convolution, this one of 4 channels, and a linear head."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), second, nn.Tanh(),
        nn.Flatten(2), nn.AdaptiveAvgPool1d(2), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip


def around_linear(second: nn.Module) -> nn.Sequential:
    """A linear layer, this one from 5 to 5, and a linear head."""
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), second, nn.Tanh(), nn.Linear(5, 4))


def spectral_conv() -> nn.Sequential:
    """Its vectors are iterated in float64: in float32 a product may round differently at every call of `Case.make`."""
    return around_conv(parametrizations.spectral_norm(nn.Conv2d(4, 4, 3).double()))


case("weight_norm", LAYERWISE, lambda: around_conv(parametrizations.weight_norm(nn.Conv2d(4, 4, 3))), images)
case("orthogonal_weight", ANY, lambda: around_linear(parametrizations.orthogonal(nn.Linear(5, 5))))
# Each forward moves the buffers by one power iteration, and its vectors count as constants.
case("spectral_norm_training", ANY, spectral_conv, images)
case("spectral_norm_eval", LAYERWISE, lambda: spectral_conv().eval(), images)


@model(ANY)
def weight_norm_by_pre_hook():
    """The deprecated form: a forward pre-hook sets `weight`, a plain attribute."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return around_linear(nn.utils.weight_norm(nn.Linear(5, 5)))


class UnitRows(nn.Module):
    """A custom parametrization: rows of length 1."""

    def forward(self, w: Tensor) -> Tensor:
        return w / w.flatten(1).norm(dim=1).view(-1, *[1] * (w.ndim - 1))


class Positive(nn.Module):
    """A custom parametrization that has a parameter itself."""

    def __init__(self):
        super().__init__()
        self.sharpness = param(1)

    def forward(self, w: Tensor) -> Tensor:
        return F.softplus(w * self.sharpness.exp())


def parametrized(layer: nn.Module, *kinds: type[nn.Module]) -> nn.Module:
    for kind in kinds:
        parametrize.register_parametrization(layer, "weight", kind())
    return layer


case("own_parametrisation", LAYERWISE, lambda: around_conv(parametrized(nn.Conv2d(4, 4, 3), UnitRows)), images)
case("two_parametrisations", LAYERWISE, lambda: around_linear(parametrized(nn.Linear(5, 5), Positive, UnitRows)))


@forward(
    LAYERWISE, mask=lambda: (torch.rand(5, 5) < 0.6).float(), enter=linear(6, 5), w=learned(5, 5), head=linear(5, 4)
)
def masked_weight(net, x):
    """A pruned layer: the weight times a buffer of zeros and ones."""
    return net.head(F.linear(net.enter(x).tanh(), net.w * net.mask).tanh())


@forward(ANY, draws=True, enter=linear(6, 5), w=learned(5, 5), head=linear(5, 4))
def drop_connect(net, x):
    """Dropout on the weight: one draw for the whole batch."""
    return net.head(F.linear(net.enter(x).tanh(), F.dropout(net.w, 0.3, net.training)).tanh())


@forward(ANY, draws=True, enter=linear(6, 5), mean=learned(5, 5), spread=learned(5, 5), head=linear(5, 4))
def noisy_weight(net, x):
    """A weight with learned mean and spread, drawn once per forward pass."""
    w = net.mean + F.softplus(net.spread) * torch.randn_like(net.mean)
    return net.head(F.linear(net.enter(x).tanh(), w).tanh())


@forward(
    LAYERWISE, frozen=lambda: nn.Linear(6, 5).requires_grad_(False),
    down=learned(2, 6), up=lambda: nn.Parameter(torch.zeros(5, 2)), head=linear(5, 4),
)  # fmt: skip
def low_rank_update(net, x):
    """A frozen weight with a low-rank update whose first factor starts at zero."""
    return net.head((net.frozen(x) + F.linear(F.linear(x, net.down), net.up)).tanh())


@forward(LAYERWISE, base=learned(5, 6), down=learned(2, 6), up=learned(5, 2), head=linear(5, 4))
def merged_low_rank_update(net, x):
    return net.head(F.linear(x, net.base + net.up @ net.down).tanh())


@model(LAYERWISE)
def first_layer_zero():
    """All zero at the start, followed by another zero layer: no gradient reaches the first layer at all."""
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 4))
    for p in model[:3].parameters():
        nn.init.zeros_(p)
    return model


@model(LAYERWISE)
def last_layer_zero():
    """Only the last layer has a gradient."""
    model = around_linear(nn.Linear(5, 5))
    nn.init.zeros_(model[-1].weight)
    return model


@forward(ANY, make=linear(6, 30), head=linear(5, 4))
def weight_from_each_example(net, x):
    """A hypernetwork: every example is multiplied by a matrix computed from it."""
    w = net.make(x).view(-1, 5, 6)
    return net.head(torch.bmm(w, x[:, :, None]).squeeze(2).tanh())


@forward(LAYERWISE, make=linear(3, 30), code=learned(3), head=linear(5, 4))
def weight_from_a_parameter(net, x):
    """A hypernetwork fed by a learned code: a module whose input is a parameter."""
    return net.head(F.linear(x, net.make(net.code).view(5, 6)).tanh())


@forward(LAYERWISE, w1=learned(5, 6), w2=learned(5, 6), head=linear(10, 4))
def weights_stacked(net, x):
    """Several weights stacked and applied at once."""
    w = torch.stack([net.w1, net.w2]).softmax(0)
    return net.head(torch.einsum("np,eqp->neq", x, w).flatten(1).tanh())


@forward(LAYERWISE, w=learned(5, 7), head=linear(5, 4))
def weight_split(net, x):
    """One parameter cut into several weights."""
    w1, w2 = net.w.split([6, 1], 1)
    return net.head(((x @ w1.t()).tanh() * w2.t() + w2.squeeze(1)).relu())


@forward(LAYERWISE, left=learned(5, 3), right=learned(5, 3), head=linear(5, 4))
def weight_written_in_pieces(net, x):
    """A weight assembled by assignment."""
    w = torch.zeros(5, 6, dtype=x.dtype, device=x.device)
    w[:, :3] = net.left
    w[:, 3:] = net.right
    return net.head(F.linear(x, w).tanh())
