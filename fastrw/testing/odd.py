"""Traps: models on which a method that reads layers, or forward AD, could be wrong without an error."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call, grad, vmap
from torch.utils.checkpoint import checkpoint as checkpointed

from .case import ANY, LAYERWISE, case, forward, model
from .parts import between, changed, images, learned, linear, series, three_layers, two_layers

mix, scale = linear(5, 5), learned(5)
checkpoint = partial(checkpointed, use_reentrant=False)


def trap(name: str, rule: Callable, expect: frozenset[str] = ANY, *, draws: bool = False, **parts: Callable) -> None:
    """A case with `rule(net, hidden [n, 5]) -> [n, 5]` between two linear layers."""
    case(name, expect, between(rule, **parts), draws=draws)


def middle(expect: frozenset[str], **parts: Callable) -> Callable:
    """Decorates the rule of a `trap`."""
    return lambda rule: trap(rule.__name__, rule, expect, **parts)


@middle(ANY, b=learned(1), scale=scale)
def add_to_a_view_in_place(net, h):
    y = h * net.scale
    y[:, 0] += net.b
    return y


@middle(ANY, b=learned(1))
def parameter_written_in(net, h):
    h = h.clone()
    h[:, 1] = net.b
    return h.sin()


@middle(ANY, scale=scale, mix=mix)
def product_written_in(net, h):
    out = torch.empty_like(h)
    out[:, :2] = h[:, :2] * net.scale[:2]
    out[:, 2:] = net.mix(h)[:, 2:]
    return out


@middle(LAYERWISE, mix=mix, scale=scale)
def out_of_place_then_in_place(net, h):
    return net.mix(h).mul_(2.0).add_(net.scale).relu_()


@middle(LAYERWISE, mix=mix)
def output_written_over(net, h):
    """The output of the layer is partly overwritten: those elements get no gradient."""
    y = net.mix(h)
    y[:, :2] = h[:, :2]
    return y


@middle(ANY, mix=mix)
def teacher_without_grad(net, h):
    with torch.no_grad():
        teacher = net.mix(h).softmax(1)
    return net.mix(h) * teacher


@middle(ANY, mix=mix, scale=scale)
def layer_called_without_grad(net, h):
    with torch.no_grad():
        h = h + net.mix(h)
    return h * net.scale


@middle(ANY, mix=mix)
def straight_through(net, h):
    """The rounding has no gradient; that of its input passes."""
    y = net.mix(h)
    return y + (torch.sign(y) - y).detach()


@middle(ANY, mix=mix)
def straight_through_weight(net, h):
    w = net.mix.weight
    return F.linear(h, w + (torch.sign(w) - w).detach(), net.mix.bias)


@middle(ANY, mix=mix)
def data_dependent_depth(net, h):
    for _ in range(1 + int(h.abs().sum()) % 3):
        h = net.mix(h).tanh()
    return h


@middle(LAYERWISE, wide=linear(5, 15))
def unbound(net, h):
    q, k, v = net.wide(h).view(len(h), 3, 5).unbind(1)
    return q * k.sigmoid() + v


@middle(LAYERWISE, wide=linear(5, 15))
def chunked(net, h):
    left, right = net.wide(h)[:, :10].chunk(2, 1)
    return left * right.sigmoid()


@middle(LAYERWISE, scale=scale)
def split_bare(net, h):
    a, b = (h * net.scale).split([2, 3], 1)
    return torch.cat([b, a], 1).sin()


@middle(LAYERWISE, mix=mix)
def largest_of_a_tuple(net, h):
    values, indices = net.mix(h).sort(1)
    return values * indices


@middle(ANY, mix=mix)
def called_functionally(net, h):
    weights = {name: p * 2 for name, p in net.mix.named_parameters()}
    return functional_call(net.mix, weights, (h,))


@middle(ANY, mix=mix)
def checkpointed_twice(net, h):
    for _ in range(2):
        h = checkpoint(net.mix, h).tanh()
    return h


@middle(ANY, mix=mix)
def gradient_inside(net, h):
    """Energy-based: the output holds the gradient of an energy with respect to the input."""
    with torch.enable_grad():
        x = h if h.requires_grad else h.detach().requires_grad_()
        energy = net.mix(x).tanh().pow(2).sum()
        return x - 0.3 * torch.autograd.grad(energy, x, create_graph=torch.is_grad_enabled())[0]


@middle(ANY, mix=mix)
def activation_hook(net, h):
    """Gradient reversal by a tensor hook: forward AD never runs it."""
    y = net.mix(h)
    if y.requires_grad:
        y.register_hook(lambda g: -0.5 * g)
    return y.tanh()


@middle(ANY, mix=mix, other=mix)
def scatter_rows(net, h):
    """Two layers, each on every other row, the results put back by index."""
    even = torch.arange(len(h), device=h.device) % 2 == 0
    places = torch.cat([even.nonzero().squeeze(1), (~even).nonzero().squeeze(1)])
    return torch.zeros_like(h).index_put((places,), torch.cat([net.mix(h[even]), net.other(h[~even])]))


@middle(ANY, width=10, scale=scale, b=learned(5))
def complex_numbers(net, h):
    z = torch.complex(h, h.cos()) * torch.complex(net.scale, net.b)
    return torch.view_as_real(z).flatten(1)


@middle(ANY, mix=mix)
def solved(net, h):
    """A linear system with a parameter matrix."""
    eye = torch.eye(5, dtype=h.dtype, device=h.device)
    return torch.linalg.solve(eye * 3 + net.mix.weight, h.t()).t()


trap("detached_branch", lambda net, h: net.mix(h) + net.mix(h.detach() * 2) + net.mix(h).detach() ** 2, mix=mix)
trap("data_attribute", lambda net, h: net.mix(h) * net.mix(h).data.sigmoid(), mix=mix)
trap("detached_parameter", lambda net, h: F.linear(h, net.mix.weight.detach(), net.mix.bias), mix=mix)
trap("data_dependent_branch", lambda net, h: net.mix(h) if h.sum() > 0 else net.other(h), mix=mix, other=mix)
trap("vmapped", lambda net, h: vmap(lambda row: torch.outer(row, net.scale).sum(0) * row)(h), scale=scale)
trap("vmapped_module", lambda net, h: vmap(net.mix)(h).tanh(), mix=mix)
# An ensemble: vmap over stacked parameters.
trap("vmapped_over_weights", lambda net, h: vmap(F.linear, (None, 0))(h, net.stack).mean(0), stack=learned(3, 5, 5))
trap("checkpointed", lambda net, h: checkpoint(lambda z: net.mix(z).tanh() * net.scale, h), mix=mix, scale=scale)
trap("gradient_inside_by_func", lambda net, h: h - grad(lambda z: net.mix(z).tanh().pow(2).sum())(h), mix=mix)
trap(
    "weight_of_every_row", lambda net, h: torch.einsum("nij,nj->ni", net.mix.weight.expand(len(h), -1, -1), h), mix=mix
)
trap(
    "numpy_style_functions",
    lambda net, h: torch.special.expit(torch.square(h) @ torch.square(net.mix.weight).T),
    mix=mix,
)

RANDOM = {
    "dropout": lambda net, h: F.dropout(net.mix(h).tanh(), 0.4, net.training),
    "alpha_dropout": lambda net, h: F.alpha_dropout(net.mix(h), 0.3, net.training),
    "noise_added": lambda net, h: net.mix(h) + 0.1 * torch.randn_like(h),
    "gumbel_hard": lambda net, h: F.gumbel_softmax(net.mix(h), hard=True) + h,
    "random_leaky_relu": lambda net, h: F.rrelu(net.mix(h), training=net.training),
    "checkpointed_dropout": lambda net, h: checkpoint(lambda z: F.dropout(net.mix(z).tanh(), 0.4), h),
}
for name, rule in RANDOM.items():
    trap(name, rule, draws=True, mix=mix)


@model(LAYERWISE, images, draws=True)
def dropout_on_channels():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Dropout2d(0.3), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(64, 4)
    )


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
    "Misleading",
    forward=lambda x: x.sign(),
    setup_context=lambda ctx, inputs, output: None,
    backward=lambda ctx, g: g,
    jvp=lambda ctx, tangent: torch.zeros_like(tangent),
)

w = learned(5, 5)
trap("custom_function", lambda net, h: Affine.apply(h, net.w), LAYERWISE, w=w)
trap("custom_function_once", lambda net, h: AffineOnce.apply(h, net.w), LAYERWISE, w=w)
trap("custom_function_and_layer", lambda net, h: Affine.apply(net.mix(h), net.w), LAYERWISE, mix=mix, w=w)
trap("gradient_reversal", lambda net, h: Reversal.apply(net.mix(h)), mix=mix)
trap("custom_jvp_that_misleads", lambda net, h: Misleading.apply(net.mix(h)) + h, mix=mix)


def hook_forward(model: nn.Sequential) -> None:
    """Changes the input and the output of the first layer."""
    model[0].register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    model[0].register_forward_hook(lambda module, args, out: out + 1)


def hook_backward(model: nn.Sequential) -> None:
    """Changes the gradient that passes through the first layer but one."""
    model[2].register_full_backward_hook(lambda module, grad_in, grad_out: (2 * grad_in[0],))


PARAMETER_HOOKS = {
    "parameter_hook_scales": lambda g: 3 * g,
    "parameter_hook_masks": lambda g: g * (torch.arange(6, device=g.device) < 3),
    "parameter_hook_watches": lambda g: None,
}
for name, hook in PARAMETER_HOOKS.items():
    case(name, ANY, changed(two_layers, lambda model, hook=hook: model[0].weight.register_hook(hook)))
case("module_backward_hook", ANY, changed(three_layers, hook_backward))
case("module_forward_hooks", LAYERWISE, changed(two_layers, hook_forward))


@model(LAYERWISE, images)
def eval_inside_training():
    """A backbone in eval with dropout and BatchNorm, a head in training."""
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten()).eval()
    return nn.Sequential(backbone, nn.Linear(144, 4))


@forward(ANY, enter=linear(6, 5), running=partial(torch.zeros, 5), head=linear(5, 4))
def buffer_moved_in_forward(net, x):
    """A running mean moved by the forward and used by it."""
    h = net.enter(x).tanh()
    if net.training:
        net.running.lerp_(h.detach().mean(0), 0.1)
    return net.head(h - net.running)


@forward(ANY, series, mix=linear(6, 6), scale=learned(6), head=linear(6, 4))
def batch_first_and_second(net, x):
    """The same layer on [n, length, p] and on [length, n, p]."""
    return net.head((net.mix(x).tanh().transpose(0, 1) * net.scale + net.mix(x.transpose(0, 1))).mean(0))


@forward(ANY, w1=learned(5, 6), b1=learned(5, 1), w2=learned(4, 5))
def examples_last(net, x):
    h = (net.w1 @ x.t() + net.b1).tanh()
    return (net.w2 @ h).t()
