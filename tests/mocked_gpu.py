"""A GPU that is not here: what the host launches on it, counted, and where it would wait for it.

`install()` makes tensors on the CPU say that they are on a GPU, so that the project takes the GPU's path: its order of
backends, its masks in place of selections, its snapshots. Triton binds arguments as ever and launches nothing; the
reference fills in what a kernel would have computed, so that all that follows sees right numbers. Compiled ops run as
they do on the CPU. For a process of its own: Triton's interpreter, which the other tests switch on, has no launches."""

import os
import sys
import time
import warnings
from collections import Counter
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

os.environ.pop("TRITON_INTERPRET", None)

import torch
import triton.runtime.jit
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

import fastrw
from fastrw import kernels
from fastrw.ops import backends
from fastrw.ops.self_test import as_tuple

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
ROOT = str(Path(fastrw.__file__).parent)

# What waits until the GPU has computed what is read, or how large a result is: as it is dispatched, or as it is called.
WAITING = {
    "_local_scalar_dense", "item", "is_nonzero", "equal", "allclose", "nonzero", "masked_select", "argwhere",
    "bincount", "_unique", "_unique2", "unique_dim", "unique_consecutive", "unique_dim_consecutive",
}  # fmt: skip
READING = ("cpu", "numpy", "tolist", "__array__")
# Constructors, which are told the device; methods that know it; those of both that copy what is on the host.
MAKING = ("arange", "as_tensor", "empty", "empty_strided", "eye", "full", "linspace", "ones", "rand", "randint",
          "randn", "randperm", "scalar_tensor", "tensor", "zeros")  # fmt: skip
LIKE = ("new_empty", "new_full", "new_ones", "new_tensor", "new_zeros")
COPYING = {"as_tensor", "tensor", "new_tensor"}
# Views written in other ways, and what allocates or asks only: no kernel.
NO_KERNEL = {"_unsafe_view", "_reshape_alias", "squeeze_", "unsqueeze_", "transpose_", "t_", "as_strided_",
             "lift_fresh", "promote_types", "result_type", "empty", "empty_like", "empty_strided", "new_empty",
             "new_empty_strided"}  # fmt: skip


class Counts(TorchDispatchMode):
    """Of what is launched while it is on: `launches` by Triton, `kernels` by others as far as dispatches show, and
    `dispatches` of any kind; `waits`: where the host would wait for the GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.launches = self.kernels = self.dispatches = 0
        self.names: Counter = Counter()  # of the kernels
        self.waits: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, func.overloadpacket.__name__
        self.dispatches += 1
        if not (func.is_view or name in NO_KERNEL or name.endswith("_triton")):
            self.kernels += 1
            self.names[name] += 1
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        if any(map(on_gpu, given)) and _waits(name, func, args, kwargs):
            self.wait(name)
        out = func(*args, **kwargs)
        if given and not any(map(on_gpu, given)):
            for t in tree_leaves(out):
                if isinstance(t, torch.Tensor):
                    t.on_host = True
        return out

    def wait(self, what: str) -> None:
        frame, places = sys._getframe(), []
        while frame is not None and len(places) < 4:
            if frame.f_code.co_filename.startswith(ROOT):
                places.append(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}")
            frame = frame.f_back
        self.waits.append(f"{what} at {' < '.join(places)}")


_on: list[Counts] = []


@contextmanager
def counted():
    """Counts what runs in this context."""
    counts = Counts()
    _on.append(counts)
    try:
        with counts:
            yield counts
    finally:
        _on.pop()


def _wait(what: str) -> None:
    if _on:
        _on[-1].wait(what)


class Clock:
    """Seconds of the host, without those in which the reference fills in numbers."""

    filling = 0.0

    def now(self) -> float:
        return time.perf_counter() - self.filling


clock = Clock()
_device = torch.Tensor.device.__get__


def on_gpu(t: torch.Tensor) -> bool:
    return _device(t).type == "cpu" and not getattr(t, "on_host", False)


def _waits(name, func, args, kwargs) -> bool:
    if name in WAITING or str(func) == "aten.repeat_interleave.Tensor":
        return True
    if name in ("index", "index_put", "index_put_", "_index_put_impl_"):  # by a mask: how many elements are there?
        return any(t is not None and (t.dtype in (torch.bool, torch.uint8) or not on_gpu(t)) for t in args[1])
    if name == "copy_":
        return on_gpu(args[0]) != on_gpu(args[1]) and not (kwargs.get("non_blocking") or (*args, False, False)[2])
    return False


def _is_gpu(device) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def _made(make):
    """A constructor of tensors, which are on the host unless the GPU is asked for."""

    def called(*args, **kwargs):
        if not _is_gpu(kwargs.get("device")):
            t = make(*args, **kwargs)
            t.on_host = True
            return t
        if make.__name__ in COPYING:
            _wait(make.__name__)
        return make(*args, **kwargs | {"device": CPU})

    return called


def _made_like(make):
    def called(t, *args, **kwargs):
        if on_gpu(t) and make.__name__ in COPYING:
            _wait(make.__name__)
        return make(t, *args, **kwargs | ({"device": CPU} if _is_gpu(kwargs.get("device")) else {}))

    return called


def _read(read):
    def called(t, *args):
        if on_gpu(t):
            _wait(read.__name__)
        return read(t, *args)

    return called


def _moved(move):
    """Tensor.to"""

    def called(t, *args, **kwargs):
        device = next((x for x in (*args, *kwargs.values()) if isinstance(x, torch.device | str)), None)
        args = [CPU if x is device else x for x in args]
        kwargs = {k: CPU if x is device and device is not None else x for k, x in kwargs.items()}
        out = move(t, *args, **kwargs)
        if device is None or _is_gpu(device) == on_gpu(t):
            return out
        out = out.clone() if out is t else out
        out.on_host = not _is_gpu(device)
        if not kwargs.get("non_blocking"):
            _wait("to")
        return out

    return called


class Driver:
    """Triton's, of an H200 that does nothing."""

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_device_interface(self):
        return torch.cuda

    @staticmethod
    def is_active():
        return True


