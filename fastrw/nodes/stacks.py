"""Small uses of one type and shape whose gradients are instances, as one use of a batch that is as many times as long:
one launch of each kernel serves all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import Node

from fastrw.graph.saved import Saved, Values, together
from fastrw.nodes.base import ByInput, Joint, NodeType, Part, Products, Use, are_dense
from fastrw.nodes.instances import Instances, is_small, small
from fastrw.nodes.owned import Owned

LEAST = 3  # uses of a kind that are worth copying


class Kind(NamedTuple):
    """What uses share that are stacked."""

    rule: Callable[[Any, Use, Tensor, Products], Part | None]
    names: tuple[str, str]  # see `NodeType.stacked`
    below: tuple[int, ...]
    shapes: tuple[torch.Size | None, ...]  # of the inputs, where they lead to a parameter
    n: int  # training examples
    rows: tuple[tuple[torch.Size, torch.dtype], ...]  # the operands, the gradient the last of them
    values: tuple  # of what has no rows
    device: torch.device

    @property
    def elements(self) -> int:
        """Of the largest operand, or of the instances."""
        N = self.rows[0][0][0]
        instances = N * sum(self.shapes[j].numel() for j in self.below)
        return max(instances, *(shape.numel() for shape, _ in self.rows))


def kind_of(node: Node, use: Use, kind: NodeType, part: Part) -> tuple[type[Joint], Kind] | None:
    """The kind of a use that has this part, if it can be stacked."""
    owned = use.owned.get(0)
    if kind.stacked is None or type(part) is not Instances or owned is None or not owned.leading:
        return None
    found = _reading(kind.stacked)(node)
    count, gradient = len(kind.stacked[0].split()), node._input_metadata[0]
    rows, values = found[:count], found[count:]
    if any(type(t) is not Tensor or t.shape[:1] != owned.shape[:1] for t in rows):
        return None
    s = Saved(node)
    shapes = tuple([s.shape(j) if j in use.below else None for j in range(len(node.next_functions))])
    every = (*((t.shape, t.dtype) for t in rows), (torch.Size(gradient.shape), gradient.dtype))
    one = Kind(kind.part, kind.stacked, use.below, shapes, part.n, every, values, rows[0].device)
    return (Stack, one) if is_small(LEAST * one.elements, one.device) else None


def _reading(names: tuple[str, str]) -> Callable[[Node], tuple]:
    return together(*" ".join(names).split())


@dataclass(frozen=True, slots=True, eq=False)
class Stack(Joint):
    uses: tuple[Use, ...]
    kind: Kind
    all: Use  # these uses as one, of which every row belongs to a training example

    recorded = False  # the copies cost more than the calls

    @staticmethod
    def of(uses: Sequence[Use], common: Kind, backend: str) -> Iterator[Joint]:
        most = small(common.device) // common.elements
        shape, _ = common.rows[-1]
        for start in range(0, len(uses), most):
            some = tuple(uses[start : start + most])
            N = len(some) * shape[0]
            if len(some) >= LEAST:
                of = torch.arange(N, device=common.device)
                yield Stack(
                    some, common, Use(-1, common.below, {0: Owned(N, torch.Size((N, *shape[1:])), 0, of, 1, True)})
                )

    def sent(self) -> Iterator[tuple[int, int, int, bool]]:
        width = len(self.kind.below)
        for u in range(len(self.uses)):
            for at, j in enumerate(self.kind.below):
                yield u * width + at, u, j, False

    def read(self, nodes: Sequence[Node]) -> list[tuple[Tensor, ...]] | None:
        kind, found = self.kind, []
        wanted, device, read = kind.rows[:-1], kind.device, _reading(kind.names)
        for use in self.uses:
            got = read(nodes[use.node])
            operands = got[: len(wanted)]
            if got[len(wanted) :] != kind.values:
                return None
            for t, (shape, dtype) in zip(operands, wanted, strict=True):
                if type(t) is not Tensor or t.shape != shape or t.dtype is not dtype or t.device != device:
                    return None
            found.append(operands)
        return found

    def part(self, operands: Sequence, gs: Sequence[Tensor | None], products: Products) -> Part | None:
        if not are_dense(gs, self.kind.rows[-1][1]):
            return None
        rows = [torch.cat(some) for some in zip(*operands, strict=True)]
        found = self.single(self.all, rows, torch.cat(gs), products)
        if type(found) is not Instances:
            return None
        G = {j: t.unflatten(0, (len(self.uses), -1)).transpose(0, 1) for j, t in found.G.items()}
        return Stacked(G, self.kind.n, found.backend)

    def single(self, use: Use, operand: Sequence[Tensor], g: Tensor, products: Products) -> Part | None:
        kind = self.kind
        named = dict(zip(" ".join(kind.names).split(), (*operand, *kind.values), strict=True))
        return kind.rule(Values(None, kind.shapes, **named), use, g, products)


class Stacked(Instances):
    """G: input -> [n + k, uses, ...]; what is sent to it is keyed by `Stack.sent`."""

    def __init__(self, G: ByInput, n: int, backend: str):
        super().__init__(G, n)
        self.backend = backend

    def apart(self, found: ByInput) -> ByInput:
        width = len(found)
        return {u * width + at: t for at, all in enumerate(found.values()) for u, t in enumerate(all.unbind())}
