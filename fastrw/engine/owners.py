"""Whose is each element of each gradient? Measured on the graph at hand, to the last bit.

One backward of sum_k c f_k, then one of sum_k c 2^(d_k + 1) f_k with d_k a digit of k: an element that becomes 2^(d+1)
times what it was has that digit in its owner; any other mixes examples. Powers of two are exact in every precision, so
there is no tolerance. No factor is 1, so what a clamping hook lets through unchanged has no owner; c is large, so that
the hook clamps."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from fastrw.graph.walk import Edge, Graph
from fastrw.nodes.owned import NOBODY, Owned

MIXED = None

# dtype -> (log2 c, digits a pass): all that its exponents have room for, beside gradients themselves
_ROOM = {torch.float16: (3, 4), torch.bfloat16: (16, 64), torch.float32: (16, 64), torch.float64: (40, 256)}


def measure(graph: Graph, outputs: Sequence[Tensor], n: int, nodes: Sequence[int]):
    """(nodes whose gradients mix examples, or lie below one; edges whose gradient is 0 everywhere; whether all was
    finite; edge of all others -> Owned; edge -> gradient of sum_k c f_k). Edges that no gradient reaches are in none.

    outputs: the losses [n], and perhaps the validation loss, 0-d, which is owner n. nodes: to be looked at, each after
    all that send to it. Holds one gradient of each edge; what it is compared with is let go at once.
    """
    kinds = {m.dtype for i in nodes for m in graph.nodes[i]._input_metadata} | {t.dtype for t in outputs}
    start, base = next((room for dtype, room in _ROOM.items() if dtype in kinds), _ROOM[torch.float32])
    owners = [torch.arange(n, device=outputs[0].device), *(torch.full((), n, device=t.device) for t in outputs[1:])]
    senders = _senders(graph, nodes)
    ones: dict[Edge, Tensor] = {}
    finder = _Finder(n, len(outputs) > 1, base, outputs[0].device, ones, senders)
    with repeatable(outputs[0].device):
        seeds = [torch.full_like(o, start) for o in owners]
        _pass(graph, outputs, seeds, nodes, senders, ones.__setitem__)
        place = 1
        while place <= max(n + len(outputs) - 2, 0) or place == 1:
            seeds = [start + 1 + o // place % base for o in owners]
            _pass(graph, outputs, seeds, nodes, senders, partial(finder.look, place))
            place *= base
    found: dict[Edge, Owned | None] = {}
    mixed: set[int] = set()
    asleep: set[Edge] = set()
    sound = True  # were owners missed for no other reason than that examples mix?
    sole: dict[int, int | None] = {}  # node -> whose all its gradients are, where they are one's
    for edge in ((i, k) for i in nodes for k in range(len(graph.nodes[i]._input_metadata))):
        if (g := ones.get(edge)) is None:
            continue
        above = senders.get(edge, ())
        whose = {sole.get(q) for q in above}
        if len(whose) == 1 and (one := whose.pop()) is not None:  # made of gradients of that one alone
            owned = finder.all_of(g, one)
        elif not mixed.isdisjoint(above):  # below one that mixes nothing is asked for
            owned = MIXED
        else:
            owned = finder.owners(edge)
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
    return mixed, asleep, sound, found, ones


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """On a GPU, deterministic algorithms where torch has them: sums by atomics differ from one backward to the next,
    and what differs has no owner (a higher cut then serves, as exactly)."""
    if device.type != "cuda":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*determinis")
            torch.use_deterministic_algorithms(True, warn_only=True)
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def _senders(graph: Graph, nodes: Sequence[int]) -> dict[Edge, set[int]]:
    """Edge -> the nodes that send to it."""
    found: dict[Edge, set[int]] = {}
    for i in nodes:
        for node, k in graph.next[i]:
            if node is not None:
                found.setdefault((graph.index[node], k), set()).add(i)
    return found


def _pass(
    graph: Graph, outputs: Sequence[Tensor], exponents: list[Tensor], nodes: Sequence[int], senders, take
) -> None:
    """One backward of sum_k 2^exponent_k f_k: take(edge, gradient) as each comes."""
    looked = set(nodes)
    sending = {i for (child, _), above in senders.items() if child in looked for i in above}
    last = [(i, k) for i in nodes if i not in sending for k in range(len(graph.nodes[i]._input_metadata))]

    def hook(i: int, grads: tuple) -> None:
        for k, g in enumerate(grads):
            if g is not None:
                take((i, k), _dense(g))

    handles = [graph.nodes[i].register_prehook(partial(hook, i)) for i in nodes if i in sending]
    seeds = [torch.exp2(e.double()).to(t.dtype) for e, t in zip(exponents, outputs, strict=True)]
    try:
        edges = [GradientEdge(graph.nodes[i], k) for i, k in last]
        found = torch.autograd.grad(outputs, edges, seeds, retain_graph=True, allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
    for edge, g in zip(last, found, strict=True):
        if g is not None:
            take(edge, _dense(g))


def _dense(g: Tensor) -> Tensor:
    g = g.detach()
    return g if g.layout == torch.strided else g.to_dense()


class _Finder:
    """Digit by digit, the layouts of owners that agree with a gradient. What served for an earlier one is tried first:
    most lie alike."""

    def __init__(self, n: int, validation: bool, base: int, device: torch.device, ones: dict, senders: dict):
        self.n, self.base = n, base
        self._count = n + validation
        self._ones, self._senders = ones, senders
        self._digits: dict[tuple[int, int], list[Tensor]] = {}  # (place, length) -> digits by position
        self._found: dict[Edge, list] = {}  # a digit each: {dimension: digits by position}, or digits by element
        self._dense: dict[Edge, bool] = {}
        self._mixed: set[int] = set()
        self._slots = {0}  # how many validation entries there are to n training entries
        self._merged: set[int] = set()
        place = 1
        while place <= self._count:
            self._know(place, torch.arange(n, device=device) // place % base)
            place *= base

    def look(self, place: int, edge: Edge, h: Tensor) -> None:
        """One digit of an edge's owners, by its gradient h of scaled losses."""
        g = self._ones.get(edge)
        if g is None or edge[0] in self._mixed:
            return
        if not self._mixed.isdisjoint(self._senders.get(edge, ())):
            self._mixed.add(edge[0])
            return
        if edge not in self._dense:
            live = int(torch.count_nonzero(g if bool(g.sum().isfinite()) else g.nan_to_num(0, 0, 0)))
            # two layouts cannot agree on all of so many
            self._dense[edge] = live * self._count > 1.5 * g.numel()
        if (found := self._digit(place, g, h, self._dense[edge])) is MIXED:
            self._mixed.add(edge[0])
        else:
            self._found.setdefault(edge, []).append((place, found))

    def _digit(self, place: int, g: Tensor, h: Tensor, dense: bool) -> dict[int, Tensor] | Tensor | None:
        if g.numel() == 0:
            return {dim: torch.zeros(length, dtype=torch.long) for dim, length in enumerate(g.shape)}
        if dense:
            for dim, length in enumerate(g.shape):
                for digits in self._digits.get((place, length), ()):
                    shape = [-1 if d == dim else 1 for d in range(g.ndim)]
                    if _same(h, g, _power(digits, g).view(shape)):
                        return {dim: digits}
        size = g.abs() if g.is_complex() else g
        alive = (size != 0) & size.isfinite()
        ratio = ((h.abs() if h.is_complex() else h) / size).abs().double().log2()
        digit = torch.where(alive, ratio.nan_to_num(-1, -1, -1).round() - 1, 0).long()
        if bool(((digit < 0) | (digit >= self.base)).any()) or not _same(h, g, _power(digit, g)):
            return MIXED
        digit = torch.where(alive, digit, NOBODY)
        fits = {}
        for dim in range(g.ndim):
            others = [d for d in range(g.ndim) if d != dim]
            high = digit.amax(others) if others else digit
            low = torch.where(alive, digit, self.base).amin(others) if others else digit
            if bool(((high == low) | (high == NOBODY)).all()):
                fits[dim] = high
        if len(fits) == 1:
            (digits,) = fits.values()
            if bool((digits != NOBODY).all()):
                self._know(place, digits)
        return fits or digit.to(torch.int16)

    def _know(self, place: int, digits: Tensor) -> None:
        known = self._digits.setdefault((place, len(digits)), [])
        if not any(torch.equal(digits, one) for one in known):
            known.append(digits)

    def owners(self, edge: Edge) -> Owned | None:
        g, passes = self._ones[edge], self._found.get(edge)
        if edge[0] in self._mixed or passes is None:
            return MIXED
        if g.numel() == 0:
            return self._owned(g, 0 if g.ndim else None, torch.zeros(len(g) if g.ndim else 1, dtype=torch.long), 0)
        dims = [dim for dim in range(g.ndim) if all(isinstance(found, dict) and dim in found for _, found in passes)]
        fits = [(dim, _number([(place, found[dim]) for place, found in passes])) for dim in dims]
        if not fits:
            table = _number([(place, self._by_element(g, found)) for place, found in passes])
            if bool((table >= self._count).any()):
                return MIXED
            known = table[table != NOBODY].unique()
            if len(known) == 1 and bool((table != NOBODY).all()):
                return self.all_of(g, int(known))
            return self._owned(g, None, table.flatten(), 0)
        if any(bool((of >= self._count).any()) for _, of in fits):
            return MIXED
        one = torch.cat([of for _, of in fits]).unique()
        if len(one[one != NOBODY]) == 1:  # all that is known is one's
            whole = all(bool((of != NOBODY).all()) for _, of in fits) and bool(g.all())
            return self.all_of(g, int(one.max())) if whole else Owned(self.n, g.shape, *fits[0], 0, complete=False)
        filled = [(dim, found) for dim, of in fits if (found := self._filled(of)) is not None]
        if len(filled) > 1:  # too sparse to tell
            dim, (of, each) = filled[0]
            return Owned(self.n, g.shape, dim, of, each, complete=False)
        if filled:
            dim, (of, each) = filled[0]
            if each and (len(of) - self.n * each) % each == 0:
                self._slots.add(len(of) // each - self.n)
            return self._owned(g, dim, of, each)
        return self._owned(g, *fits[0], 0)

    def _by_element(self, g: Tensor, found: dict[int, Tensor] | Tensor) -> Tensor:
        if isinstance(found, Tensor):
            return found.long()
        dim, digits = next(iter(found.items()))
        table = digits.view([-1 if d == dim else 1 for d in range(g.ndim)]).expand(g.shape)
        return torch.where((g != 0) & g.isfinite(), table, NOBODY)

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
        if (
            len(fits) > 1 and len(of) in self._merged
        ):  # examples and positions, seen apart before, are one dimension here
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


def _number(digits: list[tuple[int, Tensor]]) -> Tensor:
    """The owners that have these digits, by place; NOBODY where one is missing."""
    total = sum(place * d for place, d in digits)
    missing = torch.stack([d == NOBODY for _, d in digits]).any(0)
    return torch.where(missing, NOBODY, total)


def _power(digits: Tensor, g: Tensor) -> Tensor:
    """2^(d + 1), in the real dtype of g."""
    return torch.exp2((digits + 1).double()).to(g.real.dtype if g.is_complex() else g.dtype)


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
