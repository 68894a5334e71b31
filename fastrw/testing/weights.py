"""Weights that are computed: parametrisations old and new, masks, drops, low-rank updates, hyper-networks."""

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from .case import ANY, LAYERWISE, Net, case, images, param, vectors


def conv_model(second: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.Tanh(),
        second,
        nn.Tanh(),
        nn.Flatten(2),
        nn.AdaptiveAvgPool1d(2),
        nn.Flatten(),
        nn.Linear(8, 4),
    )


def linear_model(second: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), second, nn.Tanh(), nn.Linear(5, 4))


@case(LAYERWISE)
def weight_norm():
    return conv_model(parametrizations.weight_norm(nn.Conv2d(4, 4, 3))), images(8), images(4)


@case(ANY)
def weight_norm_by_pre_hook():
    """The deprecated form: a forward pre-hook sets `weight`, a plain attribute."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        layer = nn.utils.weight_norm(nn.Linear(5, 5))
    return linear_model(layer), vectors(9), vectors(4)


def spectral_conv() -> nn.Module:
    """Its vectors are iterated in float64: in float32 a product may round otherwise at every call of `make`."""
    return parametrizations.spectral_norm(nn.Conv2d(4, 4, 3).double())


@case(ANY)
def spectral_norm_training():
    """Each forward moves the buffers by one power iteration, and its vectors count as constants."""
    return conv_model(spectral_conv()), images(8), images(4)


@case(LAYERWISE)
def spectral_norm_eval():
    return conv_model(spectral_conv()).eval(), images(8), images(4)


@case(ANY)
def orthogonal_weight():
    return linear_model(parametrizations.orthogonal(nn.Linear(5, 5))), vectors(9), vectors(4)


class UnitRows(nn.Module):
    """Own parametrisation: rows of length 1."""

    def forward(self, w: Tensor) -> Tensor:
        return w / w.flatten(1).norm(dim=1).view(-1, *[1] * (w.ndim - 1))


@case(LAYERWISE)
def own_parametrisation():
    layer = nn.Conv2d(4, 4, 3)
    parametrize.register_parametrization(layer, "weight", UnitRows())
    return conv_model(layer), images(8), images(4)


class Positive(nn.Module):
    """Own parametrisation with a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.sharpness = param(1)

    def forward(self, w: Tensor) -> Tensor:
        return F.softplus(w * self.sharpness.exp())


@case(LAYERWISE)
def two_parametrisations():
    layer = nn.Linear(5, 5)
    parametrize.register_parametrization(layer, "weight", Positive())
    parametrize.register_parametrization(layer, "weight", UnitRows())
    return linear_model(layer), vectors(9), vectors(4)


@case(LAYERWISE)
def masked_weight():
    """A pruned layer: the weight times a buffer of zeros and ones."""

    def rule(net, x):
        return net.head(F.linear(net.enter(x).tanh(), net.w * net.mask).tanh())

    mask = (torch.rand(5, 5) < 0.6).float()
    return Net(rule, enter=nn.Linear(6, 5), w=param(5, 5), mask=mask, head=nn.Linear(5, 4)), vectors(9), vectors(4)


@case(ANY, draws=True)
def drop_connect():
    """Dropout on the weight: one draw for the whole batch."""

    def rule(net, x):
        return net.head(F.linear(net.enter(x).tanh(), F.dropout(net.w, 0.3, net.training)).tanh())

    return Net(rule, enter=nn.Linear(6, 5), w=param(5, 5), head=nn.Linear(5, 4)), vectors(9), vectors(4)


@case(ANY, draws=True)
def noisy_weight():
    """A weight with learned mean and spread, drawn once a forward."""

    def rule(net, x):
        w = net.mean + F.softplus(net.spread) * torch.randn_like(net.mean)
        return net.head(F.linear(net.enter(x).tanh(), w).tanh())

    return (
        Net(rule, enter=nn.Linear(6, 5), mean=param(5, 5), spread=param(5, 5), head=nn.Linear(5, 4)),
        vectors(9),
        vectors(4),
    )


@case(LAYERWISE)
def low_rank_update():
    """A frozen weight with a low-rank update whose first factor starts at zero."""

    def rule(net, x):
        return net.head((net.frozen(x) + F.linear(F.linear(x, net.down), net.up)).tanh())

    frozen = nn.Linear(6, 5).requires_grad_(False)
    return (
        Net(rule, frozen=frozen, down=param(2, 6), up=nn.Parameter(torch.zeros(5, 2)), head=nn.Linear(5, 4)),
        vectors(9),
        vectors(4),
    )


@case(LAYERWISE)
def merged_low_rank_update():
    def rule(net, x):
        return net.head(F.linear(x, net.base + net.up @ net.down).tanh())

    return Net(rule, base=param(5, 6), down=param(2, 6), up=param(5, 2), head=nn.Linear(5, 4)), vectors(9), vectors(4)


@case(LAYERWISE)
def first_layer_zero():
    """All zero at the start, and behind it another zero: no gradient reaches the first layer at all."""
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 4))
    for layer in (model[0], model[2]):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return model, vectors(9), vectors(4)


@case(LAYERWISE)
def last_layer_zero():
    """Only the last layer has a gradient."""
    model = linear_model(nn.Linear(5, 5))
    nn.init.zeros_(model[-1].weight)
    return model, vectors(9), vectors(4)


@case(ANY)
def weight_from_each_example():
    """A hyper-network: every example multiplies by a matrix made of itself."""

    def rule(net, x):
        w = net.make(x).view(-1, 5, 6)
        return net.head(torch.bmm(w, x[:, :, None]).squeeze(2).tanh())

    return Net(rule, make=nn.Linear(6, 30), head=nn.Linear(5, 4)), vectors(9), vectors(4)


@case(LAYERWISE)
def weight_from_a_parameter():
    """A hyper-network fed by a learned code: a module whose input is a parameter."""

    def rule(net, x):
        return net.head(F.linear(x, net.make(net.code).view(5, 6)).tanh())

    return Net(rule, make=nn.Linear(3, 30), code=param(3), head=nn.Linear(5, 4)), vectors(9), vectors(4)


@case(LAYERWISE)
def weights_stacked():
    """Several weights stacked and applied at once."""

    def rule(net, x):
        w = torch.stack([net.w1, net.w2]).softmax(0)
        return net.head(torch.einsum("np,eqp->neq", x, w).flatten(1).tanh())

    return Net(rule, w1=param(5, 6), w2=param(5, 6), head=nn.Linear(10, 4)), vectors(9), vectors(4)


@case(LAYERWISE)
def weight_split():
    """One parameter cut into several weights."""

    def rule(net, x):
        w1, w2 = net.w.split([6, 1], 1)
        return net.head(((x @ w1.t()).tanh() * w2.t() + w2.squeeze(1)).relu())

    return Net(rule, w=param(5, 7), head=nn.Linear(5, 4)), vectors(9), vectors(4)


@case(LAYERWISE)
def weight_written_in_pieces():
    """A weight assembled by assignment."""

    def rule(net, x):
        w = torch.zeros(5, 6, dtype=x.dtype, device=x.device)
        w[:, :3] = net.left
        w[:, 3:] = net.right
        return net.head(F.linear(x, w).tanh())

    return Net(rule, left=param(5, 3), right=param(5, 3), head=nn.Linear(5, 4)), vectors(9), vectors(4)
