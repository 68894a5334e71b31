"""A backend proves itself before it serves: once per device and dtype, on a tiny input, against the reference.

A compiled kernel that does not fit the GPU or the torch it meets can return zeros and raise nothing.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily

from fastrw.ops.tolerance import relative_error

if TYPE_CHECKING:
    from .backends import Backend, Op


class BrokenBackend(UserWarning):
    """A backend that says it can serve gives wrong numbers on this machine: it is not used."""


_verdicts: dict[tuple, str | None] = {}


def verdict(op: Op, backend: Backend, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the backend is not to be trusted on this device and dtype; None when it equals the reference."""
    key = (op, backend, device, dtype)
    if key not in _verdicts:
        if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            return "has to pass its self-test before a CUDA graph is captured: call the op once outside"
        _verdicts[key] = _try(op, backend, device, dtype)
        if _verdicts[key] is not None:
            warnings.warn(f"fastrw.{op.name}: backend {backend.name!r} {_verdicts[key]}", BrokenBackend, stacklevel=2)
    return _verdicts[key]


def _try(op: Op, backend: Backend, device: torch.device, dtype: torch.dtype) -> str | None:
    with unset_fake_temporarily(), torch.no_grad():  # real numbers, also while torch.compile traces
        args = op.sample(device, dtype)
        wanted = as_tuple(op.backends["reference"].run(*args))
        try:
            found = as_tuple(backend.run(*args))
        except Exception as error:  # whatever it is, this backend does not work here
            return f"failed its self-test on {device}: {type(error).__name__}: {error}"
        for got, want in zip(found, wanted, strict=True):
            if got.dtype != want.dtype or got.shape != want.shape:
                return f"failed its self-test on {device}: returned {got.dtype} {tuple(got.shape)}"
            if not torch.equal(got, want):
                return f"failed its self-test on {device}: its relative error is {relative_error(got, want):.1e}"
    return None


def as_tuple(outputs) -> tuple:
    """The outputs of an op that returns one tensor or several."""
    return outputs if isinstance(outputs, tuple) else (outputs,)
