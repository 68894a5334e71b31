"""Launch plans: what a launcher finds out about arguments of a kind is kept, and later calls only allocate and launch.

Of arguments of one kind, all that a launcher computes is the same: copies, sizes, tiles, scalars, the compiled kernel.
A kind is all that this may depend on, in the launcher or in what Triton specialises: shape, strides and dtype of each
tensor and whether its address is a multiple of 16 bytes; the device; every other argument; how float32 is multiplied.
(What a launcher allocates is always aligned.) A plan holds numbers and compiled kernels, never a tensor, and reads the
current stream at each launch.

Nothing is kept where Triton interprets, or where a hook of Triton's may want to see launches or builds: it sees all.
"""

from collections.abc import Callable
from functools import update_wrapper
from threading import Lock

import torch
import triton
from torch import Tensor
from triton.runtime import driver

LIMIT = 256  # plans of a launcher; then the oldest goes
_INTERPRETED = bool(triton.knobs.runtime.interpret)  # as kernels are made, once for all


class Launch:
    """A launch of which all is settled but the tensors, which are the first arguments of the kernel, and the stream.

    The first time, `kernel[grid](...)` binds the arguments, compiles, and returns what it launched; from then on that
    is launched, with the same arguments in the same order."""

    def __init__(self, kernel: Callable, grid: tuple[int, ...], config: tuple | None, *scalars, **constants):
        """config: blocks, by their names in the kernel, and options; its fields join the constants."""
        self._kernel, self._grid, self._scalars = kernel, grid, scalars
        self._named = constants | (config._asdict() if config else {})
        self._device: int | None = None
        self._hooks: list = []  # of the kernel

    def __call__(self, *tensors: Tensor | None) -> None:
        if self._device is None or self._hooks:
            with torch.cuda.device_of(tensors[0]):
                self._bind(tensors)
        elif driver.active.get_current_device() == self._device:
            self._again(tensors)
        else:
            with torch.cuda.device(self._device):
                self._again(tensors)

    def _bind(self, tensors: tuple) -> None:
        kernel, first = self._kernel, (*tensors, *self._scalars)
        compiled = kernel[self._grid](*first, **self._named)
        try:  # what JITFunction.run reads, in Triton 3.6 to 3.8; not all of it is public
            self._run, self._hooks = compiled.run, kernel.pre_run_hooks
            self._compiled = compiled.function, compiled.packed_metadata, None, None, None
            self._rest = (*self._scalars, *(self._named[name] for name in kernel.arg_names[len(first) :]))
        except AttributeError:  # a Triton that differs, or an interpreter: each launch is bound anew
            return
        self._grid_of_three = (*self._grid, 1, 1)[:3]
        self._device = driver.active.get_current_device()

    def _again(self, tensors: tuple) -> None:
        stream = driver.active.get_current_stream(self._device)
        self._run(*self._grid_of_three, stream, *self._compiled, *tensors, *self._rest)


def planned(precision: Callable[[torch.dtype], str] | None = None) -> Callable:
    """Makes a launcher of a function that takes the launcher's arguments, the first of them a tensor, and returns what
    serves these and all of their kind.

    precision: how float32 is multiplied, one of precision.py, where that matters."""

    def decorate(plan: Callable) -> Callable:
        plans: dict[tuple, Callable] = {}
        lock = Lock()

        def launch(*args):
            if _watched():
                return plan(*args)(*args)
            kind = [args[0].device, precision and precision(args[0].dtype)]
            for x in args:
                if isinstance(x, Tensor):
                    kind += x.shape, x.stride(), x.dtype, x.data_ptr() & 15 == 0
                else:
                    kind += type(x), tuple(x) if isinstance(x, list) else x
            key = tuple(kind)
            serve = plans.get(key)
            if serve is None:
                serve = plan(*args)
                with lock:
                    if len(plans) >= LIMIT:
                        del plans[next(iter(plans))]
                    plans[key] = serve
            return serve(*args)

        launch.plans = plans
        return update_wrapper(launch, plan)

    return decorate


def _watched() -> bool:
    """Does Triton interpret, or may a hook want to see a launch or a build?"""
    runtime = triton.knobs.runtime
    return bool(
        _INTERPRETED
        or getattr(runtime.launch_enter_hook, "calls", runtime.launch_enter_hook)
        or getattr(runtime.launch_exit_hook, "calls", runtime.launch_exit_hook)
        or runtime.jit_cache_hook
        or getattr(runtime, "add_stages_inspection_hook", None)
        or runtime.debug
        or triton.knobs.compilation.instrumentation_mode
    )


def parts(like: Tensor, count: int, *shape: int) -> Tensor:
    """Room for `count` float32 parts of a result; one part is the result."""
    size = shape if count == 1 else (count, *shape)
    return like.new_empty(size) if like.dtype == torch.float32 else like.new_empty(size, dtype=torch.float32)


def total(found: Tensor, count: int) -> Tensor:
    """The sum of `parts`, taken in a fixed order."""
    return found if count == 1 else found.sum(0)
