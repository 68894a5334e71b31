"""Traps: models on which a method that reads layers, or forward AD, could be wrong without an error."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from .case import ANY, LAYERWISE, Net, case, images, param, series, vectors


def enters(rule, expect=ANY, name=None, draws=False, width=5, **parts):
    """A case with `rule(net, hidden [n, 5]) -> [n, width]` between two layers; parts are made at build time."""

    def build():
        made = {key: make() for key, make in parts.items()}
        whole = lambda net, x: net.head(rule(net, net.enter(x).tanh()))  # noqa: E731
        return Net(whole, enter=nn.Linear(6, 5), head=nn.Linear(width, 4), **made), vectors(9), vectors(4)

    case(expect, name=name or rule.__name__, draws=draws)(build)


mix = partial(nn.Linear, 5, 5)
bias = partial(param, 5)


def add_to_a_view_in_place(net, h):
    y = h * net.scale
    y[:, 0] += net.b
    return y


def parameter_written_in(net, h):
    h = h.clone()
    h[:, 1] = net.b
    return h.sin()


def product_written_in(net, h):
    out = torch.empty_like(h)
    out[:, :2] = h[:, :2] * net.scale[:2]
    out[:, 2:] = net.mix(h)[:, 2:]
    return out


def out_of_place_then_in_place(net, h):
    y = net.mix(h)
    y.mul_(2.0).add_(net.scale).relu_()
    return y


def output_written_over(net, h):
    """After the layer its output is partly overwritten: those elements get no gradient."""
    y = net.mix(h)
    y[:, :2] = h[:, :2]
    return y


def teacher_without_grad(net, h):
    with torch.no_grad():
        teacher = net.mix(h).softmax(1)
    return net.mix(h) * teacher


def layer_called_without_grad(net, h):
    with torch.no_grad():
        h = h + net.mix(h)
    return h * net.scale


def detached_branch(net, h):
    return net.mix(h) + net.mix(h.detach() * 2) + net.mix(h).detach() ** 2


def data_attribute(net, h):
    return net.mix(h) * net.mix(h).data.sigmoid()


def detached_parameter(net, h):
    return F.linear(h, net.mix.weight.detach(), net.mix.bias)


def straight_through(net, h):
    """The rounding has no gradient, its input's passes."""
    y = net.mix(h)
    return y + (torch.sign(y) - y).detach()


def straight_through_weight(net, h):
    w = net.mix.weight
    return F.linear(h, w + (torch.sign(w) - w).detach(), net.mix.bias)


def data_dependent_branch(net, h):
    return net.mix(h) if h.sum() > 0 else net.other(h)


def data_dependent_depth(net, h):
    for _ in range(1 + int(h.abs().sum()) % 3):
        h = net.mix(h).tanh()
    return h


def unbound(net, h):
    q, k, v = net.wide(h).view(len(h), 3, 5).unbind(1)
    return q * k.sigmoid() + v


def chunked(net, h):
    left, right = net.wide(h)[:, :10].chunk(2, 1)
    return left * right.sigmoid()


def split_bare(net, h):
    a, b = (h * net.scale).split([2, 3], 1)
    return torch.cat([b, a], 1).sin()


def largest_of_a_tuple(net, h):
    values, indices = net.mix(h).sort(1)
    return values * indices


def vmapped(net, h):
    return torch.func.vmap(lambda row: torch.outer(row, net.scale).sum(0) * row)(h)


def vmapped_module(net, h):
    return torch.func.vmap(net.mix)(h).tanh()


def vmapped_over_weights(net, h):
    """An ensemble: vmap over stacked parameters."""
    return torch.func.vmap(F.linear, (None, 0))(h, net.stack).mean(0)


def called_functionally(net, h):
    weights = {name: p * 2 for name, p in net.mix.named_parameters()}
    return torch.func.functional_call(net.mix, weights, (h,))


def checkpointed(net, h):
    return checkpoint(lambda z: net.mix(z).tanh() * net.scale, h, use_reentrant=False)


def checkpointed_dropout(net, h):
    return checkpoint(lambda z: F.dropout(net.mix(z).tanh(), 0.4), h, use_reentrant=False)


