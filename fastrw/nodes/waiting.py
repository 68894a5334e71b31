"""Tangents that wait for the operation that reads them. BatchNorm's waits for the addition and the ReLU that follow it
in a residual network: all three are one pass. A convolution's has the sums that a BatchNorm asks for at hand."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastrw.ops import backends, batch_norm_tangent, relu_tangent


@dataclass(frozen=True, eq=False)
class Summed:
    """A tangent t [n, C, ...] of y, and [2, C]: its sum and that of t y over examples and positions."""

    tangent: Tensor
    sums: Tensor


@dataclass(eq=False)
class Normed:
    """The tangent of a BatchNorm's output, or of that plus what has a tangent of its own, before it is formed.

    made_of: the arguments of `batch_norm_tangent` from x to d_bias.
    """

    made_of: tuple[Tensor | None, ...] | None  # None once it is formed
    sums: Tensor | None
    backend: str
    residual: Tensor | None = None
    formed: Tensor | None = None

    @property
    def shape(self) -> torch.Size:
        return (self.formed if self.made_of is None else self.made_of[0]).shape

    def form(self) -> Tensor:
        """The tangent itself: formed at the first call, kept for the next."""
        if self.formed is None:
            self.formed = self._pass(None)
            self.made_of = self.residual = None
        return self.formed

    def masked(self, output: Tensor) -> Tensor:
        """The tangent of a ReLU's output that reads this."""
        if self.formed is not None:
            return through_relu(self.formed, output, self.backend)
        return self._pass(output)

    def plus(self, other: Tensor) -> Normed | Tensor:
        """The tangent of a sum with something of this shape, whose tangent is `other`."""
        if self.formed is not None or self.residual is not None:
            return self.form() + other
        return Normed(self.made_of, self.sums, self.backend, other)

    def _pass(self, output: Tensor | None) -> Tensor:
        args = (*self.made_of, self.residual, output, self.sums)
        return batch_norm_tangent(*args, backend=serving("batch_norm_tangent", self.backend, *args))


def through_relu(t: Tensor, output: Tensor, backend: str) -> Tensor:
    """The tangent of a ReLU's output."""
    if t.dtype != output.dtype:
        t = t.to(output.dtype)
    return relu_tangent(t, output, backend=serving("relu_tangent", backend, t, output))


def serving(op: str, asked: str, *args) -> str:
    """The backend asked for; where it has no kernel for these arguments, the fastest that has."""
    entry = backends.get(op)
    can = asked in entry.backends and entry.refusal(entry.backends[asked], *args) is None
    return asked if can else backends.choose(op, "auto", *args).name


Tangent = Tensor | Summed | Normed


def formed(t: Tangent) -> Tensor:
    return t.form() if isinstance(t, Normed) else t.tangent if isinstance(t, Summed) else t
