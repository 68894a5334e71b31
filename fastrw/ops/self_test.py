"""A backend proves itself before it serves: once per device and dtype, on a tiny input, against the reference.

A compiled kernel that does not fit the GPU or the torch it meets can return zeros and raise nothing.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily

from .op import Backend, Op, leading
from .tolerance import relative_error


class BrokenBackend(UserWarning):
    """A backend that says it can serve gives wrong numbers on this machine: it is not used."""


_verdicts: dict[tuple, str | None] = {}


def refusal(op: Op, backend: Backend, *args) -> str | None:
    """Why the backend cannot serve these arguments; None when it can and has proved itself."""
    reason = backend.can(*args)
    if reason is None and backend.name != "reference":
        lead = leading(args)
        reason = verdict(op, backend, lead.device, lead.dtype)
    return reason


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
    with unset_fake_temporarily(), torch.no_grad(), one_algorithm():  # real numbers, also while torch.compile traces
        return next(filter(None, (_compare(op, backend, args) for args in op.draws(device, dtype))), None)


def _compare(op: Op, backend: Backend, args: tuple) -> str | None:
    """In what the backend differs from the reference."""
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


@contextmanager
def one_algorithm() -> Iterator[None]:
    """Inside it cuDNN takes the same algorithm for the same convolution in every run, one that adds in a fixed order,
    and none that only a benchmark finds: the fastest may transform what it multiplies, and whole numbers are whole no
    longer. On a GPU torch's convolutions serve the reference, derivatives and conv_dot."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before


def as_tuple(outputs) -> tuple:
    """The outputs of an op that returns one tensor or several."""
    return tuple(outputs) if isinstance(outputs, (tuple, list)) else (outputs,)
