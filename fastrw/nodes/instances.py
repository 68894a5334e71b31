"""Uses whose per-example gradients are small, and kept. Those of one layout are the columns of one matrix, which one
product scores and one updates."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fastrw.nodes.base import ByInput, Group, Part, total, wide
from fastrw.nodes.owned import Owned

SMALL, SMALL_ON_GPU = 1 << 15, 1 << 18  # elements of a use, at most, that are copied into a matrix with others


class Instances(Part):
    """G: input -> [n + k, ...], the gradients of n examples, then k rows whose sum is that of the validation."""

    form = "instance"

    def __init__(self, G: ByInput, n: int):
        self.G, self.n = G, n
        self.V: ByInput | None = None  # the direction along which it waits to be scored; None: that of its own rows

    def why(self) -> str:
        return "per-example gradients are small, and kept"

    def joins(self) -> tuple | None:
        (first, *others) = self.G.values()
        if not is_small(first) or any(G.dtype != first.dtype for G in others):
            return None
        return Columns, first.device, first.dtype, len(first), self.waiting, self.V is None

    def alone(self, kept: bool = True) -> Tensor | None:
        self.waiting = kept and len(next(iter(self.G.values()))) > self.n and self.joins() is not None
        return None if self.waiting else self.score(self.validation())

    def along(self, V: ByInput, kept: bool = True) -> Tensor | None:
        if not kept or self.joins() is None or any(j not in V or V[j].dtype != G.dtype for j, G in self.G.items()):
            return self.score(V)
        self.waiting, self.V = True, V
        return None

    def validation(self) -> ByInput:
        return {j: G[self.n :].sum(0) for j, G in self.G.items() if len(G) > self.n}

    def score(self, V: ByInput) -> Tensor | None:
        dots = []
        for j, G in self.instances().items():
            if j in V:
                dtype = torch.promote_types(wide(G).dtype, wide(V[j]).dtype)
                dots.append(flat(G.to(dtype)) @ V[j].reshape(-1).to(dtype))
        return total(*dots)

    def update(self, w: Tensor) -> ByInput:
        return {j: masked_sum(flat(G), w).view(G.shape[1:]) for j, G in self.instances().items()}

    def instances(self) -> ByInput:
        return {j: G[: self.n] for j, G in self.G.items()}


class Columns(Group):
    """Uses in one matrix [n + k, elements], an element of a parameter a column."""

    def __init__(self, parts: list[Instances], n: int, backend: str):
        super().__init__(parts, n, backend)
        every = [G for part in parts for G in part.G.values()]
        self._shapes = [G.shape[1:] for G in every]
        self._rows = torch.cat([flat(G) for G in every], 1)

    def score(self) -> Tensor | None:
        first = self._parts[0]
        if not first.waiting:
            return None
        if first.V is None:
            V = self._rows[self._n :].sum(0)
        else:
            V = torch.cat([part.V[j].reshape(-1) for part in self._parts for j in part.G])
        return wide(self._rows[: self._n]) @ wide(V)

    def updates(self, part: Part, w: Tensor) -> Iterator[tuple[Part, ByInput]]:
        sums = masked_sum(self._rows[: self._n], w).split([shape.numel() for shape in self._shapes])
        found = (t.view(shape) for t, shape in zip(sums, self._shapes, strict=True))
        for one in self._parts:
            yield one, dict(zip(one.G, found, strict=False))


def summed(G: Tensor, shape: torch.Size, j: int, owned: Owned) -> Part | None:
    """The use of an input of this shape that was broadcast to the output: G, summed to the shape, as instances; None
    where the input has separate elements for each example."""
    if owned.dim is None or G.shape != owned.shape:
        return None
    full = [1] * (G.ndim - len(shape)) + list(shape)
    if full[owned.dim] != 1:
        return None
    over = [d for d in range(G.ndim) if full[d] == 1 and d != owned.dim and G.shape[d] != 1]
    G = G.sum(over, keepdim=True) if over else G
    return Instances({j: by_example(G.movedim(owned.dim, 0).reshape(G.shape[owned.dim], *shape), owned)}, owned.n)


def by_example(x: Tensor, owned: Owned) -> Tensor:
    """x [L, ...] as [n + k, ...]: sums of its rows by training examples, then rows whose sum is the validation's."""
    n, each = owned.n, owned.each
    if each == 1:
        return x
    if each:
        mine, rest = x[: n * each].reshape(n, each, *x.shape[1:]).sum(1), x[n * each :]
        return torch.cat([mine, rest.sum(0, keepdim=True)]) if len(rest) else mine
    into = x.new_zeros(n + 2, *x.shape[1:])
    into.index_add_(0, owned.of.masked_fill(owned.of < 0, n + 1), x)
    return into[: n + 1]


def is_small(G: Tensor) -> bool:
    """Does a copy cost less than a call?"""
    return G.numel() <= (SMALL_ON_GPU if G.is_cuda else SMALL)


def masked_sum(G: Tensor, w: Tensor) -> Tensor:
    """sum_i w_i G_i, of rows; an example of weight 0 adds nothing, even if its gradient is not finite."""
    return w.to(G.dtype) @ G.masked_fill((w == 0)[:, None], 0)


def flat(G: Tensor) -> Tensor:
    """[n, ...] as [n, p]: one row per example."""
    return G.reshape(len(G), G.shape[1:].numel())
