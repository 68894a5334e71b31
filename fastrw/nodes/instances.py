"""Uses whose per-example gradients are small, and kept. Those of one layout are the columns of one matrix, which one
product scores and one updates."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fastrw.nodes.base import ByInput, Group, Part, total, wide
from fastrw.nodes.owned import Owned

SMALL, SMALL_ON_GPU = 1 << 15, 1 << 20  # elements of a use, at most, that are copied into a matrix with others


class Instances(Part):
    """G: input -> [n + k, ...], the gradients of n examples, then k rows whose sum is that of the validation."""

    form = "instance"

    def __init__(self, G: ByInput, n: int):
        self.G, self.n = G, n
        self._joins: tuple | bool | None = False  # what all in its group share; False: not asked yet
        self.V: ByInput | None = None  # the direction along which it waits to be scored; None: that of its own rows

    def why(self) -> str:
        return "per-example gradients are small, and kept"

    def joins(self) -> tuple | None:
        if self._joins is False:
            first, *others = self.G.values()
            device = first.device
            alike = is_small(first.numel(), device) and all(G.dtype == first.dtype for G in others)
            self._joins = (Columns, device, first.dtype, len(first)) if alike else None
        return self._joins and (*self._joins, self.waiting, self.V is None)

    def alone(self, kept: bool = True) -> Tensor | None:
        shared = self.joins() if kept else None
        self.waiting = shared is not None and shared[3] > self.n
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
        return self.apart({j: masked_sum(flat(G), w).view(G.shape[1:]) for j, G in self.instances().items()})

    def apart(self, found: ByInput) -> ByInput:
        """What is sent to each input, from the sums of each G."""
        return found

    def instances(self) -> ByInput:
        return {j: G[: self.n] for j, G in self.G.items()}


class Columns(Group):
    """Uses in one matrix [n + k, elements], an element of a parameter a column. Gradients are copied as they lie in
    memory, those of one shape and layout side by side: they are laid out anew when they have been summed."""

    def __init__(self, parts: list[Instances], n: int, backend: str):
        super().__init__(parts, n, backend)
        self._kinds: dict[tuple, list[tuple[Instances, int]]] = {}  # (shape, strides) -> the uses, and their inputs
        for part in parts:
            for j, G in part.G.items():
                self._kinds.setdefault((G.shape[1:], G.stride()[1:]), []).append((part, j))
        self._orders = [_order(*kind) for kind in self._kinds]
        every = zip(self._kinds.values(), self._orders, strict=True)
        rows = [_ordered(part.G[j], order) for uses, order in every for part, j in uses]
        self._rows = torch.cat([flat(G) for G in rows], 1)

    def score(self) -> Tensor | None:
        first = self._parts[0]
        if not first.waiting:
            return None
        if first.V is None:
            V = self._rows[self._n :].sum(0)
        else:
            every = zip(self._kinds.values(), self._orders, strict=True)
            V = torch.cat([one for uses, order in every for one in _directions(uses, order)])
        return wide(self._rows[: self._n]) @ wide(V)

    def updates(self, part: Part, w: Tensor) -> Iterator[tuple[Part, ByInput]]:
        sums = masked_sum(self._rows[: self._n], w)
        found: dict[Part, ByInput] = {one: {} for one in self._parts}
        sizes = [len(uses) * shape.numel() for (shape, _), uses in self._kinds.items()]
        of_kinds = zip(self._kinds.items(), self._orders, sums.split(sizes), strict=True)
        for ((shape, _), uses), order, some in of_kinds:
            if order is None:
                some = some.view(len(uses), *shape)
            else:
                back = sorted(range(len(order)), key=order.__getitem__)
                some = some.view(len(uses), *(shape[d] for d in order)).permute(0, *(d + 1 for d in back)).contiguous()
            for (one, j), t in zip(uses, some.unbind(), strict=True):
                found[one][j] = t
        yield from ((one, one.apart(sums)) for one, sums in found.items())


def _order(shape: torch.Size, strides: tuple[int, ...]) -> tuple[int, ...] | None:
    """The dimensions, outermost in memory first; None where they are in order."""
    order = tuple(sorted(range(len(shape)), key=lambda d: strides[d] if shape[d] > 1 else 0, reverse=True))
    placed = [d for d in order if shape[d] > 1]
    return None if placed == sorted(placed) else order


def _ordered(G: Tensor, order: tuple[int, ...] | None) -> Tensor:
    """[n, ...] with its dimensions in this order."""
    return G if order is None else G.permute(0, *(d + 1 for d in order))


def _directions(uses: list[tuple[Instances, int]], order: tuple[int, ...] | None) -> list[Tensor]:
    """V of uses of one kind, in the order of their columns."""
    given = [part.V[j] for part, j in uses]
    return [V.reshape(-1) for V in given] if order is None else [_ordered(torch.stack(given), order).reshape(-1)]


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


def is_small(elements: int, device: torch.device) -> bool:
    """Does a copy cost less than a call?"""
    return elements <= small(device)


def small(device: torch.device) -> int:
    return SMALL_ON_GPU if device.type == "cuda" else SMALL


def masked_sum(G: Tensor, w: Tensor) -> Tensor:
    """sum_i w_i G_i, of rows; an example of weight 0 adds nothing, even if its gradient is not finite."""
    return w.to(G.dtype) @ G.masked_fill((w == 0)[:, None], 0)


def flat(G: Tensor) -> Tensor:
    """[n, ...] as [n, p]: one row per example."""
    return G.reshape(len(G), G.shape[1:].numel())
