"""Which example each element of a gradient belongs to, and the sums and weights that follow from it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

NOBODY = -1  # the owner of an element whose gradient is 0


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows of a matrix by owner: `each` adjacent rows per example, first those of the n training examples, then all
    validation rows; or, in any other order, the owner of each row."""

    n: int
    each: int
    of: Tensor | None  # [rows]; None where `each` determines it

    @property
    def training(self) -> int:
        """The number of rows of the training examples."""
        return self.n * self.each

    def sums(self, x: Tensor) -> Tensor:
        """[n, ...]: the sum of the rows of each training example. x: [rows] or [rows, ...], or its training rows."""
        if self.of is None:
            x = x[: self.training]
            return x if self.each == 1 else x.reshape(self.n, self.each, *x.shape[1:]).sum(1)
        return _sums(x, self.of, self.n)

    def weights(self, w: Tensor) -> Tensor:
        """[rows], or [training rows] where these come first: the weight of each row. w: [n]."""
        if self.of is None:
            return w if self.each == 1 else w.repeat_interleave(self.each)
        return _spread(w, self.of)

    def validating(self, like: Tensor) -> Tensor:
        """[rows]: 1 for validation rows, else 0."""
        return (self.of == self.n).to(like.dtype)


@dataclass(frozen=True, slots=True, eq=False)
class Owned:
    """Elements of a gradient of this shape belong to owner `of[position along dim]`: 0 .. n-1 are training examples, n
    is the validation loss, NOBODY marks a gradient of 0. `dim` None: `of` has an entry for each element.

    each: `of` has this many adjacent entries for each training example, in order, then those of the validation loss; 0
    if it is in any other order.
    """

    n: int
    shape: torch.Size
    dim: int | None
    of: Tensor
    each: int
    complete: bool  # no entry of `of` is NOBODY: what was learned on one batch holds for the next

    def rows(self, width: int) -> Rows | None:
        """The owners of the gradient as a matrix with rows of this width; None where a row has several owners."""
        shape = self.shape
        after = 1
        split = len(shape)
        while split and after < width:
            split -= 1
            after *= shape[split]
        if after != width or self.dim is None or self.dim >= split:
            return None
        outer, inner = math.prod(shape[: self.dim]), math.prod(shape[self.dim + 1 : split])
        if outer == 1 and self.each:
            return Rows(self.n, self.each * inner, None)
        of = self.of
        of = of if inner == 1 else of.repeat_interleave(inner)
        return Rows(self.n, 0, of if outer == 1 else of.repeat(outer))

    @property
    def leading(self) -> bool:
        """Is the first dimension the batch dimension, one entry per example, training examples first?"""
        return self.dim == 0 and self.each == 1

    def sums(self, x: Tensor) -> Tensor:
        """[n]: the sum over the elements of each training example. x: in the shape of the gradient."""
        others = [] if self.dim is None else [d for d in range(x.ndim) if d != self.dim]
        x = x.sum(others) if others else x.reshape(-1)
        return Rows(self.n, self.each, None if self.each else self.of).sums(x)

    def weigh(self, g: Tensor, w: Tensor) -> Tensor:
        """g times the weights [n] of the training examples: 0, whatever g holds, where the weight is 0 and where the
        owner is not a training example."""
        return self._times(g, _spread(w.to(g.real.dtype if g.is_complex() else g.dtype), self.of))

    def validating(self, g: Tensor) -> Tensor:
        """g where it belongs to the validation loss, else 0."""
        return self.only(g, self.n)

    def only(self, g: Tensor, i: int) -> Tensor:
        """g where it belongs to owner i, else 0."""
        return self._times(g, (self.of == i).to(g.real.dtype if g.is_complex() else g.dtype))

    def _times(self, g: Tensor, w: Tensor) -> Tensor:
        w = w.view(g.shape) if self.dim is None else along(w, self.dim, g.ndim)
        return (g * w).masked_fill_(w == 0, 0)


def along(x: Tensor, dim: int, ndim: int) -> Tensor:
    """x [L] as a tensor of `ndim` dimensions, of size 1 in all but `dim`."""
    return x.view([-1 if d == dim else 1 for d in range(ndim)])


def _spread(w: Tensor, of: Tensor) -> Tensor:
    """The weight of each entry: w of a training example, 0 of all others."""
    n = len(w)
    return torch.cat([w, w.new_zeros(1)])[of.masked_fill((of < 0) | (of > n), n)]


def _sums(x: Tensor, of: Tensor, n: int) -> Tensor:
    """[n, ...]: the sums of the rows of each training example."""
    into = x.new_zeros(n + 1, *x.shape[1:])
    return into.index_add_(0, of.masked_fill(of < 0, n), x)[:n]
