"""What a use leaves behind for the one-pass step: its V, its scores, and the weighted gradient of its parameters."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

Gradients = dict[int, Tensor]  # id of an argument -> its gradient


@dataclass(frozen=True, slots=True)
class Owned:
    """Elements [outer, n + m, inner] of an output belong to the n training examples, then to the m of validation."""

    n: int
    m: int
    inner: int
    outer: int = 1

    def split(self, x: Tensor) -> Tensor:
        return x.reshape(self.outer, self.n + self.m, -1)

    def weigh(self, g: Tensor, w: Tensor) -> Tensor:
        """g times the weight [n + m] of its example; an example of weight 0 is masked."""
        w = w.to(g.dtype).view(1, -1, 1)
        return torch.where(w == 0, 0, self.split(g) * w).view(g.shape)

    def sums(self, x: Tensor) -> Tensor:
        """The sum over the elements of each training example: [n]."""
        return self.split(x)[:, : self.n].sum((0, 2))

    def validating(self, like: Tensor) -> Tensor:
        """Weights [n + m] that keep the validation examples alone."""
        return torch.cat([like.new_zeros(self.n), like.new_ones(self.m)])

    def training(self, w: Tensor) -> Tensor:
        """Weights [n] of the training examples as weights [n + m]."""
        return torch.cat([w, w.new_zeros(self.m)]) if self.m else w


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


class Part:
    """One use, made where its g appears, over the rows of training and validation examples.

    `alone` is the score of a use that shares no parameter with another: fused forms take V in the same pass, or form
    none. Uses that share one are scored by `validation`, summed over all of them, then `score`. `update` is the
    weighted gradient; where `masks`, an example of weight 0 adds nothing to it, whatever it holds.
    """

    masks = True
    form = "project"

    def alone(self) -> Tensor | None:
        """[n] with V from the validation rows of this use."""
        return self.score(self.validation())

    def validation(self) -> Gradients:
        """V of each parameter: the sum over the validation examples."""
        raise NotImplementedError

    def score(self, V: Gradients) -> Tensor | None:
        """[n] along these directions; None where there is none."""
        raise NotImplementedError

    def update(self, w: Tensor) -> Gradients:
        """sum_i w_i G_i of each parameter, w [n]."""
        raise NotImplementedError


class Instances(Part):
    """A use whose per-example gradients are small: they are kept, and nothing else. G: argument -> [n + m, ...]."""

    form = "instance"

    def __init__(self, owned: Owned, G: Gradients):
        self._n, self._G = owned.n, G

    def validation(self) -> Gradients:
        return {key: G[self._n :].sum(0) for key, G in self._G.items()}

    def score(self, V: Gradients) -> Tensor | None:
        pairs = [(wide(G[: self._n]), wide(V[key])) for key, G in self._G.items() if key in V]
        parts = [flat(G) @ v.flatten() for G, v in pairs]
        return sum(parts[1:], parts[0]) if parts else None

    def update(self, w: Tensor) -> Gradients:
        return {key: masked_sum(G[: self._n], w) for key, G in self._G.items()}


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
