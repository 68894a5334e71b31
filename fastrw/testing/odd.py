"""Traps: models for which the layerwise method, or forward AD, could be wrong without raising an error."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call, grad, vmap
from torch.utils.checkpoint import checkpoint as checkpointed

from .batches import images, series
from .case import ANY, LAYERWISE, between, case, features, named
from .parts import conv, learned, linear, net, sequence, three_layers, two_layers

enter, mix, wide, scale = linear(6, 5), linear(5, 5), linear(5, 15), learned(5)
checkpoint = partial(checkpointed, use_reentrant=False)


def without_grad(function: Callable, *args) -> Tensor:
    with torch.no_grad():
        return function(*args)


def rounded(x: Tensor) -> Tensor:
    """The sign of x, with the gradient of x: a straight-through estimator."""
    return x + (torch.sign(x) - x).detach()


def trap(name: str, rule: Callable, *, expect: frozenset[str] = ANY, draws: bool = False, **parts) -> None:
    """A case with `rule(net, hidden [n, 5])` between two linear layers; by default the part is a linear layer `mix`."""
    between(name, rule, expect=expect, draws=draws, **(parts or {"mix": mix}))


trap("detached_branch", lambda net, h: net.mix(h) + net.mix(h.detach() * 2) + net.mix(h).detach() ** 2)
trap("data_attribute", lambda net, h: net.mix(h) * net.mix(h).data.sigmoid())
trap("detached_parameter", lambda net, h: F.linear(h, net.mix.weight.detach(), net.mix.bias))
trap("teacher_without_grad", lambda net, h: net.mix(h) * without_grad(net.mix, h).softmax(1))
trap("layer_called_without_grad", lambda net, h: without_grad(lambda: h + net.mix(h)) * net.scale, mix=mix, scale=scale)
trap("straight_through", lambda net, h: rounded(net.mix(h)))
trap("straight_through_weight", lambda net, h: F.linear(h, rounded(net.mix.weight), net.mix.bias))
trap("data_dependent_branch", lambda net, h: net.mix(h) if h.sum() > 0 else net.other(h), mix=mix, other=mix)
trap("out_of_place_then_in_place", lambda net, h: net.mix(h).mul_(2.0).add_(net.scale).relu_(),
     mix=mix, scale=scale, expect=LAYERWISE)  # fmt: skip
trap("unbound", lambda net, h: (z := net.wide(h).view(len(h), 3, 5).unbind(1))[0] * z[1].sigmoid() + z[2],
     wide=wide, expect=LAYERWISE)  # fmt: skip
trap("chunked", lambda net, h: (z := net.wide(h)[:, :10].chunk(2, 1))[0] * z[1].sigmoid(), wide=wide, expect=LAYERWISE)
trap("split_bare", lambda net, h: torch.cat((h * net.scale).split([2, 3], 1)[::-1], 1).sin(),
     scale=scale, expect=LAYERWISE)  # fmt: skip
trap("largest_of_a_tuple", lambda net, h: torch.mul(*net.mix(h).sort(1)), expect=LAYERWISE)
trap("complex_numbers",
     lambda net, h: torch.view_as_real(torch.complex(h, h.cos()) * torch.complex(net.scale, net.b)).flatten(1),
     width=10, scale=scale, b=learned(5))  # fmt: skip
trap("weight_of_every_row", lambda net, h: torch.einsum("nij,nj->ni", net.mix.weight.expand(len(h), -1, -1), h))
trap("numpy_style_functions", lambda net, h: torch.special.expit(torch.square(h) @ torch.square(net.mix.weight).T))
# A linear system with a parameter matrix.
trap("solved", lambda net, h: torch.linalg.solve(torch.eye(5).to(h) * 3 + net.mix.weight, h.t()).t())
trap(
    "called_functionally", lambda net, h: functional_call(net.mix, {k: p * 2 for k, p in net.mix.named_parameters()}, h)
)
trap("vmapped", lambda net, h: vmap(lambda row: torch.outer(row, net.scale).sum(0) * row)(h), scale=scale)
trap("vmapped_module", lambda net, h: vmap(net.mix)(h).tanh())
# An ensemble: vmap over stacked parameters.
trap("vmapped_over_weights", lambda net, h: vmap(F.linear, (None, 0))(h, net.stack).mean(0), stack=learned(3, 5, 5))
trap("checkpointed", lambda net, h: checkpoint(lambda z: net.mix(z).tanh() * net.scale, h), mix=mix, scale=scale)
trap("checkpointed_twice", lambda net, h: checkpoint(net.mix, checkpoint(net.mix, h).tanh()).tanh())
trap("gradient_inside_by_func", lambda net, h: h - grad(lambda z: net.mix(z).tanh().pow(2).sum())(h))


@named(trap, b=learned(1), scale=scale)
def add_to_a_view_in_place(net, h):
    y = h * net.scale
    y[:, 0] += net.b
    return y


@named(trap, b=learned(1))
def parameter_written_in(net, h):
    h = h.clone()
    h[:, 1] = net.b
    return h.sin()


@named(trap, scale=scale, mix=mix)
def product_written_in(net, h):
    out = torch.empty_like(h)
    out[:, :2] = h[:, :2] * net.scale[:2]
    out[:, 2:] = net.mix(h)[:, 2:]
    return out


@named(trap, expect=LAYERWISE)
def output_written_over(net, h):
    """The output of the layer is partly overwritten: those elements get no gradient."""
    y = net.mix(h)
    y[:, :2] = h[:, :2]
    return y


@named(trap)
def data_dependent_depth(net, h):
    for _ in range(1 + int(h.abs().sum()) % 3):
        h = net.mix(h).tanh()
    return h


@named(trap)
def gradient_inside(net, h):
    """Energy-based: the output holds the gradient of an energy with respect to the input."""
    with torch.enable_grad():
        x = h if h.requires_grad else h.detach().requires_grad_()
        energy = net.mix(x).tanh().pow(2).sum()
        return x - 0.3 * torch.autograd.grad(energy, x, create_graph=torch.is_grad_enabled())[0]


@named(trap)
def activation_hook(net, h):
    """Gradient reversal by a tensor hook: forward AD never runs it."""
    y = net.mix(h)
    if y.requires_grad:
        y.register_hook(lambda g: -0.5 * g)
    return y.tanh()


@named(trap, mix=mix, other=mix)
def scatter_rows(net, h):
    """Two layers, each on every other row, the results put back by index."""
    even = torch.arange(len(h), device=h.device) % 2 == 0
    places = torch.cat([even.nonzero().squeeze(1), (~even).nonzero().squeeze(1)])
    return torch.zeros_like(h).index_put((places,), torch.cat([net.mix(h[even]), net.other(h[~even])]))


RANDOM = {
    "dropout": lambda net, h: F.dropout(net.mix(h).tanh(), 0.4, net.training),
    "alpha_dropout": lambda net, h: F.alpha_dropout(net.mix(h), 0.3, net.training),
    "noise_added": lambda net, h: net.mix(h) + 0.1 * torch.randn_like(h),
    "gumbel_hard": lambda net, h: F.gumbel_softmax(net.mix(h), hard=True) + h,
    "random_leaky_relu": lambda net, h: F.rrelu(net.mix(h), training=net.training),
    "checkpointed_dropout": lambda net, h: checkpoint(lambda z: F.dropout(net.mix(z).tanh(), 0.4), h),
}
for name, rule in RANDOM.items():
    trap(name, rule, draws=True)
channels = sequence(conv(3, 6, 3), nn.ReLU, partial(nn.Dropout2d, 0.3), conv(6, 4, 3), nn.Flatten, linear(64, 4))
case("dropout_on_channels", channels, images, draws=True)


def function(name: str, **methods: Callable) -> type[torch.autograd.Function]:
    return type(name, (torch.autograd.Function,), {key: staticmethod(method) for key, method in methods.items()})


def affine_forward(ctx, x, w):
    ctx.save_for_backward(x, w)
    return x @ w.t()


def affine_backward(ctx, g):
    x, w = ctx.saved_tensors
    return g @ w, g.t() @ x


# x wᵀ with a backward and nothing else: no forward AD, no vmap.
Affine = function("Affine", forward=affine_forward, backward=affine_backward)
# The same with a backward that cannot be differentiated.
AffineOnce = function("AffineOnce", forward=affine_forward, backward=once_differentiable(affine_backward))
# Gradient reversal: the backward is not the derivative of the forward, and there is no jvp.
Reversal = function("Reversal", forward=lambda ctx, x: x.view_as(x), backward=lambda ctx, g: -0.7 * g)
# A straight-through rounding with a jvp that contradicts its backward.
Misleading = function(
    "Misleading", forward=lambda x: x.sign(), setup_context=lambda ctx, inputs, output: None,
    backward=lambda ctx, g: g, jvp=lambda ctx, tangent: torch.zeros_like(tangent),
)  # fmt: skip

w = learned(5, 5)
trap("custom_function", lambda net, h: Affine.apply(h, net.w), w=w, expect=LAYERWISE)
trap("custom_function_once", lambda net, h: AffineOnce.apply(h, net.w), w=w, expect=LAYERWISE)
trap("custom_function_and_layer", lambda net, h: Affine.apply(net.mix(h), net.w), mix=mix, w=w, expect=LAYERWISE)
trap("gradient_reversal", lambda net, h: Reversal.apply(net.mix(h)))
trap("custom_jvp_that_misleads", lambda net, h: Misleading.apply(net.mix(h)) + h)


def hook_forward(model: nn.Sequential) -> None:
    """Changes the input and the output of the first layer."""
    model[0].register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    model[0].register_forward_hook(lambda module, args, out: out + 1)


def hook(name: str, function: Callable) -> None:
    """A case with this hook on a parameter."""
    case(name, two_layers, change=lambda model: model[0].weight.register_hook(function), expect=ANY)


hook("parameter_hook_scales", lambda g: 3 * g)
hook("parameter_hook_masks", lambda g: g * (torch.arange(6, device=g.device) < 3))
hook("parameter_hook_watches", lambda g: None)
# The gradient that passes through the first layer but one is doubled.
case("module_backward_hook", three_layers, expect=ANY,
     change=lambda model: model[2].register_full_backward_hook(lambda module, into, out: (2 * into[0],)))  # fmt: skip
case("module_forward_hooks", two_layers, change=hook_forward)

# A backbone in eval with dropout and BatchNorm, a head in training.
in_eval = sequence(
    sequence(conv(3, 4, 3), partial(nn.BatchNorm2d, 4), nn.ReLU, partial(nn.Dropout, 0.5), nn.Flatten), linear(144, 4)
)
case("eval_inside_training", in_eval, images, change=lambda model: model[0].eval())


@named(features, enter=enter, running=lambda: nn.Buffer(torch.zeros(5)), expect=ANY)
def buffer_moved_in_forward(net, x):
    """A running mean moved by the forward and used by it."""
    h = net.enter(x).tanh()
    if net.training:
        net.running.lerp_(h.detach().mean(0), 0.1)
    return h - net.running


# The same layer on [n, length, p] and on [length, n, p].
features("batch_first_and_second",
         lambda net, x: (net.mix(x).tanh().transpose(0, 1) * net.scale + net.mix(x.transpose(0, 1))).mean(0),
         series, width=6, mix=linear(6, 6), scale=learned(6), expect=ANY)  # fmt: skip
examples_last = net(
    lambda net, x: (net.w2 @ (net.w1 @ x.t() + net.b1).tanh()).t(), w1=learned(5, 6), b1=learned(5, 1), w2=learned(4, 5)
)
case("examples_last", examples_last, expect=ANY)
