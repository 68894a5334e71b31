"""Node type -> what is known of it."""

from __future__ import annotations

from torch import Tensor
from torch.autograd.graph import Node

from fastrw.graph.saved import Saved
from fastrw.nodes import attention, conv, elementwise, embedding, linear, norm, views
from fastrw.nodes.base import NodeType, Part, Products, Use, by_calls, by_transposition
from fastrw.nodes.generic import Generic, transposed
from fastrw.nodes.lazy import formed
from fastrw.nodes.linear import gram_scores

__all__ = ["GENERIC", "TYPES", "gram_scores", "part", "tangent"]

TYPES: dict[str, NodeType] = {
    **views.TYPES, **elementwise.TYPES, **linear.TYPES, **conv.TYPES, **norm.TYPES, **embedding.TYPES,
    **attention.TYPES,
}  # fmt: skip
GENERIC = NodeType("", by_calls, by_transposition)


def tangent(node: Node, ts: dict, backend: str, reader: Node | None = None, first: bool = True) -> dict[int, Tensor]:
    """{input: tangent} -> {output: tangent} of a node's operation. reader: the only node that sends to it, if there is
    one. first: is the first output the only one needed? (Formulas compute no other.)"""
    kind = TYPES.get(node.name(), GENERIC) if first else GENERIC
    found, s = None, Saved(node)
    if not kind.lazy:
        ts = {j: formed(t) for j, t in ts.items()}
    if reader is not None and (rule := kind.fused.get(reader.name())) is not None:
        found = rule(s, ts, Saved(reader), backend)
    if found is None:
        found = kind.jvp(s, ts, backend)
    return transposed(node, {j: formed(t) for j, t in ts.items()}) if found is None else found


def part(node: Node, use: Use, gs: dict[int, Tensor], products: Products) -> Part:
    """The part of a use. gs: output -> its gradient."""
    rule = use.memo.get("rule")
    if rule is None:
        rule = use.memo["rule"] = TYPES.get(node.name(), GENERIC).part
    real = len(gs) == 1 and 0 in gs and not gs[0].is_complex()  # formulas are those of real numbers
    found = rule(Saved(node), use, gs[0], products) if real else None
    if found is not None:
        return found
    return Generic(node, use, gs, lambda V: tangent(node, V, products.backend, None, {*gs} <= {0}))