def checkpointed_twice(net, h):
    for _ in range(2):
        h = checkpoint(net.mix, h, use_reentrant=False).tanh()
    return h


def gradient_inside(net, h):
    """Energy-based: the output holds the gradient of an energy with respect to the input."""
    with torch.enable_grad():
        x = h if h.requires_grad else h.detach().requires_grad_()
        energy = net.mix(x).tanh().pow(2).sum()
        return x - 0.3 * torch.autograd.grad(energy, x, create_graph=torch.is_grad_enabled())[0]


def gradient_inside_by_func(net, h):
    return h - torch.func.grad(lambda z: net.mix(z).tanh().pow(2).sum())(h)


def activation_hook(net, h):
    """Gradient reversal by a tensor hook: forward AD never runs it."""
    y = net.mix(h)
    if y.requires_grad:
        y.register_hook(lambda g: -0.5 * g)
    return y.tanh()


def complex_numbers(net, h):
    return torch.view_as_real(torch.complex(h, h.cos()) * torch.complex(net.scale, net.b)).flatten(1)


def scatter_rows(net, h):
    index = torch.arange(len(h), device=h.device) % 2
    parts = [net.mix(h[index == 0]), net.other(h[index == 1])]
    return torch.zeros_like(h).index_put(
        (torch.cat([(index == k).nonzero().squeeze(1) for k in (0, 1)]),), torch.cat(parts)
    )


def solved(net, h):
    """A linear system with a parameter matrix."""
    eye = torch.eye(5, dtype=h.dtype, device=h.device)
    return torch.linalg.solve(eye * 3 + net.mix.weight, h.t()).t()


def weight_of_every_row(net, h):
    return torch.einsum("nij,nj->ni", net.mix.weight.expand(len(h), -1, -1), h)


def numpy_style_functions(net, h):
    return torch.special.expit(torch.square(h) @ torch.square(net.mix.weight).T)


enters(add_to_a_view_in_place, b=partial(param, 1), scale=bias)
enters(parameter_written_in, b=partial(param, 1))
enters(product_written_in, scale=bias, mix=mix)
enters(out_of_place_then_in_place, LAYERWISE, mix=mix, scale=bias)
enters(output_written_over, LAYERWISE, mix=mix)
enters(teacher_without_grad, mix=mix)
enters(layer_called_without_grad, mix=mix, scale=bias)
enters(detached_branch, mix=mix)
enters(data_attribute, mix=mix)
enters(detached_parameter, mix=mix)
enters(straight_through, mix=mix)
enters(straight_through_weight, mix=mix)
enters(data_dependent_branch, mix=mix, other=mix)
enters(data_dependent_depth, mix=mix)
enters(unbound, LAYERWISE, wide=partial(nn.Linear, 5, 15))
enters(chunked, LAYERWISE, wide=partial(nn.Linear, 5, 15))
enters(split_bare, LAYERWISE, scale=bias)
enters(largest_of_a_tuple, LAYERWISE, mix=mix)
enters(vmapped, scale=bias)
enters(vmapped_module, mix=mix)
enters(vmapped_over_weights, stack=partial(param, 3, 5, 5))
enters(called_functionally, mix=mix)
enters(checkpointed, mix=mix, scale=bias)
enters(checkpointed_dropout, draws=True, mix=mix)
enters(checkpointed_twice, mix=mix)
enters(gradient_inside, mix=mix)
enters(gradient_inside_by_func, mix=mix)
enters(activation_hook, mix=mix)
enters(complex_numbers, width=10, scale=bias, b=bias)
enters(scatter_rows, mix=mix, other=mix)
enters(solved, mix=mix)
enters(weight_of_every_row, mix=mix)
enters(numpy_style_functions, mix=mix)
enters(lambda net, h: F.dropout(net.mix(h).tanh(), 0.4, net.training), name="dropout", draws=True, mix=mix)
enters(lambda net, h: F.alpha_dropout(net.mix(h), 0.3, net.training), name="alpha_dropout", draws=True, mix=mix)
enters(lambda net, h: net.mix(h) + 0.1 * torch.randn_like(h), name="noise_added", draws=True, mix=mix)
enters(lambda net, h: F.gumbel_softmax(net.mix(h), hard=True) + h, name="gumbel_hard", draws=True, mix=mix)
enters(lambda net, h: F.rrelu(net.mix(h), training=net.training), name="random_leaky_relu", draws=True, mix=mix)


