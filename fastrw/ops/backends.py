"""The registry of backends: which can compute an op, and which does.

reference   torch ops, any device and dtype; slowest and always there
cpp         the compiled extension on the CPU
cuda        the compiled extension on a GPU
triton      kernels/ on a GPU (or on the CPU where Triton's interpreter is switched on)

A backend other than the reference proves itself on a tiny input before it first serves a device and dtype: see
self_test.py. Nothing falls back in silence: a backend asked for by name serves or raises with its reason.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from inspect import signature
from typing import NamedTuple

import torch
from torch import Tensor

from fastrw import kernels
from fastrw.errors import Refused

from . import extension, library, self_test
from . import reference as specs
from .description import Description

Reason = Callable[..., str | None]


@dataclass(frozen=True, eq=False)
class Backend:
    """One implementation of an op."""

    name: str
    can: Reason  # why it cannot serve these arguments; None when it can
    run: Callable


@dataclass(frozen=True, eq=False)
class Op:
    """The backends of one op."""

    name: str
    backends: Mapping[str, Backend]
    order: Callable[..., tuple[str, ...]]  # arguments -> what "auto" tries, fastest first
    description: Description
    steady: bool = False  # the order depends on the device only
    chosen: dict[tuple, Backend] = field(default_factory=dict)

    def sample(self, device: torch.device, dtype: torch.dtype) -> tuple:
        """Tiny inputs on which every backend must equal the reference, bit for bit."""
        return self.description.draw(device, dtype)

    def refusal(self, backend: Backend, *args) -> str | None:
        """Why the backend cannot serve these arguments; None when it can and has proved itself."""
        reason = backend.can(*args)
        if reason is None and backend.name != "reference":
            lead = leading(args)
            reason = self_test.verdict(self, backend, lead.device, lead.dtype)
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
    order: Mapping[str, tuple[str, ...]] | Callable[..., tuple[str, ...]],
    triton: bool | Callable = False,
    cpp_refusal: Reason | None = None,
    reference: Callable | None = None,
    arguments: Callable[..., tuple] | None = None,
    **described,
) -> None:
    """Enter an op under its backends: its reference is `reference.<op>`, its compiled kernels torch.ops.fastrw.<op>,
    its Triton kernel fastrw.kernels.<op>.

    order: device type -> what "auto" tries, fastest first; or a cheap function of the arguments, where the best depends
        on sizes.
    triton: whether there is a Triton kernel; or what calls its launcher.
    cpp_refusal: why the C++ kernel cannot serve these arguments.
    reference, arguments: where lists of tensors travel one by one up to here, what puts them together again.
    described: the fields of `Description`.
    """
    spec = getattr(specs, op)
    described = Description(op, tuple(signature(spec).parameters), **described)
    backends = {"reference": Backend("reference", lambda *args: None, reference or spec)}
    compiled = _missing
    if extension.reason is None and hasattr(torch.ops.fastrw, op):
        kernel = library.complete(op, described.fake)
        compiled = kernel if arguments is None else lambda *args: kernel(*arguments(*args))
    backends["cpp"] = Backend("cpp", _compiled(op, "cpu", cpp_refusal), compiled)
    backends["cuda"] = Backend("cuda", _compiled(op, "cuda"), compiled)
    if triton:
        library.define(f"{op}_triton", library.schema_of(spec), launcher(op) if triton is True else triton)
        backends["triton"] = Backend("triton", _triton, library.complete(f"{op}_triton", described.fake))
    else:
        backends["triton"] = Backend("triton", lambda *args: f"has no kernel of {op}", _missing)

    def by_device(*args):
        return order.get(leading(args).device.type, ())

    steady = not callable(order)
    _ops[op] = Op(op, backends, by_device if steady else order, described, steady)


def launcher(op: str) -> Callable:
    """What launches the Triton kernel of the op; Triton is imported at the first launch."""

    def launch(*args):
        return getattr(import_module(f"fastrw.kernels.{op}"), f"launch_{op}")(*args)

    return launch


def get(op: str) -> Op:
    """The op of that name."""
    return _ops[op]


def names() -> tuple[str, ...]:
    """Every op."""
    return tuple(_ops)


def leading(args: tuple) -> Tensor:
    """The first floating point tensor: its device and dtype are those of the call."""
    first = args[0]
    if isinstance(first, Tensor) and first.dtype.is_floating_point:
        return first
    return next(x for x in args if isinstance(x, Tensor) and x.dtype.is_floating_point)


def choose(op: str, backend: str, *args) -> Backend:
    """The backend of that name; for "auto", the first in the op's order for these arguments that can serve.

    Raises:
        ValueError: no backend has that name.
        fastrw.Refused: that backend cannot serve these arguments; the text says why.
    """
    entry, lead = _ops[op], leading(args)
    order = None if entry.steady or backend != "auto" else entry.order(*args)
    key = (backend, order, lead.device, lead.dtype, lead.ndim)
    found = entry.chosen.get(key)
    if found is None:
        found, last = _choose(entry, backend, order, args)
        if last:
            entry.chosen[key] = found
    return found


def _choose(entry: Op, backend: str, order: tuple[str, ...] | None, args: tuple) -> tuple[Backend, bool]:
    """The backend, and whether nothing faster may serve later."""
    if backend == "auto":
        order = entry.order(*args) if order is None else order
        for name in order:
            if entry.refusal(entry.backends[name], *args) is None:
                return entry.backends[name], name == order[0]
        return entry.backends["reference"], not order
    if backend not in entry.backends:
        names = ", ".join(entry.backends)
        raise ValueError(f"fastrw.{entry.name}: backend must be one of auto, {names}, got {backend!r}")
    reason = entry.refusal(entry.backends[backend], *args)
    if reason is not None:
        raise Refused(
            f"fastrw.{entry.name}: backend must be able to serve these tensors, got {backend!r}, which {reason}"
        )
    return entry.backends[backend], True


def require(backend: str, device: torch.device, dtype: torch.dtype) -> None:
    """Raises fastrw.Refused unless the backend of that name serves some op on this device and dtype."""
    for entry in _ops.values():
        try:
            choose(entry.name, backend, *entry.sample(device, dtype))
            return
        except Refused as refusal:
            refused = refusal
    raise refused


def status() -> list[Status]:
    """Every backend of every op: whether it serves float32 on a device of this machine, and if not why not."""
    devices = [torch.device("cpu")] + [torch.device("cuda", 0)] * torch.cuda.is_available()
    rows = []
    for entry in _ops.values():
        samples = [entry.sample(d, torch.float32) for d in devices]
        for backend in entry.backends.values():
            reasons = [entry.refusal(backend, *args) for args in samples]
            serves = None in reasons
            rows.append(Status(entry.name, backend.name, serves, None if serves else reasons[-1]))
    return rows


def _missing(*args):
    raise NotImplementedError("fastrw.ops: there is no such kernel")


def _triton(*args) -> str | None:
    return kernels.refusal(leading(args))


@cache
def _has_kernel(op: str, device: str) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"fastrw::{op}", device.upper())


def _compiled(op: str, device: str, refusal: Reason | None = None) -> Reason:
    def can(*args) -> str | None:
        if extension.reason is not None:
            return f"needs the compiled extension: {extension.reason}"
        if not hasattr(torch.ops.fastrw, op) or not _has_kernel(op, device):
            if not _has_kernel("gram_dot", device):
                return f"needs {device.upper()} code, which the compiled extension was built without"
            return f"has no kernel of {op}"
        lead = leading(args)
        if lead.device.type != device:
            return f"serves {device} tensors, got {lead.device}"
        if device == "cuda" and lead.dtype == torch.float64:
            return "serves float32, bfloat16 and float16, got torch.float64"
        return None if refusal is None else refusal(*args)

    return can
