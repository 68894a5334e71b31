"""Whose is each element of each gradient? Measured on the graph at hand, to the last bit.

One backward of sum_k c f_k, then one of sum_k c 2^(d_k + 1) f_k with d_k a digit of k: an element that becomes 2^(d+1)
times what it was has that digit in its owner; any other mixes examples. Powers of two are exact in every precision, so
there is no tolerance. No factor is 1, so what a clamping hook lets through unchanged has no owner; c is large, so that
the hook clamps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from fastrw.graph.walk import Edge, Graph
from fastrw.nodes.owned import NOBODY, Owned

MIXED = None

# dtype -> (log2 c, digits a pass): all that its exponents have room for, beside gradients themselves
_ROOM = {torch.float16: (3, 4), torch.bfloat16: (16, 64), torch.float32: (16, 64), torch.float64: (40, 256)}


def measure(graph: Graph, outputs: Sequence[Tensor], n: int, inner: Sequence[int]):
    """(nodes whose gradients mix examples, or lie below one; edges whose gradient is 0 everywhere; whether all was
    finite; edge of all others -> Owned; edge -> gradient of sum_k c f_k). Edges that no gradient reaches are in none.

    outputs: the losses [n], and perhaps the validation loss, 0-d, which is owner n. inner: nodes, each after all that
    send to it.
    """
    edges = [(i, k) for i in inner for k in range(len(graph.nodes[i]._input_metadata))]
    kinds = {m.dtype for i in inner for m in graph.nodes[i]._input_metadata} | {t.dtype for t in outputs}
    start, base = next((room for dtype, room in _ROOM.items() if dtype in kinds), _ROOM[torch.float32])
    owners = [torch.arange(n, device=outputs[0].device), *(torch.full((), n, device=t.device) for t in outputs[1:])]

    def gradients(exponents: list[Tensor]) -> list[Tensor | None]:
        wanted = [GradientEdge(graph.nodes[i], k) for i, k in edges]
        seeds = [torch.exp2(e.double()).to(t.dtype) for e, t in zip(exponents, outputs, strict=True)]
        found = torch.autograd.grad(outputs, wanted, seeds, retain_graph=True, allow_unused=True)
        return [g.to_dense() if g is not None and g.layout != torch.strided else g for g in found]

    ones = gradients([torch.full_like(o, start) for o in owners])
    passes, place = [], 1
    while place <= max(n + len(outputs) - 2, 0) or place == 1:
        digits = [o // place % base for o in owners]
        passes.append((gradients([start + 1 + d for d in digits]), place))
        place *= base
    finder = _Finder(n, len(outputs) > 1, base, outputs[0].device)
    senders: dict[Edge, set[int]] = {}
    for i in inner:
        for node, k in graph.next[i]:
            if node is not None:
                senders.setdefault((graph.index[node], k), set()).add(i)
    found: dict[Edge, Owned | None] = {}
    mixed: set[int] = set()
    asleep: set[Edge] = set()
    sound = True  # were owners missed for no other reason than that examples mix?
    sole: dict[int, int | None] = {}  # node -> whose all its gradients are, where they are one's
    for at, (edge, g) in enumerate(zip(edges, ones, strict=True)):
        if g is None:
            continue
        above = senders.get(edge, ())
        whose = {sole.get(q) for q in above}
        if len(whose) == 1 and (one := whose.pop()) is not None:  # made of gradients of that one alone
            owned = finder.all_of(g, one)
        elif not mixed.isdisjoint(above):  # below one that mixes nothing is asked for
            owned = MIXED
        else:
            owned = finder.owners(g, [(h[at], place) for h, place in passes])
        unknown = owned is not MIXED and g.numel() and bool((owned.of == NOBODY).all())
        if unknown and not bool(g.any()):  # all 0, and no one knows of later
            asleep.add(edge)
        elif owned is MIXED or unknown:
            mixed.add(edge[0])
            sound = sound and bool(g.isfinite().all())
        if owned is MIXED or unknown:
            sole[edge[0]] = None
            continue
        found[edge] = owned
        one = int(owned.of[0]) if g.numel() and owned.complete and bool((owned.of == owned.of[0]).all()) else None
        sole[edge[0]] = one if sole.get(edge[0], one) == one else None
    found = {edge: owned for edge, owned in found.items() if edge[0] not in mixed}
    return mixed, asleep, sound, found, {edge: g for edge, g in zip(edges, ones, strict=True) if g is not None}


class _Finder:
    """Tries what served for an earlier gradient first: most lie alike."""

    def __init__(self, n: int, validation: bool, base: int, device: torch.device):
        self.n, self.base = n, base
        self._count = n + validation
        self._known: dict[int, list[tuple[Tensor, int]]] = {}  # length -> (owner by position, each)
        self._slots = {0}  # how many validation entries there are to n training entries
        self._merged: set[int] = set()
        self._remember(torch.arange(n, device=device), 1)

    def owners(self, g: Tensor, passes: list[tuple[Tensor, int]]) -> Owned | None:
        g = g.detach()
        if g.numel() == 0:
            return self._owned(g, 0 if g.ndim else None, torch.zeros(len(g) if g.ndim else 1, dtype=torch.long), 0)
        live = int(torch.count_nonzero(g))
        if live * self._count > 1.5 * g.numel():  # too many for two layouts to agree on all of them
            for dim, length in enumerate(g.shape):
                for of, each in self._known.get(length, ()):
                    if self._agrees(g, passes, dim, of):
                        return self._owned(g, dim, of, each)
        return self._by_element(g, passes)

    def _agrees(self, g: Tensor, passes, dim: int, of: Tensor) -> bool:
        shape = [-1 if d == dim else 1 for d in range(g.ndim)]
        return all(_same(h, g, self._factor(of, place, g).view(shape)) for h, place in passes)

    def _factor(self, of: Tensor, place: int, g: Tensor) -> Tensor:
        return torch.exp2((of // place % self.base + 1).double()).to(g.real.dtype if g.is_complex() else g.dtype)

    def _by_element(self, g: Tensor, passes) -> Owned | None:
        """From the owner of every single element."""
        size = g.abs() if g.is_complex() else g
        live = (size != 0) & size.isfinite()
        table = torch.zeros(g.shape, dtype=torch.long, device=g.device)
        for h, place in passes:
            ratio = ((h.abs() if h.is_complex() else h) / size).abs().double().log2()
            digit = torch.where(live, ratio.nan_to_num(-1, -1, -1).round() - 1, 0)
            if bool(((digit < 0) | (digit >= self.base)).any()):
                return MIXED
            digit = digit.long()
            if not _same(h, g, torch.exp2((digit + 1).double()).to(size.dtype)):
                return MIXED
            table += digit * place
        if bool((table >= self._count).any()):
            return MIXED
        table = torch.where(live, table, NOBODY)
        known = table[live].unique()
        if len(known) == 1:
            if bool(live.all()):
                return self.all_of(g, int(known))
            return Owned(self.n, g.shape, None, table.flatten(), 0, complete=False)
        fits = []
        for dim in range(g.ndim):
            others = [d for d in range(g.ndim) if d != dim]
            high = table.amax(others) if others else table
            low = torch.where(live, table, self._count).amin(others) if others else torch.where(live, table, high)
            if bool(((high == low) | (high == NOBODY)).all()):
                fits.append((dim, high))
        whole = [(dim, filled) for dim, of in fits if (filled := self._filled(of)) is not None]
        if len(whole) > 1:  # too sparse to tell; an earlier layout is the likeliest, but no more than that
            dim, (of, each) = whole[0]
            return Owned(self.n, g.shape, dim, of, each, complete=False)
        if whole:
            dim, (of, each) = whole[0]
            self._remember(of, each)
            return self._owned(g, dim, of, each)
        if fits:
            return self._owned(g, *fits[0], 0)
        return self._owned(g, None, table.flatten(), 0)

    def all_of(self, g: Tensor, owner: int) -> Owned:
        """All of g is one's."""
        of = torch.full((len(g) if g.ndim else 1,), owner, device=g.device)
        return Owned(self.n, g.shape, 0 if g.ndim else None, of, self._each(of), complete=True)

    def _owned(self, g: Tensor, dim: int | None, of: Tensor, each: int) -> Owned:
        if dim == 0 and each:
            size = len(of)
            for length in g.shape[1:-1]:
                size *= length
                self._merged.add(size)
        return Owned(self.n, g.shape, dim, of.to(g.device), each, complete=not bool((of == NOBODY).any()))

    def _filled(self, of: Tensor) -> tuple[Tensor, int] | None:
        """`of` without gaps, and `each`: where one layout alone, and no other, agrees with all that is known."""
        known = of != NOBODY
        if bool(known.all()):
            return of, self._each(of)
        if len(of[known].unique()) < 2:  # one, or none, tells of no order
            return None
        position = torch.arange(len(of), device=of.device)
        fits: dict[tuple, Tensor] = {}
        for slots in sorted(self._slots):
            if len(of) % (self.n + slots):
                continue
            per = len(of) // (self.n + slots)
            for inner in (d for d in range(1, per + 1) if per % d == 0):
                one = (position // inner % (self.n + slots)).clamp(max=self.n)
                if bool((one == of)[known].all()):
                    fits[tuple(one.tolist())] = one
        if self._count > self.n:  # the validation has what the training examples leave
            for per in range(1, (len(of) - 1) // self.n + 1):
                one = (position // per).clamp(max=self.n)
                if bool((one == of)[known].all()):
                    fits[tuple(one.tolist())] = one
        if len(fits) > 1 and len(of) in self._merged:  # examples and positions, seen apart before, are one dimension here
            fits = {key: one for key, one in fits.items() if self._each(one)}
        if len(fits) != 1:
            return None
        (one,) = fits.values()
        return one, self._each(one)

    def _each(self, of: Tensor) -> int:
        """See Owned."""
        count = int((of < self.n).sum())
        if count == 0 or count % self.n:
            return 0
        each = count // self.n
        order = torch.arange(self.n, device=of.device).repeat_interleave(each)
        return each if torch.equal(of[:count], order) else 0

    def _remember(self, of: Tensor, each: int) -> None:
        known = self._known.setdefault(len(of), [])
        if not any(torch.equal(of, one) for one, _ in known):
            known.append((of, each))
        if each and (len(of) - self.n * each) % each == 0:
            self._slots.add(len(of) // each - self.n)


def _same(h: Tensor, g: Tensor, factor: Tensor) -> bool:
    """h == g * factor, bit for bit; but for what is not finite, and what is so small that scaling rounds it."""
    product = g * factor
    if torch.equal(h, product):
        return True
    if h.is_complex():
        h, product, g = (torch.view_as_real(t.resolve_conj()) for t in (h, product, g))
        factor = factor.unsqueeze(-1)
    limit = torch.finfo(g.dtype).tiny * factor
    return bool((((h - product).abs() <= limit) | ~g.isfinite() | ~h.isfinite()).all())
