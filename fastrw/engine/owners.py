"""Which example owns each element of each gradient? Measured on the graph at hand, to the last bit.

One backward of sum_k c f_k, then one of sum_k c 2^(d_k + 1) f_k with d_k a digit of k: an element that becomes 2^(d+1)
times what it was has that digit in its owner; any other mixes examples. Powers of two are exact in every precision, so
there is no tolerance. No factor is 1, so that elements which a clamping hook leaves unchanged get no owner; c is large,
so that the hook clamps."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from fastrw.errors import Unrepeatable, ours, reason
from fastrw.graph import hooks
from fastrw.graph.saved import is_custom
from fastrw.graph.sending import copied
from fastrw.graph.walk import Edge, Graph
from fastrw.nodes.owned import NOBODY, Owned, along

MIXED = None

# dtype -> (log2 c, digits per pass): what its exponents have room for, beside the gradients themselves
_ROOM = {torch.float16: (3, 4), torch.bfloat16: (16, 64), torch.float32: (16, 64), torch.float64: (40, 256)}


class Measured(NamedTuple):
    """Edges that no gradient reaches, and those that mixed nodes alone send nothing to, are in none."""

    mixed: set[int]  # nodes whose gradients mix examples, or that lie below one
    zeros: set[Edge]  # edges whose gradient is 0 everywhere, or not sent
    reliable: bool  # was every gradient without owners finite?
    owned: dict[Edge, Owned]  # all other edges
    gradients: dict[Edge, Tensor]  # edge -> gradient of sum_k c f_k
    overwriting: tuple[int, ...]  # nodes that have to be given copies: some write to what they are given


def measure(graph: Graph, outputs: Sequence[Tensor], nodes: Sequence[int], more: Sequence[int] = ()) -> Measured:
    """outputs: the losses [n], and perhaps the validation loss, 0-d, which is owner n. nodes: each after all that send
    to it. more: nodes whose gradients are wanted, but not their owners. Holds one gradient of each edge; those that it
    is compared with are freed at once."""
    n, device = len(outputs[0]), outputs[0].device
    dtypes = {m.dtype.to_real() for i in nodes for m in graph.nodes[i]._input_metadata} | {t.dtype for t in outputs}
    start, base = next((room for dtype, room in _ROOM.items() if dtype in dtypes), _ROOM[torch.float32])
    owners = [torch.arange(n, device=device), *(torch.full((), n, device=t.device) for t in outputs[1:])]
    gradients: dict[Edge, Tensor] = {}
    finder = _Finder(graph, n, len(outputs) > 1, base, device, gradients)
    with repeatable(device):
        first = _powers([torch.full_like(o, start) for o in owners], outputs)
        overwriting: tuple[int, ...] = ()
        versions: dict[Edge, int] = {}

        def take(edge: Edge, g: Tensor) -> None:
            gradients[edge], versions[edge] = g, g._version

        backward(graph, outputs, first, [*nodes, *more], take)
        if any(g._version != versions[edge] for edge, g in gradients.items()):
            overwriting = tuple(i for i in nodes if is_custom(graph.nodes[i]))
            with repeated():
                backward(graph, outputs, first, [*nodes, *more], take, overwriting)
        place = 1
        while place <= max(n + len(outputs) - 2, 1):
            powers = _powers([start + 1 + o // place % base for o in owners], outputs)
            with repeated():
                backward(graph, outputs, powers, nodes, partial(finder.add_digit, place), overwriting)
            place *= base
    owned: dict[Edge, Owned] = {}
    mixed: set[int] = set()
    zeros: set[Edge] = set()
    reliable = True
    only: dict[int, int | None] = {}  # node -> the one owner of all its gradients, if there is one
    for edge in ((i, k) for i in nodes for k in range(len(graph.nodes[i]._input_metadata))):
        i, above = edge[0], graph.senders.get(edge, ())
        if (g := gradients.get(edge)) is None:
            if above and mixed.isdisjoint(above):  # a custom function sends nothing to this input
                zeros.add(edge)
            continue
        one = {only.get(q) for q in above}
        if len(one) == 1 and (owner := one.pop()) is not None:  # computed from gradients of that owner alone
            found = finder.all_of(g, owner)
        elif not mixed.isdisjoint(above):
            found = MIXED
        else:
            found = finder.owners(edge)
        unknown = found is not MIXED and g.numel() and bool((found.of == NOBODY).all())
        if found is MIXED or unknown:
            only[i] = None
            if unknown and not bool(g.any()):
                zeros.add(edge)
            else:
                mixed.add(i)
                reliable = reliable and bool(g.isfinite().all())
            continue
        owned[edge] = found
        one = int(found.of[0]) if g.numel() and found.complete and bool((found.of == found.of[0]).all()) else None
        only[i] = one if only.get(i, one) == one else None
    owned = {edge: found for edge, found in owned.items() if edge[0] not in mixed}
    return Measured(mixed, zeros, reliable, owned, gradients, overwriting)


@contextmanager
def repeated() -> Iterator[None]:
    """For a backward that is not the first of its graph: raises Unrepeatable where it raises an error."""
    try:
        yield
    except Exception as error:
        if ours(error):
            raise
        raise Unrepeatable(
            f"fastrw.engine: a graph must allow more than one backward, got {reason(error)} in the second (a custom "
            "function must not free what it saved; selective checkpointing allows only one)"
        ) from error


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """On a GPU, deterministic algorithms where torch has them: sums by atomics differ from one backward to the next,
    and elements that differ have no owner (a higher cut is then used, equally exact)."""
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


def _powers(exponents: list[Tensor], outputs: Sequence[Tensor]) -> list[Tensor]:
    return [torch.exp2(e.double()).to(t.dtype) for e, t in zip(exponents, outputs, strict=True)]


def backward(graph: Graph, outputs: Sequence[Tensor], seeds: Sequence[Tensor], nodes: Sequence[int],
             take: Callable[[Edge, Tensor], None], overwriting: Sequence[int] = ()) -> None:  # fmt: skip
    """One backward of the outputs times `seeds`: take(edge, gradient) as each arrives at one of `nodes`. overwriting:
    nodes that are given copies."""
    measured = set(nodes)
    sending = {i for i in nodes if any(edge is not None and edge[0] in measured for edge in graph.below[i])}
    last = [(i, k) for i in nodes if i not in sending for k in range(len(graph.nodes[i]._input_metadata))]

    def take_all(edges: Sequence[Edge], grads: Sequence[Tensor | None]) -> None:
        for edge, g in zip(edges, grads, strict=True):
            if g is not None:
                g = g.detach()
                take(edge, g if g.layout == torch.strided else g.to_dense())

    def hook(i: int, grads: tuple) -> None:
        take_all([(i, k) for k in range(len(grads))], grads)

    edges = [GradientEdge(graph.nodes[i], k) for i, k in last]
    watched = [(graph.nodes[i], partial(hook, i)) for i in nodes if i in sending]
    with hooks.before([*watched, *((graph.nodes[i], copied) for i in overwriting)]):
        found = torch.autograd.grad(outputs, edges, seeds, retain_graph=True, allow_unused=True)
    take_all(last, found)


class _Finder:
    """Digit by digit, the layouts of owners that agree with a gradient. Layouts found for earlier gradients are tried
    first: most are alike. gradients: those of sum_k c f_k, as they arrive."""

    def __init__(self, graph: Graph, n: int, validation: bool, base: int, device: torch.device,
                 gradients: dict[Edge, Tensor]):  # fmt: skip
        self._n, self._base, self._count = n, base, n + validation
        self._gradients, self._senders = gradients, graph.senders
        self._digits: dict[tuple[int, int], list[Tensor]] = {}  # (place, length) -> digits by position
        self._found: dict[Edge, list] = {}  # per digit: {dimension: digits by position}, or digits by element
        self._dense: dict[Edge, bool] = {}
        self._mixed: set[int] = set()
        self._slots = {0}  # how many validation entries there are to n training entries
        # size -> (dimension, shape) -> owners, where examples and positions, separate there, become one dimension
        self._merged: dict[int, dict[tuple[int, torch.Size], Tensor]] = {}
        place = 1
        while place <= self._count:
            self._add_layout(place, torch.arange(n, device=device) // place % base)
            place *= base

    def add_digit(self, place: int, edge: Edge, h: Tensor) -> None:
        """One digit of an edge's owners, from its gradient h of scaled losses."""
        g = self._gradients.get(edge)
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
                    if _same(h, g, along(_power(digits, g), dim, g.ndim)):
                        return {dim: digits}
        size = g.abs() if g.is_complex() else g
        alive = (size != 0) & size.isfinite()
        ratio = ((h.abs() if h.is_complex() else h) / size).abs().double().log2()
        digit = torch.where(alive, ratio.nan_to_num(-1, -1, -1).round() - 1, 0).long()
        if bool(((digit < 0) | (digit >= self._base)).any()) or not _same(h, g, _power(digit, g)):
            return MIXED
        digit = torch.where(alive, digit, NOBODY)
        fits = {}
        for dim in range(g.ndim):
            others = [d for d in range(g.ndim) if d != dim]
            high = digit.amax(others) if others else digit
            low = torch.where(alive, digit, self._base).amin(others) if others else digit
            if bool(((high == low) | (high == NOBODY)).all()):
                fits[dim] = high
        if len(fits) == 1:
            (digits,) = fits.values()
            if bool((digits != NOBODY).all()):
                self._add_layout(place, digits)
        return fits or digit.to(torch.int16)

    def _add_layout(self, place: int, digits: Tensor) -> None:
        known = self._digits.setdefault((place, len(digits)), [])
        if not any(torch.equal(digits, one) for one in known):
            known.append(digits)

    def owners(self, edge: Edge) -> Owned | None:
        g, passes = self._gradients[edge], self._found.get(edge)
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
        known = torch.cat([of for _, of in fits]).unique()
        if len(known[known != NOBODY]) == 1:  # all known elements have the same owner
            whole = all(bool((of != NOBODY).all()) for _, of in fits) and bool(g.all())
            return self.all_of(g, int(known.max())) if whole else Owned(self._n, g.shape, *fits[0], 0, complete=False)
        filled = [(dim, found) for dim, of in fits if (found := self._filled(of)) is not None]
        if not filled:
            return self._owned(g, *fits[0], 0)
        dim, (of, each) = filled[0]
        if len(filled) > 1:  # too sparse to decide
            return Owned(self._n, g.shape, dim, of, each, complete=False)
        if each and len(of) % each == 0:
            self._slots.add(len(of) // each - self._n)
        return self._owned(g, dim, of, each)

    def _by_element(self, g: Tensor, found: dict[int, Tensor] | Tensor) -> Tensor:
        if isinstance(found, Tensor):
            return found.long()
        dim, digits = next(iter(found.items()))
        table = along(digits, dim, g.ndim).expand(g.shape)
        return torch.where((g != 0) & g.isfinite(), table, NOBODY)

    def all_of(self, g: Tensor, owner: int) -> Owned:
        """All of g belongs to one owner."""
        of = torch.full((len(g) if g.ndim else 1,), owner, device=g.device)
        return Owned(self._n, g.shape, 0 if g.ndim else None, of, self._each(of), complete=True)

    def _owned(self, g: Tensor, dim: int | None, of: Tensor, each: int) -> Owned:
        if dim is not None and bool((of != NOBODY).all()):
            for k in range(max(dim + 1, 2), g.ndim):
                merged = self._merged.setdefault(math.prod(g.shape[:k]), {})
                if (dim, g.shape[:k]) not in merged:
                    merged[dim, g.shape[:k]] = along(of, dim, k).expand(g.shape[:k]).flatten()
        return Owned(self._n, g.shape, dim, of.to(g.device), each, complete=not bool((of == NOBODY).any()))

    def _filled(self, of: Tensor) -> tuple[Tensor, int] | None:
        """`of` without gaps, and `each`: where exactly one layout agrees with all that is known."""
        known = of != NOBODY
        if bool(known.all()):
            return of, self._each(of)
        if len(of[known].unique()) < 2:  # the order is unknown
            return None
        fits = {tuple(one.tolist()): one for one in self._layouts(of) if bool((one == of)[known].all())}
        if len(fits) > 1 and (merged := self._merged.get(len(of))):
            fits = {key: one for key, one in fits.items() if any(torch.equal(one, m) for m in merged.values())}
        if len(fits) != 1:
            return None
        (one,) = fits.values()
        return one, self._each(one)

    def _layouts(self, like: Tensor) -> Iterator[Tensor]:
        """The owners [L] in every regular order."""
        position, n = torch.arange(len(like), device=like.device), self._n
        for slots in sorted(self._slots):
            if len(like) % (n + slots) == 0:
                per = len(like) // (n + slots)
                for inner in (d for d in range(1, per + 1) if per % d == 0):
                    yield (position // inner % (n + slots)).clamp(max=n)
        if self._count > n:  # the validation loss has what the training examples leave
            for per in range(1, (len(like) - 1) // n + 1):
                yield (position // per).clamp(max=n)

    def _each(self, of: Tensor) -> int:
        """See Owned."""
        count = int((of < self._n).sum())
        if count == 0 or count % self._n:
            return 0
        each = count // self._n
        order = torch.arange(self._n, device=of.device).repeat_interleave(each)
        return each if torch.equal(of[:count], order) else 0


def _number(digits: list[tuple[int, Tensor]]) -> Tensor:
    """The owners with these (place, digit) pairs; NOBODY where a digit is missing."""
    total = sum(place * d for place, d in digits)
    missing = torch.stack([d == NOBODY for _, d in digits]).any(0)
    return torch.where(missing, NOBODY, total)


def _power(digits: Tensor, g: Tensor) -> Tensor:
    """2^(d + 1), in the real dtype of g."""
    return torch.exp2((digits + 1).double()).to(g.real.dtype if g.is_complex() else g.dtype)


def _same(h: Tensor, g: Tensor, factor: Tensor) -> bool:
    """h == g * factor, bit for bit; except what is not finite, and what is so small that scaling rounds it."""
    product = g * factor
    if torch.equal(h, product):
        return True
    if h.is_complex():
        h, product, g = (torch.view_as_real(t.resolve_conj()) for t in (h, product, g))
        factor = factor.unsqueeze(-1)
    limit = torch.finfo(g.dtype).tiny * factor
    return bool((((h - product).abs() <= limit) | ~g.isfinite() | ~h.isfinite()).all())
