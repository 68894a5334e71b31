"""The registry of backends: which can compute an op, and which does.

reference   torch ops, any device and dtype; slowest and always there
cpp         the compiled extension on the CPU
cuda        the compiled extension on a GPU
triton      kernels/ on a GPU (or on the CPU where Triton's interpreter is switched on)

A backend other than the reference proves itself on a tiny input before it first serves a device and dtype: see
self_test.py. Nothing falls back in silence: a backend asked for by name serves or raises with its reason.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from inspect import signature
from typing import NamedTuple

import torch

from fastrw import kernels
from fastrw.errors import Refused

from . import extension, library, self_test
from . import reference as specs
from .op import Backend, Op, leading

Reason = Callable[..., str | None]
_ops: dict[str, Op] = {}
_recording: list[bool] = []  # not empty: in the context of `fused`
_fusing: set[tuple[str, str]] = set()  # op, device type: in the context of `fusing`


def register(
    public: Callable,
    *,
    triton: bool | Callable = False,
    cpp_refusal: Reason | None = None,
    reference: Callable | None = None,
    arguments: Callable[..., tuple] | None = None,
    on_cuda: Callable[[Callable], Callable] | None = None,
    **described,
) -> None:
    """Enter the op of this public function under its backends: its reference is `reference.<op>`, its compiled kernels
    torch.ops.fastrw.<op>, its Triton kernel fastrw.kernels.<op>.

    triton: whether there is a Triton kernel; or what calls its launcher.
    cpp_refusal: why the C++ kernel cannot serve these arguments.
    reference, arguments: where lists of tensors travel one by one up to here, what puts them together again.
    on_cuda: what calls the compiled kernel on a GPU, where a call of the op is not always one of the kernel.
    described: the fields of `Op`. An order on "cuda" is by the roofline, and not measured yet.
    """
    name = public.__name__
    names = tuple(x for x in signature(public).parameters if x != "backend")
    op = _ops[name] = Op(name, names, **described)
    run = _missing
    if extension.reason is None and hasattr(torch.ops.fastrw, name):
        kernel = library.complete(name, op.fake)
        run = kernel if arguments is None else lambda *args: _unlisted(kernel(*arguments(*args)))
    backends = [
        Backend("reference", lambda *args: None, reference or getattr(specs, name)),
        Backend("cpp", _compiled(name, "cpu", cpp_refusal), run),
        Backend("cuda", _compiled(name, "cuda"), run if on_cuda is None else on_cuda(run)),
        Backend("triton", lambda *args: f"has no kernel of {name}", _missing),
    ]
    if triton:
        launch = launcher(name) if triton is True else triton
        library.define(f"{name}_triton", library.schema_of(public), launch)
        called = library.complete(f"{name}_triton", op.fake)
        backends[-1] = Backend("triton", _triton, library.directly(launch, called))
    op.backends.update({backend.name: backend for backend in backends})


def launcher(op: str) -> Callable:
    """What launches the Triton kernel of the op; Triton is imported at the first launch."""
    module = cache(lambda: import_module(f"fastrw.kernels.{op}"))

    def launch(*args):
        return getattr(module(), name)(*args)

    name = f"launch_{op}"
    return launch


def get(op: str) -> Op:
    """The op of that name."""
    return _ops[op]


def names() -> tuple[str, ...]:
    """Every op."""
    return tuple(_ops)


@contextmanager
def fused() -> Iterator[None]:
    """In this context, calls are recorded for a compiler: "auto" is the reference where that, fused with what is around
    it, is faster than a kernel that is called."""
    _recording.append(True)
    try:
        yield
    finally:
        _recording.pop()


@contextmanager
def fusing(device: str, *ops: str) -> Iterator[None]:
    """In this context these ops, too, are fused on that type of device: to measure if a compiler makes them faster."""
    added = {(op, device) for op in ops} - _fusing
    _fusing.update(added)
    try:
        yield
    finally:
        _fusing.difference_update(added)


def choose(op: str, backend: str, *args) -> Backend:
    """The backend of that name; for "auto", the first in the op's order for these arguments that can serve.

    Raises:
        ValueError: no backend has that name.
        fastrw.Refused: that backend cannot serve these arguments; the text says why.
    """
    entry, lead, auto = _ops[op], leading(args), backend == "auto"
    reference_wins = auto and entry.reference_wins is not None and entry.reference_wins(*args)
    if _recording and auto and not reference_wins:
        reference_wins = lead.device.type in entry.fuses or (op, lead.device.type) in _fusing
    key = (backend, reference_wins, lead.device, lead.dtype, lead.ndim)
    found = entry.chosen.get(key)
    if found is not None:
        return found
    if not auto and backend not in entry.backends:
        known = ", ".join(entry.backends)
        raise ValueError(f"fastrw.{op}: backend must be one of auto, {known}, got {backend!r}")
    faster = () if reference_wins else entry.order.get(lead.device.type, ())
    wanted = (*faster, "reference") if auto else (backend,)
    for name in wanted:
        found = entry.backends[name]
        reason = self_test.refusal(entry, found, *args)
        if reason is None:
            if name == wanted[0]:  # else one that is faster may serve later
                entry.chosen[key] = found
            return found
    raise Refused(f"fastrw.{op}: backend must be able to serve these tensors, got {backend!r}, which {reason}")


def require(backend: str, device: torch.device, dtype: torch.dtype) -> None:
    """Raises fastrw.Refused unless the backend of that name serves some op on this device and dtype."""
    for entry in _ops.values():
        try:
            choose(entry.name, backend, *entry.draw(device, dtype))
            return
        except Refused as refusal:
            refused = refusal
    raise refused


class Status(NamedTuple):
    """A row of `python -m fastrw info`."""

    op: str
    backend: str
    serves: bool
    reason: str | None


def status() -> list[Status]:
    """Every backend of every op: whether it serves float32 on a device of this machine, and if not why not."""
    devices = [torch.device("cpu")] + [torch.device("cuda", 0)] * torch.cuda.is_available()
    rows = []
    for entry in _ops.values():
        samples = [entry.draw(device, torch.float32) for device in devices]
        for backend in entry.backends.values():
            reasons = [self_test.refusal(entry, backend, *args) for args in samples]
            serves = None in reasons
            rows.append(Status(entry.name, backend.name, serves, None if serves else reasons[-1]))
    return rows


def _unlisted(found):
    """What a kernel returns as a list, as a tuple."""
    return tuple(found) if isinstance(found, list) else found


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
        if not _has_kernel("gram_dot", device):
            return f"needs {device.upper()} code, which the compiled extension was built without"
        if not hasattr(torch.ops.fastrw, op) or not _has_kernel(op, device):
            return f"has no kernel of {op}"
        lead = leading(args)
        if lead.device.type != device:
            return f"serves {device} tensors, got {lead.device}"
        if device == "cuda" and lead.dtype == torch.float64:
            return "serves float32, bfloat16 and float16, got torch.float64"
        return None if refusal is None else refusal(*args)

    return can
