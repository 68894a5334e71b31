"""Operations that move elements or sum them: linear, so a tangent goes through the same operation. At a use, a
parameter repeated over the batch has one instance for each example."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.graph import Node

from fastrw.graph.saved import signed
from fastrw.nodes.base import NodeType, Part, Products, Use, by_calls
from fastrw.nodes.instances import Instances, by_example, summed
from fastrw.nodes.owned import Owned


def _on(reads: str, formula, part=by_calls) -> NodeType:
    """An operation of one argument: formula(s, t)."""
    return NodeType(reads, part, lambda s, ts, backend: {0: formula(s, ts[0])})


def of_parameter(node: Node) -> bool | None:
    """Is the output of this node treated as the parameter itself: transposed (True), or in another dtype (False)? None:
    it is derived from the parameter."""
    if node.name() == "TBackward0":
        return True
    if node.name() != "ToCopyBackward0":
        return None
    child, k = node.next_functions[0]
    if child is None or any(m.dtype.is_complex for m in (node._input_metadata[0], child._input_metadata[k])):
        return None
    return False


def _cast(s, t: Tensor) -> Tensor:
    t = t.real if t.is_complex() and not s.output.dtype.is_complex else t
    return t.to(s.output.device, s.output.dtype)


def _reduced(reduce):
    """A sum or a mean: over `dim`, or over everything."""

    def formula(s, t: Tensor) -> Tensor:
        dims = [signed(d) for d in s.dim or ()]
        return reduce(t, dims, s.keepdim) if dims else reduce(t).expand(s.output.shape)

    return formula


def _max_pool(s, t: Tensor) -> Tensor:
    """The tangent of the input at the position of each maximum."""
    return t.flatten(-2).gather(-1, s.result1.flatten(-2)).view(s.result1.shape)


def _average_pool(s, t: Tensor) -> Tensor:
    return torch.nn.functional.avg_pool2d(
        t, s.kernel_size, s.stride, s.padding, s.ceil_mode, s.count_include_pad, s.divisor_override
    )


def _expand(s, use: Use, g: Tensor, products: Products) -> Part | None:
    return summed(g, s.shape(0), 0, use.owned[0])


def _repeat(s, use: Use, g: Tensor, products: Products) -> Part | None:
    """A parameter repeated as a whole for each example (InstanceNorm): its repetitions are instances."""
    owned, shape = use.owned[0], s.shape(0)
    shape = (*[1] * (g.ndim - len(shape)), *shape)
    d = owned.dim
    if d is None or not owned.each or owned.each % max(shape[d], 1):
        return None
    split = [size for whole, own in zip(g.shape, shape, strict=True) for size in (whole // max(own, 1), own)]
    over = [2 * e for e in range(g.ndim) if e != d]
    G = g.reshape(split).movedim(2 * d, 0)  # [repetitions along d, ...]
    over = [e + 1 if e < 2 * d else e for e in over]
    G = (G.sum(over) if over else G).reshape(-1, *s.shape(0))
    each = owned.each // shape[d]
    owned = Owned(owned.n, G.shape[:1], 0, owned.of[:: shape[d]], each, owned.complete)
    return Instances({0: by_example(G, owned)}, owned.n)


_VIEWS = ("ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0", "SqueezeBackward0", "SqueezeBackward1",
          "SqueezeBackward2", "UnsqueezeBackward0")  # fmt: skip
_VIEW = _on("", lambda s, t: t.reshape(s.output.shape))
_SAME = _on("", lambda s, t: t)
TYPES = {
    **dict.fromkeys(_VIEWS, _VIEW),
    **dict.fromkeys(("CloneBackward0", "AliasBackward0"), _SAME),
    "ToCopyBackward0": _on("", _cast),
    "TBackward0": _on("", lambda s, t: t.t()),
    "TransposeBackward0": _on("dim0 dim1", lambda s, t: t.transpose(signed(s.dim0), signed(s.dim1))),
    "PermuteBackward0": _on("dims", lambda s, t: t.permute([signed(d) for d in s.dims])),
    "ExpandBackward0": _on("", lambda s, t: t.expand(s.output.shape), _expand),
    "FlipBackward0": _on("dims", lambda s, t: t.flip([signed(d) for d in s.dims])),
    "RepeatBackward0": _on("repeats", lambda s, t: t.repeat(list(s.repeats)), _repeat),
    "MeanBackward0": _on("", lambda s, t: t.mean()),
    "MeanBackward1": _on("dim keepdim", _reduced(Tensor.mean)),
    "SumBackward0": _on("", lambda s, t: t.sum()),
    "SumBackward1": _on("dim keepdim", _reduced(Tensor.sum)),
    "MaxPool2DWithIndicesBackward0": _on("result1", _max_pool),
    "AvgPool2DBackward0": _on(
        "kernel_size stride padding ceil_mode count_include_pad divisor_override", _average_pool
    ),
}  # fmt: skip


def is_view(node: Node) -> bool:
    """Has its output the elements of its input, once each?"""
    return node.name() in (*_VIEWS, "CloneBackward0", "PermuteBackward0", "TBackward0", "TransposeBackward0")
