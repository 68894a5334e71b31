"""Sums, scales and activations. At a use, the per-example gradient of a shift or scale is g or g x, summed to the shape
of the parameter."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastrw.nodes.base import ByInput, NodeType, Part, Products, Use, by_calls, scaled, total
from fastrw.nodes.instances import summed
from fastrw.nodes.lazy import LazyBatchNormTangent, formed, through_relu

aten = torch.ops.aten


def _only(use: Use) -> int | None:
    """The input that leads to a parameter; None where both do."""
    return use.below[0] if len(use.below) == 1 else None


def _sum_part(sign: int):
    """The use of x + sign alpha y."""

    def part(s, use: Use, g: Tensor, products: Products) -> Part | None:
        j = _only(use)
        if j is None:
            return None
        return summed(scaled(g, sign * s.alpha) if j else g, s.shape(j), j, use.owned[0])

    return part


def _mul(s, use: Use, g: Tensor, products: Products) -> Part | None:
    j = _only(use)
    other = None if j is None else s.self if j else s.other
    if other is None:
        return None
    return summed((g * other).to(g.dtype), s.shape(j), j, use.owned[0])


def _like_output(s, t: Tensor) -> Tensor:
    return t.to(s.output.dtype).expand(s.output.shape)


def _add_jvp(s, ts, backend: str):
    alpha = s.alpha
    for x, y in ((0, 1), (1, 0)):
        t = ts.get(x)
        if alpha == 1 and isinstance(t, LazyBatchNormTangent) and [*t.shape] == [*s.output.shape]:
            other = ts.get(y)
            if other is None:
                return {0: t}
            other = formed(other)
            if other.shape == t.shape:
                return {0: t.plus(other)}
    ts = {j: formed(t) for j, t in ts.items()}
    return {0: _like_output(s, total(ts.get(0), scaled(ts[1], alpha) if 1 in ts else None))}


def _sub_jvp(s, ts, backend: str):
    return {0: _like_output(s, total(ts.get(0), ts[1] * -s.alpha if 1 in ts else None))}


def _mul_jvp(s, ts, backend: str):
    x, y = s.self, s.other
    if any(t.is_complex() for t in ts.values()) or (0 in ts and y is None) or (1 in ts and x is None):
        return None
    return {0: _like_output(s, total(ts[0] * y if 0 in ts else None, ts[1] * x if 1 in ts else None))}


def _relu_jvp(s, ts, backend: str):
    t = ts[0]
    return {0: t.masked(s.result) if isinstance(t, LazyBatchNormTangent) else through_relu(formed(t), s.result)}


def _on(formula):
    """An elementwise operation f: formula(s, t) is t f'(x), for gradients and for tangents."""

    def jvp(s, ts: ByInput, backend: str) -> ByInput | None:
        t = ts.get(0)
        return None if len(ts) > 1 or t is None or t.is_complex() else {0: formula(s, t)}

    return jvp


def _between(x: Tensor, t: Tensor, low, high) -> Tensor:
    """t where x was not clamped."""
    kept = x >= low if high is None else x <= high if low is None else (x >= low) & (x <= high)
    return aten.threshold_backward(t, kept, 0)  # one kernel, in the layout of t; torch.where fills a scalar first


# name -> (what is read, t f'(x))
_UNARY = {
    "Abs": ("self", lambda s, t: t * s.self.sgn()),
    "Cos": ("self", lambda s, t: t * -s.self.sin()),
    "Elu": ("self alpha scale input_scale",
            lambda s, t: aten.elu_backward(t, s.alpha, s.scale, s.input_scale, False, s.self)),
    "Erf": ("self", lambda s, t: t * (2 / math.sqrt(math.pi)) * (-s.self.square()).exp()),
    "Exp": ("result", lambda s, t: t * s.result),
    "Gelu": ("self approximate", lambda s, t: aten.gelu_backward(t, s.self, approximate=s.approximate)),
    "Hardshrink": ("self lambd", lambda s, t: aten.hardshrink_backward(t, s.self, s.lambd)),
    "Hardsigmoid": ("self", lambda s, t: aten.hardsigmoid_backward(t, s.self)),
    "Hardswish": ("self", lambda s, t: aten.hardswish_backward(t, s.self)),
    "Hardtanh": ("self min_val max_val", lambda s, t: aten.hardtanh_backward(t, s.self, s.min_val, s.max_val)),
    "LeakyRelu": ("self negative_slope",
                  lambda s, t: aten.leaky_relu_backward(t, s.self, s.negative_slope, False)),
    "Log": ("self", lambda s, t: t / s.self),
    "LogSigmoid": ("self buffer", lambda s, t: aten.log_sigmoid_backward(t, s.self, s.buffer)),
    "Mish": ("self", lambda s, t: aten.mish_backward(t, s.self)),
    "Neg": ("", lambda s, t: -t),
    "Reciprocal": ("result", lambda s, t: t * -s.result.square()),
    "Rsqrt": ("result", lambda s, t: t * -0.5 * s.result.pow(3)),
    "Sigmoid": ("result", lambda s, t: aten.sigmoid_backward(t, s.result)),
    "Silu": ("self", lambda s, t: aten.silu_backward(t, s.self)),
    "Sin": ("self", lambda s, t: t * s.self.cos()),
    "Softplus": ("self beta threshold", lambda s, t: aten.softplus_backward(t, s.self, s.beta, s.threshold)),
    "Softshrink": ("self lambd", lambda s, t: aten.softshrink_backward(t, s.self, s.lambd)),
    "Sqrt": ("result", lambda s, t: t / (2 * s.result)),
    "Tanh": ("result", lambda s, t: aten.tanh_backward(t, s.result)),
    "Threshold": ("self threshold", lambda s, t: aten.threshold_backward(t, s.self, s.threshold)),
    "ClampMin": ("self min", lambda s, t: _between(s.self, t, s.min, None)),
    "ClampMax": ("self max", lambda s, t: _between(s.self, t, None, s.max)),
}  # fmt: skip
_CLAMP = NodeType("self min max", by_calls, _on(lambda s, t: _between(s.self, t, s.min, s.max)))

TYPES = {
    **{f"{name}Backward0": NodeType(reads, by_calls, _on(formula)) for name, (reads, formula) in _UNARY.items()},
    "ClampBackward0": _CLAMP,
    "ClampBackward1": _CLAMP,
    "AddBackward0": NodeType("alpha", _sum_part(1), _add_jvp, lazy=True),
    "SubBackward0": NodeType("alpha", _sum_part(-1), _sub_jvp),
    "MulBackward0": NodeType("self other", _mul, _mul_jvp),
    "ReluBackward0": NodeType("result", by_calls, _relu_jvp, lazy=True),
}
