"""What serves many linear uses at once: one call scores all of them, and one, or few, update the small ones. Those of
a joined batch have one part from the second step on (`Grams`); others have their own, and a group (`Grouped`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import Node

from fastrw.graph.saved import Values, together
from fastrw.nodes.base import ByInput, Group, Joint, Part, Products, Use, are_dense, in_sums_of, total
from fastrw.ops.call import has_kernel, served

SCORES, OUTER = "joint_gram_dot", "grouped_weighted_outer"
ALIKE = 3  # uses of one shape that are worth copying


class Whole(NamedTuple):
    """What linear uses share that are joined: rows of n training examples, then of m validation examples, as many an
    example."""

    n: int
    m: int
    dtype: torch.dtype
    device: torch.device


@dataclass(frozen=True, slots=True, eq=False)
class Grams(Joint):
    uses: tuple[Use, ...]
    reads: tuple[Callable[[Node], tuple], ...]  # the input of a use, then the factors of its product
    bias: tuple[float, ...]  # 1 for a use that has one that leads to a parameter, else 0
    whole: Whole

    @staticmethod
    def of(uses: Sequence[Use], common: Whole, backend: str) -> Iterator[Joint]:
        like = torch.empty(0, 0, dtype=common.dtype, device=common.device)
        if len(uses) > 1 and has_kernel(SCORES, backend, like):
            reads = tuple([together(*use.memo["operand"]) for use in uses])
            yield Grams(tuple(uses), reads, tuple([float(use.memo["rows"][2] is not None) for use in uses]), common)

    def sent(self) -> Iterator[tuple[int, int, int, bool]]:
        """To the matrix of use i by i, to its bias by i + uses; matrices in the layout of the ops."""
        for i, use in enumerate(self.uses):
            _, matrix, bias, _ = use.memo["rows"]
            yield i, i, matrix, True
            if bias is not None:
                yield i + len(self.uses), i, bias, False

    def read(self, nodes: Sequence[Node]) -> list[Tensor] | None:
        found, dtype, device = [], self.whole.dtype, self.whole.device
        for use, read in zip(self.uses, self.reads, strict=True):
            a, *factors = read(nodes[use.node])
            if type(a) is not Tensor or a.dtype is not dtype or a.device != device:
                return None
            if any(factor != 1 for factor in factors):
                return None
            found.append(a)
        return found

    def part(self, operands: Sequence, gs: Sequence[Tensor | None], products: Products) -> Part | None:
        return GramPart(self, operands, gs, products) if are_dense(gs, self.whole.dtype) else None

    def single(self, use: Use, operand: Tensor, g: Tensor, products: Products) -> Part | None:
        rule, _ = use.memo["rule"]
        saved = dict(zip(use.memo["operand"], (operand.detach(), 1, 1), strict=False))  # no factor but 1
        return rule(Values(**saved), use, g, products)


class GramPart(Part):
    """a, g: the rows of each use. What is sent is keyed by `Grams.sent`. V is that of its own validation rows."""

    form = "gram"

    def __init__(self, joint: Grams, a: Sequence[Tensor], g: Sequence[Tensor], products: Products):
        self._joint, self._a, self._g, self._products = joint, a, g, products

    def alone(self, kept: bool = True) -> Tensor | None:
        whole = self._joint.whole
        args = (whole.n, whole.m, self._joint.bias, *self._a, *self._g)
        s, self.backend = served(SCORES, self._products.backend, *args)
        return s

    def update(self, w: Tensor) -> ByInput:
        bias, w = self._joint.bias, in_sums_of(w, self._g[0])
        w = torch.cat([w, w.new_zeros(self._joint.whole.m)])  # those of weight 0 are left out
        found, self.backend = outer(self._a, self._g, w, self._products.backend)
        return {k: t for k, t in enumerate(found) if k < len(bias) or bias[k - len(bias)]}


class Grouped(Group):
    """Parts of single linear uses (`linear.Linear`): those in gram form are scored by one call, the small ones updated
    by `outer`."""

    def __init__(self, parts: list[Any], n: int, backend: str):
        self._waiting, g = [part for part in parts if part.waiting], parts[0]._g
        together = g.is_cuda or has_kernel(OUTER, backend, g)
        super().__init__([part for part in parts if together and part.is_updated_with_others], n, backend)
        self._weights: dict[int, Tensor] = {}  # rows of an example -> the weight of each row

    def score(self) -> Tensor | None:
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return None
        if self._backend == "triton":  # it has no grouped form
            found = []
            for part in waiting:
                s, part.backend = served("gram_dot", "triton", *part.operands())
                found.append(s.view(self._n, -1).sum(1))
            return total(*found)
        *matrices, bias = zip(*(part.operands() for part in waiting), strict=True)
        s, by = served("grouped_gram_dot", self._backend, self._n, bias, *(t for side in matrices for t in side))
        for part in waiting:
            part.backend = by
        return s

    def updates(self, part: Any, w: Tensor) -> Iterator[tuple[Part, ByInput]]:
        w = in_sums_of(w, part._g)
        if part not in self._parts:
            each = part._rows.each
            if each not in self._weights:
                self._weights[each] = part._rows.weights(w)
            (M, b), part.backend = served("weighted_outer", self._backend, part._a, part._g, self._weights[each])
            yield part, part._by_input(M, b)
            return
        count, a, g = len(self._parts), [one._a for one in self._parts], [one._g for one in self._parts]
        found, by = outer(a, g, w, self._backend)
        for one, M, b in zip(self._parts, found[:count], found[count:], strict=True):
            one.backend = by
            yield one, one._by_input(M, b)


def outer(a: Sequence[Tensor], g: Sequence[Tensor], w: Tensor, backend: str) -> tuple[Sequence[Tensor], str]:
    """`weighted_outer` of each use, all W and then all b: by one kernel or, if there is none, those of one shape by
    torch's. w: of each example; one of weight 0 adds nothing, even if it is not finite. And what served."""
    count = len(a)
    if has_kernel(OUTER, backend, g[0]):
        return served(OUTER, backend, count, *a, *g, w)
    kinds: dict[tuple, list[int]] = {}
    for i in range(count):
        kinds.setdefault((a[i].shape, g[i].shape), []).append(i)
    found, by = {}, "torch"
    for ((r, _), _), alike in kinds.items():
        rows = w if len(w) == r else w.repeat_interleave(r // len(w))
        if len(alike) >= ALIKE and g[0].dtype in (torch.float32, torch.float64):  # as wide as sums
            each = _outer_of_alike([a[i] for i in alike], [g[i] for i in alike], rows)
        else:
            each = []
            for i in alike:
                one, by = served("weighted_outer", backend, a[i], g[i], rows)
                each.append(one)
        for i, (M, b) in zip(alike, each, strict=True):
            found[i], found[i + count] = M, b
    return [found[k] for k in range(2 * count)], by


def _outer_of_alike(a: list[Tensor], g: list[Tensor], w: Tensor) -> Iterable[tuple[Tensor, Tensor]]:
    """Of uses of one shape. w: of each row."""
    A, G = torch.stack(a, 1), torch.stack(g, 1)
    w = w[:, None, None]
    A, G = (t.masked_fill_(w == 0, 0) for t in (A, G))
    G = G.mul_(w)
    return zip(torch.bmm(G.permute(1, 2, 0), A.transpose(0, 1)), G.sum(0), strict=True)
