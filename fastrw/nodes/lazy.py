"""Tangents that are not formed until something reads them. That of a BatchNorm waits for the addition and the ReLU that
follow it in a residual network: all three are one pass. That of a convolution includes the sums that a BatchNorm needs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastrw.ops import backends, self_test
from fastrw.ops.call import served


@dataclass(frozen=True, eq=False)
class TangentWithSums:
    """A tangent t [n, C, ...] of y, and [2, C]: the sums of t and of t y over examples and positions."""

    tangent: Tensor
    sums: Tensor


@dataclass(eq=False)
class LazyBatchNormTangent:
    """The tangent of a BatchNorm's output, or of its sum with something whose tangent is `residual`.

    operands: the arguments of `batch_norm_tangent` from x to d_bias; None once the tangent is formed.
    """

    operands: tuple[Tensor | None, ...] | None
    sums: Tensor | None
    backend: str
    residual: Tensor | None = None
    formed: Tensor | None = None

    @property
    def shape(self) -> torch.Size:
        return (self.formed if self.operands is None else self.operands[0]).shape

    def form(self) -> Tensor:
        """The tangent itself: computed in the first call, then kept."""
        if self.formed is None:
            self.formed = self._compute(None)
            self.operands = self.residual = None
        return self.formed

    def masked(self, output: Tensor) -> Tensor:
        """The tangent of the output of a ReLU that reads this."""
        if self.formed is not None or output.dtype != self.operands[0].dtype:
            return through_relu(self.form(), output)
        return self._compute(output)

    def plus(self, other: Tensor) -> LazyBatchNormTangent | Tensor:
        """The tangent of the sum with something of this shape, whose tangent is `other`."""
        if self.formed is not None or self.residual is not None or other.dtype != self.operands[0].dtype:
            return self.form() + other
        return LazyBatchNormTangent(self.operands, self.sums, self.backend, other)

    def _compute(self, output: Tensor | None) -> Tensor:
        args = (*self.operands, self.residual, output, self.sums)
        return served("batch_norm_tangent", serving("batch_norm_tangent", self.backend, *args), *args)[0]


def through_relu(t: Tensor, output: Tensor) -> Tensor:
    """The tangent of a ReLU's output: t, 0 where the output is 0."""
    return torch.ops.aten.threshold_backward(t.to(output.dtype), output, 0)


def serving(op: str, backend: str, *args) -> str:
    """The backend or, if it has no kernel for these arguments, "auto"."""
    if backend == "auto" or torch.compiler.is_dynamo_compiling():
        return "auto"
    entry = backends.get(op)
    can = backend in entry.backends and self_test.refusal(entry, entry.backends[backend], *args) is None
    return backend if can else "auto"


Tangent = Tensor | TangentWithSums | LazyBatchNormTangent


def formed(t: Tangent) -> Tensor:
    return t.form() if isinstance(t, LazyBatchNormTangent) else t.tangent if isinstance(t, TangentWithSums) else t
