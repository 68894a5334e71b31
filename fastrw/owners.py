"""Which example does each element of a use's output belong to? Measured on the model as it runs, never guessed.

The backward of sum_i c_i f_i, divided element by element by the backward of sum_i f_i, is c of the element's owner.
With powers of two for c the division is exact in every floating point type, and an element that two examples share
shows. What is found is a pattern, owner(e) = (e // inner) mod n over the flattened output, which serves every n.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastrw.calls import function_name
from fastrw.errors import CoupledExamples, Refused
from fastrw.tape import Tape

SAMPLE = 5  # examples of the sub-batch: prime, so that few other dimensions divide by it
BASE = 8  # labels 2^0 ... 2^7 in one backward
TOLERANCE = 64  # in units of eps of the largest gradient: nothing, or what unordered sums of a GPU leave


@dataclass(frozen=True, slots=True)
class Pattern:
    """The examples run along dimension `dim`, which holds [outer, n, per]: `per` is fixed, or (`whole`) outer is 1 and
    `per` whatever is left. A dimension that holds the examples alone is `whole` with `per` 1, and stays alone."""

    dim: int
    per: int
    whole: bool

    def inner(self, shape: torch.Size, n: int) -> int | None:
        """The number of neighbouring elements with one owner, or None where the pattern does not fit."""
        if self.dim >= len(shape) or shape[self.dim] % n:
            return None
        groups = shape[self.dim] // n
        if (self.whole and self.per == 1 and groups != 1) or (not self.whole and groups % self.per):
            return None
        return math.prod(shape[self.dim + 1 :]) * (groups if self.whole else self.per)


Record = Callable[[Any], tuple[Tape, Tensor]]  # a batch -> its tape and losses


def measure(
    tape: Tape, n: int, record: Record, sub_batch: Callable, batch: Any, strict: bool = False
) -> list[list[Pattern | None]]:
    """The pattern of every output of every use of `tape`, whose batch had n examples; None where no gradient flows yet.

    `sub_batch(size, which)` cuts the batch. `strict`: examples must not meet in values either, without a graph or
    before the first use, so that one batch may be made of two. Raises CoupledExamples where an element has two owners,
    where owners follow no pattern, or where data may move examples from one batch to the next.
    """
    small, losses = _smaller(tape, n, record, sub_batch)
    _check_structure(tape, n, small, len(losses), strict)
    sample, losses = (small, losses) if len(losses) >= SAMPLE else record(batch)
    size = len(losses)
    gradients, owners = _owners(sample, losses)
    patterns = []
    for use, full in zip(sample.uses, tape.uses, strict=True):
        found = []
        for shape, full_shape in zip(use.shapes, full.shapes, strict=True):
            found.append(_pattern(use, shape, full_shape, gradients.pop(0), owners.pop(0), size, n))
        patterns.append(found)
    return patterns


def _smaller(tape: Tape, n: int, record: Record, sub_batch: Callable) -> tuple[Tape, Tensor]:
    """The tape and losses of the first examples alone, in which the model runs as it does in the batch."""
    for cut in (SAMPLE, n - 1) if n > SAMPLE + 1 else (n - 1,):
        for which in (0, 1):
            try:
                small, losses = record(sub_batch(cut, which))
            except Exception:  # whatever a model raises on a batch that was cut in the wrong place
                continue
            alike = small.signature() == tape.signature() and len(small.sizes) == len(tape.sizes)
            if len(losses) == cut and alike and len(small.moves) == len(tape.moves):
                return small, losses
    raise CoupledExamples(
        "fastrw.owners: the first examples alone must run as the whole batch, to tell that examples stay apart, got "
        "a batch that cannot be cut or a forward that depends on its size"
    )


def _check_structure(tape: Tape, n: int, small: Tape, cut: int, strict: bool) -> None:
    """Rows may be moved or mixed only along dimensions that do not grow with n; outputs grow like n or not at all."""
    moves, sizes = (0, 0) if strict else tape.first_use
    for (name, size), (_, small_size) in zip(tape.moves[moves:], small.moves[moves:], strict=True):
        if size != small_size:
            raise CoupledExamples(
                f"fastrw.owners: examples must stay apart, got {name} along a dimension that holds them"
            )
    for (name, size, graph), (_, small_size, _) in zip(tape.sizes[sizes:], small.sizes[sizes:], strict=True):
        if (graph or strict) and size * cut != small_size * n:
            raise CoupledExamples(
                f"fastrw.owners: examples must stay apart, got {name} of {small_size} values at {cut}, {size} at {n}"
            )


def _owners(tape: Tape, losses: Tensor) -> tuple[list[Tensor | None], list[Tensor | None]]:
    """Per output of every use: the gradient, and the owner of each element (-1 where its gradient is 0)."""
    n = len(losses)
    flat = [(use, edge) for use in tape.uses for edge in use.edges]
    edges = [edge for _, edge in flat if edge is not None]

    def gradients(labels: Tensor) -> list[Tensor | None]:
        found = iter(torch.autograd.grad(losses, edges, labels, retain_graph=True, allow_unused=True))
        return [None if edge is None else next(found) for _, edge in flat]

    ones = gradients(torch.ones_like(losses))
    owners: list[Tensor | None] = [
        None if g is None else torch.zeros(g.shape, dtype=torch.long, device=g.device) for g in ones
    ]
    place, index = 1, torch.arange(n, device=losses.device)
    while place < n or place == 1:
        labelled = gradients(torch.pow(2.0, (index // place % BASE)).to(losses.dtype))
        for (use, _), g, c, owner in zip(flat, ones, labelled, owners, strict=True):
            if g is None:
                continue
            digit = torch.where(g == 0, 0, (c / torch.where(g == 0, 1, g)).abs().log2().round().clamp(0, BASE - 1))
            wrong = (c - g * torch.pow(2.0, digit)).abs() > TOLERANCE * torch.finfo(g.dtype).eps * c.abs().amax()
            if wrong.any():
                raise CoupledExamples(
                    f"fastrw.owners: examples must stay apart, got {function_name(use.function)} of {use.name!r} with "
                    f"{wrong.float().mean().item():.0%} of its elements shared (BatchNorm in training, in-batch losses)"
                )
            owner += digit.long() * place
        place *= BASE
    for g, owner in zip(ones, owners, strict=True):
        if g is not None:
            owner.masked_fill_(g == 0, -1)
    return ones, owners


def _pattern(use, shape, full_shape, g, owner, size: int, n: int) -> Pattern | None:
    if g is None or not bool((owner >= 0).any()):
        return None
    flat = owner.flatten()
    known = flat >= 0
    element = torch.arange(flat.numel(), device=flat.device)
    fits = []
    for dim, length in enumerate(shape):
        for per in (d for d in range(1, length // size + 1) if length % size == 0 and (length // size) % d == 0):
            inner = math.prod(shape[dim + 1 :]) * per
            if bool((~known | (element // inner % size == flat)).all()):
                fits.append(Pattern(dim, per, whole=per == length // size))
    what = f"{function_name(use.function)} of {use.name!r}"
    if not fits:
        raise CoupledExamples(
            f"fastrw.owners: rows must be laid out by example, got {what} with rows in no fixed order"
        )
    if len(fits) > 1:
        raise Refused(f"fastrw.owners: rows must have one owner, got {what} with gradients too sparse to tell")
    grown = [d for d, (a, b) in enumerate(zip(shape, full_shape, strict=True)) if a != b]
    if size != n and grown != [fits[0].dim]:
        raise CoupledExamples(
            f"fastrw.owners: rows must grow with the examples, got {what} {tuple(shape)} and {tuple(full_shape)}"
        )
    return fits[0]
