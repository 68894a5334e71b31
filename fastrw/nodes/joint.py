"""Small linear uses of a joined batch as one part. Their inputs are read before the backward, their gradients are
results of it: nothing runs for a single use while gradients arrive, and one call scores all of them, one updates all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import Node

from fastrw.graph.saved import together
from fastrw.nodes.base import ByInput, Part, Products, Use, Whole, in_sums_of
from fastrw.nodes.linear import OUTER, rebuilt
from fastrw.ops.call import has_kernel, served

SCORES = "joint_gram_dot"


@dataclass(frozen=True, slots=True, eq=False)
class Joint:
    """What follows from a graph for every one like it. The rows of each use are those of n training examples, then of
    m validation examples, as many an example."""

    uses: tuple[Use, ...]
    reads: tuple[Callable[[Node], tuple], ...]  # the input of a use, then the factors of its product
    bias: tuple[float, ...]
    whole: Whole  # of each, but for its bias

    def inputs(self, nodes: Sequence[Node]) -> list[Tensor] | None:
        """Those of each use; None where one is of another kind than when this was learned."""
        found, dtype, device = [], self.whole.dtype, self.whole.device
        for use, read in zip(self.uses, self.reads, strict=True):
            a, *factors = read(nodes[use.node])
            if type(a) is not Tensor or a.dtype is not dtype or a.device != device:
                return None
            if any(factor != 1 for factor in factors):
                return None
            found.append(a)
        return found

    def part(self, a: list[Tensor], g: Sequence[Tensor | None], products: Products) -> JointPart | None:
        """Of all uses; None where a gradient is of another kind."""
        dtype = self.whole.dtype
        for one in g:
            if one is None or one.dtype is not dtype or one.layout is not torch.strided:
                return None
        return JointPart(self, a, g, products)

    def parts(self, a: list[Tensor], g: Sequence[Tensor | None], products: Products) -> list[Part | None]:
        """One of each use; None where no gradient reaches it."""
        each = zip(self.uses, a, g, strict=True)
        return [None if y is None else rebuilt(use, x.detach(), y, products) for use, x, y in each]


class JointPart(Part):
    """a, g: the rows of each use. What is sent to the matrix of use i is keyed by i, what to its bias by i + uses, both
    in the layout of the ops. V is that of its own validation rows."""

    form = "gram"

    def __init__(self, joint: Joint, a: list[Tensor], g: Sequence[Tensor], products: Products):
        self._joint, self._a, self._g, self._products = joint, a, g, products

    def alone(self, kept: bool = True) -> Tensor | None:
        whole = self._joint.whole
        args = (whole.n, whole.m, self._joint.bias, *self._a, *self._g)
        s, self.backend = served(SCORES, self._products.backend, *args)
        return s

    def update(self, w: Tensor) -> ByInput:
        w = in_sums_of(w, self._g[0])
        w = torch.cat([w, w.new_zeros(self._joint.whole.m)])  # those of weight 0 are left out
        found, self.backend = served(OUTER, self._products.backend, len(self._a), *self._a, *self._g, w)
        bias = self._joint.bias
        return {k: t for k, t in enumerate(found) if k < len(bias) or bias[k - len(bias)]}


def joint(found: Sequence[tuple[Use, Whole]], backend: str) -> Joint | None:
    """Those that are alike the first, if there are kernels for them."""
    alike = [(use, one) for use, one in found if one._replace(bias=0) == found[0][1]._replace(bias=0)]
    if len(alike) < 2:
        return None
    first = alike[0][1]
    like = torch.empty(0, 0, dtype=first.dtype, device=first.device)
    if not all(has_kernel(op, backend, like) for op in (SCORES, OUTER)):
        return None
    reads = tuple([together(*use.memo["operand"]) for use, _ in alike])
    return Joint(tuple([use for use, _ in alike]), reads, tuple([one.bias for _, one in alike]), first)
