"""Sums, scales and activations. At a use, the per-example gradient of a shift or scale: g or g x, summed to its
shape."""

from __future__ import annotations

from torch import Tensor

from fastrw.graph.saved import saved
from fastrw.graph.walk import shape_of
from fastrw.nodes.base import Instances, NodeType, Part, Products, Use, by_example, total
from fastrw.nodes.owned import Owned
from fastrw.nodes.waiting import Normed, formed, through_relu


def _reduced(G: Tensor, node, j: int, owned: Owned) -> Part | None:
    """G, the gradient of input j before it is summed to its shape, as instances."""
    child, k = node.next_functions[j]
    shape = shape_of(child, k)
    if owned.dim is None or G.shape != owned.shape or G.is_complex():
        return None
    full = [1] * (G.ndim - len(shape)) + list(shape)
    if full[owned.dim] != 1:  # it runs along the examples
        return None
    over = [d for d in range(G.ndim) if full[d] == 1 and d != owned.dim and G.shape[d] != 1]
    G = G.sum(over, keepdim=True) if over else G
    mine, rest = by_example(G.movedim(owned.dim, 0).reshape(G.shape[owned.dim], *shape), owned)
    return Instances({j: (mine, rest)})


def _scaled(t, by):
    return t if by == 1 else t * by


def _add(node, use: Use, g: Tensor, products: Products) -> Part | None:
    if len(use.below) != 1:
        return None
    (j,) = use.below
    return _reduced(_scaled(g, saved(node, "alpha")) if j else g, node, j, use.owned[0])


def _sub(node, use: Use, g: Tensor, products: Products) -> Part | None:
    if len(use.below) != 1:
        return None
    (j,) = use.below
    return _reduced(g * -saved(node, "alpha") if j else g, node, j, use.owned[0])


def _mul(node, use: Use, g: Tensor, products: Products) -> Part | None:
    if len(use.below) != 1:
        return None
    (j,) = use.below
    other = saved(node, "self" if j else "other")
    return None if other is None or other.is_complex() else _reduced((g * other).to(g.dtype), node, j, use.owned[0])


def _like_output(node, t: Tensor) -> Tensor:
    dtype, shape = node._input_metadata[0].dtype, shape_of(node)
    t = t if t.dtype == dtype else t.to(dtype)
    return t if t.shape == shape else t.expand(shape)


def _add_tangent(node, ts, backend: str):
    alpha = saved(node, "alpha")
    for x, y in ((0, 1), (1, 0)):
        t = ts.get(x)
        if alpha == 1 and isinstance(t, Normed) and t.shape == shape_of(node):
            other = ts.get(y)
            if other is None:
                return {0: t}
            other = formed(other)
            if other.shape == t.shape:
                return {0: t.plus(other)}
    ts = {j: formed(t) for j, t in ts.items()}
    found = total(ts.get(0), _scaled(ts[1], alpha) if 1 in ts else None)
    return {0: _like_output(node, found)}


def _sub_tangent(node, ts, backend: str):
    return {0: _like_output(node, total(ts.get(0), ts[1] * -saved(node, "alpha") if 1 in ts else None))}


def _mul_tangent(node, ts, backend: str):
    x, y = saved(node, "self"), saved(node, "other")
    if any(t.is_complex() for t in ts.values()) or (0 in ts and y is None) or (1 in ts and x is None):
        return None
    return {0: _like_output(node, total(ts[0] * y if 0 in ts else None, ts[1] * x if 1 in ts else None))}


def _relu_tangent(node, ts, backend: str):
    t, out = ts[0], saved(node, "result")
    if isinstance(t, Normed):
        return {0: t.masked(out)}
    return {0: through_relu(formed(t), out, backend)}


def _self_adjoint(node, ts, backend: str):
    """g -> g f'(x), element by element: tangents go through as gradients do."""
    t = ts.get(0)
    if len(ts) > 1 or t is None or t.is_complex():
        return None
    out = node(t)
    return {0: out[0] if isinstance(out, tuple) else out}


_UNARY = """Hardsigmoid Hardswish Hardtanh Sigmoid Tanh Gelu Silu Mish Elu LeakyRelu Threshold Softplus LogSigmoid Exp
    Log Sqrt Rsqrt Sin Cos Erf Abs Neg Clamp ClampMin ClampMax Relu6 Selu Celu Hardshrink Softshrink Square
    Reciprocal"""

TYPES = {
    **{f"{name}Backward{i}": NodeType(None, _self_adjoint) for name in _UNARY.split() for i in range(2)},
    "AddBackward0": NodeType(_add, _add_tangent, waits=True),
    "SubBackward0": NodeType(_sub, _sub_tangent),
    "MulBackward0": NodeType(_mul, _mul_tangent),
    "ReluBackward0": NodeType(None, _relu_tangent, waits=True),
}
