"""Affine norms: T = x_hat * d_gamma + d_beta, with x_hat the input normalised by the operation itself. Their dots need
no T: the sums of x_hat * g and of g over what one scale serves, times its direction."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fastrw.ops import norm_dot
from fastrw.rules.directed import Rule, direction, total


def _last(x_hat, weight, bias, g: Tensor | None) -> Tensor:
    """The scale runs over the last dimensions: rows are what comes before them."""
    gamma, beta = direction(weight), direction(bias)
    if g is None:
        return total(None if gamma is None else x_hat() * gamma, beta)
    shape = (-1, (gamma if beta is None else beta).numel())
    return total(None if gamma is None else (x_hat() * g).reshape(shape) @ gamma.flatten(),
                 None if beta is None else g.reshape(shape) @ beta.flatten())  # fmt: skip


def _channels(x_hat, weight, bias, g: Tensor | None, ndim: int) -> Tensor:
    """The scale runs over dimension 1: rows are those of dimension 0."""
    gamma, beta = direction(weight), direction(bias)
    if g is None:
        over = (1, -1, *[1] * (ndim - 2))
        return total(None if gamma is None else x_hat() * gamma.view(over), None if beta is None else beta.view(over))
    per_channel = (*g.shape[:2], -1)
    return total(None if gamma is None else (x_hat() * g).reshape(per_channel).sum(2) @ gamma,
                 None if beta is None else g.reshape(per_channel).sum(2) @ beta)  # fmt: skip


def layer_norm(input, normalized_shape, weight=None, bias=None, eps=1e-5, g=None):
    return _last(lambda: F.layer_norm(input, normalized_shape, eps=eps), weight, bias, g)


def rms_norm(input, normalized_shape, weight=None, eps=None, g=None):
    return _last(lambda: F.rms_norm(input, normalized_shape, eps=eps), weight, None, g)


def group_norm(input, num_groups, weight=None, bias=None, eps=1e-5, g=None):
    return _channels(lambda: F.group_norm(input, num_groups, eps=eps), weight, bias, g, input.ndim)


def instance_norm(input, running_mean=None, running_var=None, weight=None, bias=None, use_input_stats=True,
                  momentum=0.1, eps=1e-5, g=None):  # fmt: skip
    def x_hat():
        if use_input_stats:
            return F.instance_norm(input, eps=eps)
        return F.batch_norm(input, running_mean, running_var, eps=eps)

    return _channels(x_hat, weight, bias, g, input.ndim)


def batch_norm(
    input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5, g=None
):
    def x_hat():
        statistics = (None, None) if training else (running_mean, running_var)
        return F.batch_norm(input, *statistics, training=training, eps=eps)

    return _channels(x_hat, weight, bias, g, input.ndim)


def layer_norm_dot(g, backend, input, normalized_shape, weight=None, bias=None, eps=1e-5):
    shape = list(normalized_shape)
    _, mean, rstd = torch.native_layer_norm(input, shape, None, None, eps)
    x = input.reshape(mean.numel(), 1, -1)
    directions = (None if d is None else d.flatten() for d in (direction(weight), direction(bias)))
    statistics = (t.reshape(-1, 1, 1) for t in (mean, rstd))
    return norm_dot(x, g.reshape(x.shape).to(x.dtype), *statistics, *directions, backend=backend)


def group_norm_dot(g, backend, input, num_groups, weight=None, bias=None, eps=1e-5):
    n, C = input.shape[:2]
    x = input.reshape(n, C, -1)
    _, mean, rstd = torch.native_group_norm(input, None, None, n, C, x.shape[2], num_groups, eps)
    statistics = (t.view(n, 1, num_groups).expand(-1, x.shape[2], -1) for t in (mean, rstd))
    g = g.reshape(x.shape).to(x.dtype)
    return norm_dot(x.mT, g.mT, *statistics, direction(weight), direction(bias), backend=backend)


def _rule(norm, *slots: str, native: bool = False, dot: Callable | None = None) -> Rule:
    return Rule(norm, *slots, dot=dot or (lambda g, _, *args, **kwargs: norm(*args, g=g, **kwargs)), native=native)


RULES = {
    F.layer_norm: _rule(layer_norm, "weight", "bias", dot=layer_norm_dot),
    F.rms_norm: _rule(rms_norm, "weight", native=True),  # its default eps depends on the input's dtype
    F.group_norm: _rule(group_norm, "weight", "bias", dot=group_norm_dot),
    F.instance_norm: _rule(instance_norm, "weight", "bias"),
    F.batch_norm: _rule(batch_norm, "weight", "bias"),
}
