"""Affine norms: T = x_hat * d_gamma + d_beta, with x_hat the input normalised by the operation itself."""

import torch.nn.functional as F
from torch import Tensor

from fastrw.rules.directed import Rule, direction, total


def _affine(x_hat, weight, bias, shape: tuple) -> Tensor:
    gamma, beta = direction(weight), direction(bias)
    scaled = None if gamma is None else x_hat() * gamma.view(shape)
    return total(scaled, None if beta is None else beta.view(shape))


def layer_norm(input, normalized_shape, weight=None, bias=None, eps=1e-5):
    return _affine(lambda: F.layer_norm(input, normalized_shape, eps=eps), weight, bias, tuple(normalized_shape))


def rms_norm(input, normalized_shape, weight=None, eps=None):
    return _affine(lambda: F.rms_norm(input, normalized_shape, eps=eps), weight, None, tuple(normalized_shape))


def _channels(x: Tensor) -> tuple:
    return (1, -1, *[1] * (x.ndim - 2))


def group_norm(input, num_groups, weight=None, bias=None, eps=1e-5):
    return _affine(lambda: F.group_norm(input, num_groups, eps=eps), weight, bias, _channels(input))


def instance_norm(input, running_mean=None, running_var=None, weight=None, bias=None, use_input_stats=True,
                  momentum=0.1, eps=1e-5):  # fmt: skip
    def x_hat():
        if use_input_stats:
            return F.instance_norm(input, eps=eps)
        return F.batch_norm(input, running_mean, running_var, eps=eps)

    return _affine(x_hat, weight, bias, _channels(input))


def batch_norm(input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    def x_hat():
        statistics = (None, None) if training else (running_mean, running_var)
        return F.batch_norm(input, *statistics, training=training, eps=eps)

    return _affine(x_hat, weight, bias, _channels(input))


RULES = {
    F.layer_norm: Rule(layer_norm, "weight", "bias"),
    F.rms_norm: Rule(rms_norm, "weight", native=True),  # its default eps depends on the input's dtype
    F.group_norm: Rule(group_norm, "weight", "bias"),
    F.instance_norm: Rule(instance_norm, "weight", "bias"),
    F.batch_norm: Rule(batch_norm, "weight", "bias"),
}
