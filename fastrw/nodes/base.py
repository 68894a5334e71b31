"""What a node leaves behind at a use: its validation gradient, its scores, its weighted gradient. All by input of the
operation: {input: tensor}."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import Node

from fastrw.nodes.owned import Owned
from fastrw.ops import backends

ByInput = dict[int, Tensor]


@dataclass(frozen=True, slots=True)
class Products:
    """How a part computes: which backend, and the dtype of the score products (None: that of the rows)."""

    backend: str = "auto"
    score_dtype: torch.dtype | None = None

    def narrow(self, *tensors: Tensor | None) -> list[Tensor | None]:
        """What enters a score product."""
        if self.score_dtype is None:
            return list(tensors)
        return [None if t is None else t.to(self.score_dtype) for t in tensors]


@dataclass(slots=True, eq=False)
class Use:
    """A place where the graph is cut: node, and `below`, the inputs of its operation that lead to a leaf and whose
    gradients are not owned. owned: output -> owners of its gradient. memo: what a rule found out of these once."""

    node: int
    below: tuple[int, ...]
    owned: dict[int, Owned]
    memo: dict = field(default_factory=dict)


class Part:
    """One use, made where its gradient G appears.

    `alone` is the score of a use that shares no parameter with another: fused forms take V in the same pass, or form
    none. Uses that share one are scored by `validation`, summed over all of them, then `score`. Where `masks`, an
    example of weight 0 adds nothing to `update`, whatever it holds.
    """

    masks = True
    form = "project"
    backend = "torch"  # who computed the last product

    def why(self) -> str | tuple:
        """Why this form: a text, or a template and what fills it."""
        return ""

    def _op(self, name: str, products: Products, *args):
        """One of fastrw.ops, by the backend that serves it."""
        chosen = backends.choose(name, products.backend, *args)
        self.backend = chosen.name
        return chosen.run(*args)

    def alone(self) -> Tensor | None:
        """[n] along the V of the validation's own elements of G."""
        return self.score(self.validation())

    def validation(self) -> ByInput:
        """What the validation's elements of G send to each input."""
        raise NotImplementedError

    def score(self, V: ByInput) -> Tensor | None:
        """[n]: <G_i, tangent along V>; None where there is none."""
        raise NotImplementedError

    def update(self, w: Tensor) -> ByInput:
        """What sum_i w_i G_i sends to each input, w [n]."""
        raise NotImplementedError


class Instances(Part):
    """A use whose per-example gradients are small: they are kept, and nothing else. G: input -> ([n, ...], their sum
    over the validation [...])."""

    form = "instance"

    def why(self) -> str:
        return "the gradient of one example is small, and kept"

    def __init__(self, G: dict[int, tuple[Tensor, Tensor | None]]):
        self._G = G

    def validation(self) -> ByInput:
        return {j: v for j, (_, v) in self._G.items() if v is not None}

    def score(self, V: ByInput) -> Tensor | None:
        dots = []
        for j, (G, _) in self._G.items():
            if j in V:
                dtype = torch.promote_types(wide(G).dtype, wide(V[j]).dtype)
                dots.append(flat(G.to(dtype)) @ V[j].reshape(-1).to(dtype))
        return total(*dots)

    def update(self, w: Tensor) -> ByInput:
        return {j: masked_sum(G, w) for j, (G, _) in self._G.items()}


def by_example(x: Tensor, owned: Owned) -> tuple[Tensor, Tensor | None]:
    """Sums of x [L, ...], laid out as `owned` along its first dimension: ([n, ...], the validation's or None)."""
    n, each = owned.n, owned.each
    if each:
        mine = x[: n * each]
        rest = x[n * each :]
        mine = mine if each == 1 else mine.reshape(n, each, *x.shape[1:]).sum(1)
        return mine, rest.sum(0) if len(rest) else None
    into = x.new_zeros(n + 2, *x.shape[1:])
    into.index_add_(0, torch.where(owned.of < 0, n + 1, owned.of), x)
    return into[:n], into[n]


def masked_sum(G: Tensor, w: Tensor) -> Tensor:
    """sum_i w_i G_i; an example of weight 0 adds nothing, whatever it holds."""
    w = w.to(G.dtype)
    return (w @ torch.where((w == 0)[:, None], 0, flat(G))).view(G.shape[1:])


def flat(G: Tensor) -> Tensor:
    """One row an example."""
    return G.reshape(len(G), G.shape[1:].numel())


def wide(t: Tensor) -> Tensor:
    """Scores are summed in float64 for float64, else in float32."""
    return t if t.dtype == torch.float64 else t.float()


def in_sums_of(w: Tensor, g: Tensor) -> Tensor:
    """The weights in the dtype that sums of g are kept in."""
    dtype = torch.float64 if g.dtype == torch.float64 else torch.float32
    return w if w.dtype == dtype else w.to(dtype)


def total(*parts: Tensor | None) -> Tensor | None:
    """The sum of the parts that are there."""
    found = None
    for part in parts:
        if part is not None:
            found = part if found is None else found + part
    return found


class NodeType(NamedTuple):
    """What is known of a type of node.

    part(node, use, g, products): its Part at a use with gradient g of output 0 alone; None where it does not serve.
    tangent(node, ts, backend): the tangents of its operation's outputs, {output: tangent}, for those of the inputs
    {input: tangent}; None where it does not serve. read_by: type of the only node that sends to this one -> a rule that
    serves it better, rule(node, ts, reader, backend). What is missing is `generic`'s."""

    part: Callable[[Node, Use, Tensor, Products], Part | None] | None = None
    tangent: Callable[[Node, dict[int, Tensor], str], dict[int, Tensor] | None] | None = None
    read_by: dict[str, Callable] | None = None
    waits: bool = False  # it takes tangents that wait: see `waiting`
