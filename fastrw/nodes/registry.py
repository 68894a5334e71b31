"""Node type -> what is known of it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from torch import Tensor
from torch.autograd.graph import Node

from fastrw.graph.saved import Saved, reading
from fastrw.nodes import attention, conv, elementwise, embedding, linear, norm, stacks, views
from fastrw.nodes.base import ByInput, Group, Joint, NodeType, Part, Products, Use, by_calls, by_transposition
from fastrw.nodes.generic import Generic, transposed
from fastrw.nodes.lazy import formed

TYPES: dict[str, NodeType] = {
    **views.TYPES, **elementwise.TYPES, **linear.TYPES, **conv.TYPES, **norm.TYPES, **embedding.TYPES,
    **attention.TYPES,
}  # fmt: skip
GENERIC = NodeType("", by_calls, by_transposition)


def tangent(node: Node, ts: dict, backend: str, reader: Node | None = None, first: bool = True) -> dict[int, Tensor]:
    """{input: tangent} -> {output: tangent} of a node's operation. reader: the only node that sends to it, if there is
    one. first: is the first output the only one needed? (Formulas compute no other.)"""
    kind = TYPES.get(node.name(), GENERIC) if first else GENERIC
    found, s = None, reading(kind.reads)(node)
    if not kind.lazy:
        ts = {j: formed(t) for j, t in ts.items()}
    if reader is not None and (rule := kind.fused.get(reader.name())) is not None:
        found = rule(s, ts, Saved(reader), backend)
    if found is None:
        found = kind.jvp(s, ts, backend)
    return transposed(node, {j: formed(t) for j, t in ts.items()}) if found is None else found


def part(node: Node, use: Use, gs: dict[int, Tensor], products: Products) -> Part:
    """The part of a use. gs: output -> its gradient."""
    known = use.memo.get("rule")
    if known is None:
        kind = TYPES.get(node.name(), GENERIC)
        known = use.memo["rule"] = kind.part, reading(kind.reads)
    rule, read = known
    real = len(gs) == 1 and 0 in gs and not gs[0].is_complex()  # formulas are those of real numbers
    found = rule(read(node), use, gs[0], products) if real else None
    if found is not None:
        return found
    return Generic(node, use, gs, lambda V: tangent(node, V, products.backend, None, {*gs} <= {0}))


def alike(node: Node, use: Use, part: Part) -> tuple[type[Joint], Hashable] | None:
    """See `Part.alike`, of a use that has this part."""
    return part.alike() or stacks.kind_of(node, use, TYPES.get(node.name(), GENERIC), part)


class Groups:
    """Parts, the small ones among them joined with others of their kind."""

    def __init__(self, parts: Iterable[Part], n: int, backend: str):
        joined: dict[tuple, list[Part]] = {}
        for part in parts:
            for one in part.members:
                if (shared := one.joins()) is not None:
                    joined.setdefault(shared, []).append(one)
        self._groups: list[Group] = [kind(members, n, backend) for (kind, *_), members in joined.items()]
        self._of = {one: group for group, ones in zip(self._groups, joined.values(), strict=True) for one in ones}
        self._found: dict[Part, ByInput] = {}  # updates that came with another's

    def scores(self) -> list[Tensor]:
        """[n] for each group of which parts wait."""
        return [s for group in self._groups if (s := group.score()) is not None]

    def update(self, part: Part, w: Tensor) -> ByInput:
        found: ByInput = {}
        for one in part.members:
            group, mine = self._of.pop(one, None), self._found.pop(one, None)
            if mine is None and group is not None:
                self._found.update(group.updates(one, w))
                mine = self._found.pop(one)
            mine = one.update(w) if mine is None else mine
            found = mine if one is part else found | mine
        return found
