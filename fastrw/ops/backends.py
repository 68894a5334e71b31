"""Who can compute an op, and who does: the registry of backends.

reference   torch ops, any device and dtype; slowest and always there
cpp         the compiled extension on the CPU
cuda        the compiled extension on a GPU
triton      kernels/ on a GPU (or on the CPU where Triton's interpreter is switched on)

A backend other than the reference proves itself on a tiny input before it first serves a device and dtype: see
self_test.py. Nothing falls back in silence: a backend asked for by name serves or raises with its reason.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fastrw import extension, kernels
from fastrw.errors import Refused

from . import library, self_test

Sample = Callable[[torch.device, torch.dtype], tuple]


@dataclass(frozen=True, eq=False)
class Backend:
    """One way to compute an op."""

    name: str
    can: Callable[..., str | None]  # why it cannot serve these tensors; None when it can
    run: Callable[..., Tensor]


@dataclass(frozen=True, eq=False)
class Op:
    """The backends of one op."""

    name: str
    backends: Mapping[str, Backend]
    order: Mapping[str, tuple[str, ...]]  # device type -> what "auto" tries, fastest first
    sample: Sample  # tiny inputs on which every backend must equal the reference, bit for bit

    def refusal(self, backend: Backend, *tensors: Tensor) -> str | None:
        """Why the backend cannot serve these tensors; None when it can and has proved itself."""
        reason = backend.can(*tensors)
        if reason is None and backend.name != "reference":
            reason = self_test.verdict(self, backend, tensors[0].device, tensors[0].dtype)
        return reason


class Status(NamedTuple):
    """A row of `python -m fastrw info`."""

    op: str
    backend: str
    serves: bool
    reason: str | None


_ops: dict[str, Op] = {}


def register(
    op: str,
    *,
    schema: str,
    reference: Callable[..., Tensor],
    triton: Callable[..., Tensor],
    fake: Callable[..., Tensor],
    order: Mapping[str, tuple[str, ...]],
    sample: Sample,
) -> None:
    """Enter an op under its four backends; the two compiled ones are torch.ops.fastrw.<op>, as its schema says."""
    library.define(f"{op}_triton", schema, triton)
    launched = library.complete(f"{op}_triton", fake)
    compiled = library.complete(op, fake) if extension.reason is None else launched
    served = (
        Backend("reference", lambda *tensors: None, reference),
        Backend("cpp", lambda *tensors: _compiled_refusal(op, "cpu", tensors[0]), compiled),
        Backend("cuda", lambda *tensors: _compiled_refusal(op, "cuda", tensors[0]), compiled),
        Backend("triton", kernels.refusal, launched),
    )
    _ops[op] = Op(op, {backend.name: backend for backend in served}, order, sample)


def get(op: str) -> Op:
    """The op of that name."""
    return _ops[op]


def choose(op: str, backend: str, *tensors: Tensor) -> Backend:
    """The backend of that name; for "auto", the first in the op's order for this device that can serve.

    Raises:
        ValueError: no backend has that name.
        fastrw.Refused: that backend cannot serve these tensors; the text says why.
    """
    entry = _ops[op]
    if backend == "auto":
        for name in entry.order.get(tensors[0].device.type, ()):
            if entry.refusal(entry.backends[name], *tensors) is None:
                return entry.backends[name]
        return entry.backends["reference"]
    if backend not in entry.backends:
        raise ValueError(f"fastrw.{op}: backend must be one of auto, {', '.join(entry.backends)}, got {backend!r}")
    reason = entry.refusal(entry.backends[backend], *tensors)
    if reason is not None:
        raise Refused(f"fastrw.{op}: backend must be able to serve these tensors, got {backend!r}, which {reason}")
    return entry.backends[backend]


def require(backend: str, device: torch.device, dtype: torch.dtype) -> None:
    """Raises fastrw.Refused unless the backend of that name serves some op on this device and dtype."""
    probe = [torch.empty(0, 0, device=device, dtype=dtype)] * 4
    for op in _ops:
        try:
            choose(op, backend, *probe)
            return
        except Refused as refusal:
            refused = refusal
    raise refused


def status() -> list[Status]:
    """Every backend of every op: whether it serves float32 on a device of this machine, and if not why not."""
    devices = [torch.device("cpu")] + [torch.device("cuda", 0)] * torch.cuda.is_available()
    rows = []
    for entry in _ops.values():
        samples = [[x for x in entry.sample(d, torch.float32) if isinstance(x, Tensor)] for d in devices]
        for backend in entry.backends.values():
            reasons = [entry.refusal(backend, *tensors) for tensors in samples]
            serves = None in reasons
            rows.append(Status(entry.name, backend.name, serves, None if serves else reasons[-1]))
    return rows


def _compiled_refusal(op: str, device: str, tensor: Tensor) -> str | None:
    if extension.reason is not None:
        return f"needs the compiled extension: {extension.reason}"
    if not torch._C._dispatch_has_kernel_for_dispatch_key(f"fastrw::{op}", device.upper()):
        return f"needs {device.upper()} code, which the compiled extension was built without"
    if tensor.device.type != device:
        return f"serves {device} tensors, got {tensor.device}"
    if device == "cuda" and tensor.dtype == torch.float64:
        return "serves float32, bfloat16 and float16, got torch.float64"
    return None
