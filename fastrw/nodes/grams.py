"""Small linear uses of a joined batch as one part: one call scores all of them, and one, or few, update all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import Node

from fastrw.graph.saved import Values, together
from fastrw.nodes.base import ByInput, Joint, Part, Products, Use, in_sums_of
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
        dtype = self.whole.dtype
        for g in gs:
            if g is None or g.dtype is not dtype or g.layout is not torch.strided:
                return None
        return GramPart(self, operands, gs, products)

    def parts(self, operands: Sequence, gs: Sequence[Tensor | None], products: Products) -> list[Part | None]:
        found: list[Part | None] = []
        for use, a, g in zip(self.uses, operands, gs, strict=True):
            rule, _ = use.memo["rule"]
            saved = Values(**dict(zip(use.memo["operand"], (a.detach(), 1, 1), strict=False)))  # no factor but 1
            found.append(None if g is None else rule(saved, use, g, products))
        return found


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
        bias, like, w = self._joint.bias, self._g[0], in_sums_of(w, self._g[0])
        w = torch.cat([w, w.new_zeros(self._joint.whole.m)])  # those of weight 0 are left out
        if has_kernel(OUTER, self._products.backend, like):
            found, self.backend = served(OUTER, self._products.backend, len(bias), *self._a, *self._g, w)
        else:
            found = self._of_each_shape(w)
        return {k: t for k, t in enumerate(found) if k < len(bias) or bias[k - len(bias)]}

    def _of_each_shape(self, w: Tensor) -> list[Tensor]:
        kinds: dict[tuple, list[int]] = {}
        for i, (a, g) in enumerate(zip(self._a, self._g, strict=True)):
            kinds.setdefault((a.shape, g.shape), []).append(i)
        count, found = len(self._a), {}
        for (shape, _), alike in kinds.items():
            rows = w if len(w) == shape[0] else w.repeat_interleave(shape[0] // len(w))
            a, g = [self._a[i] for i in alike], [self._g[i] for i in alike]
            if len(alike) < ALIKE or not sums_as_wide(g[0]):
                outer = (
                    served("weighted_outer", self._products.backend, *one, rows)[0] for one in zip(a, g, strict=True)
                )
            else:
                outer = outer_of_alike(a, g, rows)
            for i, (M, b) in zip(alike, outer, strict=True):
                found[i], found[i + count] = M, b
        return [found[k] for k in range(2 * count)]


def sums_as_wide(g: Tensor) -> bool:
    """Are torch's products of g as wide as the sums that are kept of them?"""
    return g.dtype in (torch.float32, torch.float64)


def outer_of_alike(a: Sequence[Tensor], g: Sequence[Tensor], w: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """`weighted_outer` of uses of one shape. w: of each row; a row of weight 0 adds nothing, even if it is not
    finite."""
    A, G = torch.stack(list(a), 1), torch.stack(list(g), 1)
    w = w[:, None, None]
    A, G = (t.masked_fill_(w == 0, 0) for t in (A, G))
    G = G.mul_(w)
    return zip(torch.bmm(G.permute(1, 2, 0), A.transpose(0, 1)), G.sum(0), strict=True)