@case(LAYERWISE, draws=True)
def dropout_on_channels():
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Dropout2d(0.3), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(64, 4)
    )
    return model, images(8), images(4)


class Affine(torch.autograd.Function):
    """x wᵀ with its own backward and nothing else: no forward AD, no vmap."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x @ w.t()

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return g @ w, g.t() @ x


class AffineOnce(Affine):
    """As Affine, with a backward that cannot be differentiated."""

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return Affine.backward(ctx, g)


class Reversal(torch.autograd.Function):
    """Gradient reversal: the backward is not the forward's derivative, and its jvp is not given."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, g):
        return -0.7 * g


class Misleading(torch.autograd.Function):
    """A straight-through rounding whose jvp says something else than its backward."""

    @staticmethod
    def forward(x):
        return x.sign()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, g):
        return g

    @staticmethod
    def jvp(ctx, tangent):
        return torch.zeros_like(tangent)


enters(lambda net, h: Affine.apply(h, net.w), LAYERWISE, name="custom_function", w=partial(param, 5, 5))
enters(
    lambda net, h: AffineOnce.apply(h, net.w),
    LAYERWISE,
    name="custom_function_once",
    w=partial(param, 5, 5),
)
enters(
    lambda net, h: Affine.apply(net.mix(h), net.w),
    LAYERWISE,
    name="custom_function_and_layer",
    mix=mix,
    w=partial(param, 5, 5),
)
enters(lambda net, h: Reversal.apply(net.mix(h)), name="gradient_reversal", mix=mix)
enters(lambda net, h: Misleading.apply(net.mix(h)) + h, name="custom_jvp_that_misleads", mix=mix)


def hooked(hook):
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))
    model[0].weight.register_hook(hook)
    return model, vectors(9), vectors(4)


case(ANY, name="parameter_hook_scales")(partial(hooked, lambda g: 3 * g))
case(ANY, name="parameter_hook_masks")(partial(hooked, lambda g: g * (torch.arange(6, device=g.device) < 3)))
case(ANY, name="parameter_hook_watches")(partial(hooked, lambda g: None))


@case(ANY)
def module_backward_hook():
    """A full backward hook that changes the gradient passing through."""
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 4))
    model[2].register_full_backward_hook(lambda module, grad_in, grad_out: (2 * grad_in[0],))
    return model, vectors(9), vectors(4)


@case(LAYERWISE)
def module_forward_hooks():
    """Hooks that change what goes in and what comes out."""
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))
    model[0].register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    model[0].register_forward_hook(lambda module, args, out: out + 1)
    return model, vectors(9), vectors(4)


@case(LAYERWISE)
def eval_inside_training():
    """A backbone in eval with dropout and BatchNorm, a head in training."""
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten()).eval()
    return nn.Sequential(backbone, nn.Linear(144, 4)), images(8), images(4)


@case(ANY)
def buffer_moved_in_forward():
    """A running mean moved by the forward and used by it."""

    def rule(net, x):
        h = net.enter(x).tanh()
        if net.training:
            net.running.lerp_(h.detach().mean(0), 0.1)
        return net.head(h - net.running)

    return Net(rule, enter=nn.Linear(6, 5), running=torch.zeros(5), head=nn.Linear(5, 4)), vectors(9), vectors(4)


@case(ANY)
def batch_first_and_second():
    """The same layer on [n, length, p] and on [length, n, p]."""

    def rule(net, x):
        return net.head((net.mix(x).tanh().transpose(0, 1) * net.scale + net.mix(x.transpose(0, 1))).mean(0))

    return Net(rule, mix=nn.Linear(6, 6), scale=param(6), head=nn.Linear(6, 4)), series(8), series(4)


@case(ANY)
def examples_last():
    def rule(net, x):
        h = (net.w1 @ x.t() + net.b1).tanh()
        return (net.w2 @ h).t()

    return Net(rule, w1=param(5, 6), b1=param(5, 1), w2=param(4, 5)), vectors(9), vectors(4)
