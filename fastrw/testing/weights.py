"""Computed weights: parametrizations old and new, masks, dropped weights, low-rank updates, hypernetworks."""

import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from .batches import images
from .case import ANY, case, features, named
from .parts import learned, linear, net, sequence


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


case("weight_norm", lambda: around_conv(parametrizations.weight_norm(nn.Conv2d(4, 4, 3))), images)
case("orthogonal_weight", lambda: around_linear(parametrizations.orthogonal(nn.Linear(5, 5))), expect=ANY)
# Each forward moves the buffers by one power iteration, and its vectors count as constants.
case("spectral_norm_training", spectral_conv, images, expect=ANY)
case("spectral_norm_eval", spectral_conv, images, change=nn.Module.eval)


@named(case, expect=ANY)
def weight_norm_by_pre_hook():
    """The deprecated form: a forward pre-hook sets `weight`, a plain attribute."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return around_linear(nn.utils.weight_norm(nn.Linear(5, 5)))


unit_rows = net(lambda net, w: w / w.flatten(1).norm(dim=1).view(-1, *[1] * (w.ndim - 1)))  # rows of length 1
positive = net(lambda net, w: F.softplus(w * net.sharpness.exp()), sharpness=learned(1))  # has a parameter itself


def parametrized(layer: nn.Module, *kinds: Callable[[], nn.Module]) -> nn.Module:
    for kind in kinds:
        parametrize.register_parametrization(layer, "weight", kind())
    return layer


case("own_parametrisation", lambda: around_conv(parametrized(nn.Conv2d(4, 4, 3), unit_rows)), images)
case("two_parametrisations", lambda: around_linear(parametrized(nn.Linear(5, 5), positive, unit_rows)))


def computed(name: str, weight: Callable, **parts) -> None:
    """A case with a weight [5, p] that is `weight(net)`, applied to x, or to tanh of `enter(x)` if that is a part."""

    def rule(net, x):
        return F.linear(net.enter(x).tanh() if "enter" in parts else x, weight(net)).tanh()

    features(name, rule, **parts)


def mask() -> nn.Buffer:
    return nn.Buffer((torch.rand(5, 5) < 0.6).float())


def pieces(net: nn.Module) -> Tensor:
    w = torch.zeros(5, 6, dtype=net.left.dtype, device=net.left.device)
    w[:, :3] = net.left
    w[:, 3:] = net.right
    return w


enter, w, down, up = linear(6, 5), learned(5, 5), learned(2, 6), learned(5, 2)
# A pruned layer: the weight times a buffer of zeros and ones.
computed("masked_weight", lambda net: net.w * net.mask, mask=mask, enter=enter, w=w)
# Dropout on the weight: one draw for the whole batch.
computed("drop_connect", lambda net: F.dropout(net.w, 0.3, net.training), enter=enter, w=w, draws=True, expect=ANY)
# A weight with learned mean and spread, drawn once per forward pass.
computed("noisy_weight", lambda net: net.mean + F.softplus(net.spread) * torch.randn_like(net.mean),
         enter=enter, mean=w, spread=w, draws=True, expect=ANY)  # fmt: skip
computed("merged_low_rank_update", lambda net: net.base + net.up @ net.down, base=learned(5, 6), down=down, up=up)
# A hypernetwork fed by a learned code: a module whose input is a parameter.
computed("weight_from_a_parameter", lambda net: net.make(net.code).view(5, 6), make=linear(3, 30), code=learned(3))
# A weight assembled by assignment.
computed("weight_written_in_pieces", pieces, left=learned(5, 3), right=learned(5, 3))
# A frozen weight with a low-rank update whose first factor starts at zero.
features("low_rank_update", lambda net, x: (net.frozen(x) + F.linear(F.linear(x, net.down), net.up)).tanh(),
         frozen=lambda: nn.Linear(6, 5).requires_grad_(False), down=down,
         up=lambda: nn.Parameter(torch.zeros(5, 2)))  # fmt: skip
# A hypernetwork: every example is multiplied by a matrix computed from it.
features("weight_from_each_example",
         lambda net, x: torch.bmm(net.make(x).view(-1, 5, 6), x[:, :, None]).squeeze(2).tanh(),
         make=linear(6, 30), expect=ANY)  # fmt: skip
# Several weights stacked and applied at once.
features("weights_stacked",
         lambda net, x: torch.einsum("np,eqp->neq", x, torch.stack([net.w1, net.w2]).softmax(0)).flatten(1).tanh(),
         width=10, w1=learned(5, 6), w2=learned(5, 6))  # fmt: skip


@named(features, w=learned(5, 7))
def weight_split(net, x):
    """One parameter cut into several weights."""
    w1, w2 = net.w.split([6, 1], 1)
    return ((x @ w1.t()).tanh() * w2.t() + w2.squeeze(1)).relu()


# All zero at the start, followed by another zero layer: no gradient reaches the first layer at all.
zero_start = sequence(enter, nn.ReLU, linear(5, 5), nn.Tanh, linear(5, 4))
case("first_layer_zero", zero_start, change=lambda model: [nn.init.zeros_(p) for p in model[:3].parameters()])
# Only the last layer has a gradient.
case("last_layer_zero", lambda: around_linear(nn.Linear(5, 5)), change=lambda model: nn.init.zeros_(model[-1].weight))
