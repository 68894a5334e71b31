"""Operations that move elements or sum them: linear in what they take, the same for its tangent."""

from __future__ import annotations

import torch

from fastrw.graph.saved import saved, signed
from fastrw.graph.walk import shape_of
from fastrw.nodes.base import NodeType


def _on(function):
    """The rule of an operation of one argument: function(node, t)."""

    def tangent(node, ts, backend: str):
        return {0: function(node, ts[0])}

    return NodeType(None, tangent)


def _view(node, t):
    return t.reshape(shape_of(node))


def _cast(node, t):
    m = node._input_metadata[0]
    if t.is_complex() and not m.dtype.is_complex:
        t = t.real
    return t.to(m.device, m.dtype)


def _mean(node, t):
    dims = [signed(d) for d in saved(node, "dim") or ()]
    return t.mean(dims, saved(node, "keepdim")) if dims else t.mean().expand(shape_of(node))


def _sum(node, t):
    dims = [signed(d) for d in saved(node, "dim") or ()]
    return t.sum(dims, saved(node, "keepdim")) if dims else t.sum().expand(shape_of(node))


def _max_pool(node, ts, backend: str):
    """The tangent of the input at the place of each maximum."""
    t, where = ts[0], saved(node, "result1")
    return {0: t.flatten(-2).gather(-1, where.flatten(-2)).view(where.shape)}


def _average_pool(node, t):
    return torch.nn.functional.avg_pool2d(
        t, saved(node, "kernel_size"), saved(node, "stride"), saved(node, "padding"), saved(node, "ceil_mode"),
        saved(node, "count_include_pad"), saved(node, "divisor_override"),
    )  # fmt: skip


TYPES = {
    **dict.fromkeys(("ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0", "SqueezeBackward0",
                     "SqueezeBackward1", "SqueezeBackward2", "UnsqueezeBackward0"), _on(_view)),
    **dict.fromkeys(("CloneBackward0", "AliasBackward0", "DetachBackward0"), _on(lambda node, t: t)),
    "ToCopyBackward0": _on(_cast),
    "TBackward0": _on(lambda node, t: t.t()),
    "TransposeBackward0": _on(lambda node, t: t.transpose(signed(saved(node, "dim0")), signed(saved(node, "dim1")))),
    "PermuteBackward0": _on(lambda node, t: t.permute([signed(d) for d in saved(node, "dims")])),
    "ExpandBackward0": _on(lambda node, t: t.expand(shape_of(node))),
    "MeanBackward0": _on(lambda node, t: t.mean()),
    "MeanBackward1": _on(_mean),
    "SumBackward0": _on(lambda node, t: t.sum()),
    "SumBackward1": _on(_sum),
    "MaxPool2DWithIndicesBackward0": NodeType(None, _max_pool),
    "AvgPool2DBackward0": _on(_average_pool),
}  # fmt: skip