class Kernel:
    """A compiled kernel, launched as ever."""

    function = packed_metadata = None

    def launch_metadata(self, grid, stream, *args):
        return None

    def run(self, *args):
        if _on:
            _on[-1].launches += 1


def compiled(self, key, signature, device, *rest):
    kernel = self.device_caches[device][0][key] = Kernel()
    return kernel


def _right(op, launch):
    """A launcher, and then the numbers that its kernel would have computed."""

    def launched(*args):
        with _on[-1] if _on else nullcontext():  # a mode is off while it handles an operation
            found = launch(*args)
        start = time.perf_counter()
        wanted = backends.get(op).backends["reference"].run(*args)
        for got, want in zip(as_tuple(found), as_tuple(wanted), strict=True):
            got.copy_(want)
        clock.filling += time.perf_counter() - start
        return found

    return launched


class Event:
    def record(self, stream):
        pass

    def synchronize(self):
        _wait("Event.synchronize")


def _random_state(*_):
    found = torch.default_generator.get_state()
    found.on_host = True
    return found


def install() -> None:
    """From now on, this process has a GPU, which holds all tensors that exist."""
    driver.set_active(Driver())
    triton.runtime.jit.JITFunction._do_compile = compiled
    for op in backends.names():
        if (Path(kernels.__file__).parent / f"{op}.py").exists():
            module = import_module(f"fastrw.kernels.{op}")
            setattr(module, f"launch_{op}", _right(op, getattr(module, f"launch_{op}")))
    has_kernel = backends._has_kernel
    backends._has_kernel = lambda op, device: has_kernel(op, "cpu")
    for names, where, change in ((MAKING, torch, _made), (LIKE, torch.Tensor, _made_like),
                                 (READING, torch.Tensor, _read), (["to"], torch.Tensor, _moved)):  # fmt: skip
        for name in names:
            setattr(where, name, change(getattr(where, name)))
    torch.Tensor.device = property(lambda t: CUDA if on_gpu(t) else _device(t))
    torch.Tensor.is_cuda = property(on_gpu)
    torch.get_rng_state = torch.cuda.get_rng_state = _random_state
    torch.cuda.set_rng_state = lambda *args: None
    torch.cuda.get_device_capability = lambda device=None: (9, 0)
    torch.cuda.get_device_properties = lambda device=None: SimpleNamespace(multi_processor_count=132)
    torch.cuda.is_current_stream_capturing = lambda: False
    torch.cuda.current_stream, torch.cuda.Event = lambda device=None: None, Event
    warnings.filterwarnings("ignore", ".*CUDA is not available")
