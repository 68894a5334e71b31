"""A backend proves itself before it serves: once per device and dtype, on a tiny input, against the reference.

A compiled kernel that does not fit the GPU or the torch it meets can return zeros and raise nothing.
"""

from __future__ import annotations

import warnings
from itertools import cycle
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily

from .tolerance import relative_error

if TYPE_CHECKING:
    from .op import Backend, Op


class BrokenBackend(UserWarning):
    """A backend that says it can serve gives wrong numbers on this machine: it is not used."""


class Whole:
    """Draws whole numbers from -2 to 2, another sequence at every call, without a random number generator. Every
    product and sum of them is exact in every dtype, in whatever order."""

    def __init__(self, device: torch.device, dtype: torch.dtype):
        self.device, self.dtype = device, dtype
        self._primes = cycle((3, 7, 11, 13, 17, 19, 23, 5, 29))

    def __call__(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        i = torch.arange(torch.Size(shape).numel(), device=self.device)
        return (i * i * next(self._primes) % 31 % 5 - 2).view(shape).to(dtype or self.dtype)


_verdicts: dict[tuple, str | None] = {}


def verdict(op: Op, backend: Backend, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the backend is not to be trusted on this device and dtype; None when it equals the reference."""
    key = (op, backend, device, dtype)
    if key not in _verdicts:
        if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            return "has to pass its self-test before a CUDA graph is captured: call the op once outside"
        fault = _try(op, backend, device, dtype)
        _verdicts[key] = None if fault is None else f"failed its self-test on {device}: {fault}"
        if fault is not None:
            warnings.warn(f"fastrw.{op.name}: backend {backend.name!r} {_verdicts[key]}", BrokenBackend, stacklevel=2)
    return _verdicts[key]


def _try(op: Op, backend: Backend, device: torch.device, dtype: torch.dtype) -> str | None:
    with unset_fake_temporarily(), torch.no_grad():  # real numbers, also while torch.compile traces
        args = op.draw(device, dtype)
        wanted = as_tuple(op.backends["reference"].run(*args))
        try:
            found = as_tuple(backend.run(*args))
        except Exception as error:  # whatever it is, this backend does not work here
            return f"{type(error).__name__}: {error}"
        for got, want in zip(found, wanted, strict=True):
            if got.dtype != want.dtype or got.shape != want.shape:
                return f"returned {got.dtype} {tuple(got.shape)}"
            if not torch.equal(got, want):
                return f"its relative error is {relative_error(got, want):.1e}"
    return None


def as_tuple(outputs) -> tuple:
    """The outputs of an op that returns one tensor or several."""
    return outputs if isinstance(outputs, tuple) else (outputs,)
