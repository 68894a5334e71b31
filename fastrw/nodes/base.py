"""The interface of a node type, and what several types share. Gradients are keyed by input of the operation:
{input: tensor}.

A `Part` is one use of parameters, made from the gradient G that reaches its node: its operands are tensors, and each
method is a formula of them, which torch.compile and make_fx can trace."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import Node

from fastrw.nodes.owned import Owned

ByInput = dict[int, Tensor]


@dataclass(frozen=True, slots=True)
class Products:
    """How a part computes: the backend, and the dtype of the score products (None: that of the rows)."""

    backend: str = "auto"
    score_dtype: torch.dtype | None = None

    def narrow(self, *tensors: Tensor | None) -> list[Tensor | None]:
        """The operands of a score product, in its dtype."""
        if self.score_dtype is None:
            return list(tensors)
        return [None if t is None else t.to(self.score_dtype) for t in tensors]


@dataclass(slots=True, eq=False)
class Use:
    """A place where the graph is cut: a node, and `below`, the inputs of its operation that lead to a leaf and whose
    gradients have no owners. owned: output -> owners of its gradient. memo: what a node type has derived from these.
    """

    node: int
    below: tuple[int, ...]
    owned: dict[int, Owned]
    memo: dict = field(default_factory=dict)


class Part:
    """One use of parameters. Subclasses are built from tensors and numbers only.

    `alone` is the score of a use that shares no parameter with another: fused forms compute V in the same pass, or not
    at all. Uses that share one are scored by `validation`, summed over all of them, then `score`. If `masks`, an
    example of weight 0 adds nothing to `update`, even if its gradient is not finite.

    Small parts are joined in groups, of which one call computes what all need: `alone` and `along` may leave a score to
    the group (`waiting`). kept: is the part kept until then in any case?
    """

    masks = True
    calls_node = False  # does it call its node, which is impossible during a backward?
    waiting = False
    form = "project"
    backend = "torch"  # of the last product

    @property
    def members(self) -> tuple[Part, ...]:
        """What it is made of: these join groups."""
        return (self,)

    def joins(self) -> tuple | None:
        """The class of its group, and what else all in one group share; None where it joins none."""
        return None

    def alike(self) -> tuple[type[Joint], Hashable] | None:
        """The class that joins such uses, and what all have in common that it joins; None: it has its own part."""
        return None

    def why(self) -> str | tuple:
        """Why this form: a text, or a format string and its values."""
        return ""

    def costs(self) -> dict[str, float]:
        """Form -> cost, of the forms that are possible here; comparable only with one another."""
        return {self.form: 0.0}

    def alone(self, kept: bool = True) -> Tensor | None:
        """[n]: scores along the V that the validation rows of G give."""
        return self.score(self.validation())

    def along(self, V: ByInput, kept: bool = True) -> Tensor | None:
        """`score`, or None where it waits."""
        return self.score(V)

    def validation(self) -> ByInput:
        """What the validation rows of G send to each input: the term of V from this use."""
        raise NotImplementedError

    def score(self, V: ByInput) -> Tensor | None:
        """[n]: <G_i, tangent along V>; None where V reaches no input."""
        raise NotImplementedError

    def update(self, w: Tensor) -> ByInput:
        """What sum_i w_i G_i sends to each input, w [n]."""
        raise NotImplementedError

    def instances(self) -> ByInput:
        """[n, ...]: what each G_i sends to each input, the gradients of single examples."""
        raise NotImplementedError


class Joint:
    """Small uses of a joined batch that have one part in a pass. Their operands are read before the backward, and their
    gradients are results of it: nothing runs for a single use while gradients arrive. What is in it follows from a
    graph, for every one of the same structure; an operand or a gradient that is not as it was is told at every call."""

    uses: tuple[Use, ...]
    recorded = True  # is it faster too in a graph that is recorded, where no Python runs?

    @staticmethod
    def of(uses: Sequence[Use], common: Hashable, backend: str) -> Iterable[Joint]:
        """Those of uses that are `alike`, if any."""
        raise NotImplementedError

    def sent(self) -> Iterator[tuple[int, int, int, bool]]:
        """For each gradient of its part: the key, the number of its use, the input, and is it its transpose?"""
        raise NotImplementedError

    def read(self, nodes: Sequence[Node]) -> Sequence | None:
        """The operands of each use; None where one is of another kind than when this was learned."""
        raise NotImplementedError

    def part(self, operands: Sequence, gs: Sequence[Tensor | None], products: Products) -> Part | None:
        """Of all uses; None where a gradient is of another kind."""
        raise NotImplementedError

    def single(self, use: Use, operand: Any, g: Tensor, products: Products) -> Part | None:
        """Of one use, from what was read of it."""
        raise NotImplementedError

    def parts(self, operands: Sequence, gs: Sequence[Tensor | None], products: Products) -> list[Part | None]:
        """One of each use; None where no gradient reaches it."""
        every = zip(self.uses, operands, gs, strict=True)
        return [None if g is None else self.single(use, one, g, products) for use, one, g in every]


class Group:
    """Parts of one kind, of which one call computes the scores, and one the updates."""

    def __init__(self, parts: list, n: int, backend: str):
        self._parts, self._n, self._backend = parts, n, backend

    def score(self) -> Tensor | None:
        """[n]: the sum over the parts that wait."""
        return None

    def updates(self, part: Part, w: Tensor) -> Iterable[tuple[Part, ByInput]]:
        """The update of this part, and of those whose updates come with it: each is asked for once."""
        raise NotImplementedError


def by_calls(s, use: Use, g: Tensor, products: Products) -> Part | None:
    """No formula: the use is computed by calling its node, see `generic`."""
    return None


def by_transposition(s, ts: ByInput, backend: str) -> ByInput | None:
    """No formula: the tangent is the transpose of what the node sends, see `generic`."""
    return None


class NodeType(NamedTuple):
    """What is known of a type of node, as formulas of what it saved: `s.mat1`, and of `s.output` (shape, dtype,
    device) and `s.shape(j)`, the shape of input j.

    reads: the names that formulas read.
    part(s, use, g, products): the Part of a use with gradient g of output 0 alone; None where no formula applies.
    jvp(s, ts, backend): {input: tangent} -> {output: tangent} of the operation; None where no formula applies.
    stacked: names, of those that `part` reads, of what has a row for each example, and of what has none.
    fused: type of the only node that reads the output -> a joint `jvp(s, ts, reader's s, backend)`.
    lazy: `jvp` accepts tangents that are not formed yet, see `lazy`."""

    reads: str
    part: Callable[[Any, Use, Tensor, Products], Part | None]
    jvp: Callable[[Any, dict, str], dict | None]
    fused: dict[str, Callable] = {}  # noqa: RUF012  never written to
    lazy: bool = False
    stacked: tuple[str, str] | None = None


def are_dense(gs: Sequence[Tensor | None], dtype: torch.dtype) -> bool:
    """Are these all there, strided and of this dtype?"""
    return all(g is not None and g.dtype is dtype and g.layout is torch.strided for g in gs)


def wide(t: Tensor) -> Tensor:
    """Dense, in the dtype that scores are summed in: float64 for float64, else float32."""
    t = t.to_dense() if t.is_sparse else t
    if t.is_complex():
        return t if t.dtype == torch.complex128 else t.cfloat()
    return t if t.dtype == torch.float64 else t.float()


def in_sums_of(w: Tensor, g: Tensor) -> Tensor:
    """The weights in the dtype that sums of g are kept in."""
    return w.to(torch.float64 if g.dtype == torch.float64 else torch.float32)


def total(*parts: Tensor | None) -> Tensor | None:
    """The sum of the parts that are not None."""
    found = None
    for part in parts:
        if part is not None:
            found = part if found is None else found + part
    return found


def scaled(t: Tensor, by: float) -> Tensor:
    """t * by, without a pass where by is 1."""
    return t if by == 1 else t * by
