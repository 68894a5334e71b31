"""Can what a step did be repeated by its kernels alone, on the same memory, and undone by copies?"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import nullcontext
from typing import Any, Self

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fastrw.graph.saved import address
from fastrw.state.held import same
from fastrw.state.snapshot import State

aten = torch.ops.aten
WRITES = (aten.copy_.default, aten._foreach_copy_.default)  # to their first argument, which they do not read
COPIES = (aten.copy_.default, aten._to_copy.default)
ASKS = (aten.is_pinned.default,)  # without a look at the values


class Reads(TorchDispatchMode):
    """Notes the memory that operations read in this context. host: of tensors that are only to be copied to the GPU;
    `from_host`: was one of these read otherwise?"""

    def __init__(self, host: Collection[int | None] = ()) -> None:
        super().__init__()
        self.places: set[int | None] = set()
        self.from_host, self._host, self._values = False, host, _Values(self) if host else nullcontext()

    def __enter__(self) -> Self:
        self._values.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._values.__exit__(*error)

    def are_read(self, values: Any) -> None:
        self.from_host |= any(address(t) in self._host for t in tree_leaves(values) if isinstance(t, Tensor))

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        if not function.is_view:
            given = args[1:] if function in WRITES else args
            found = function(*args, **(kwargs or {}))
            if self._host and not (function in ASKS or (function in COPIES and found.device.type != "cpu")):
                self.are_read((given, kwargs))
            self.places.update(address(t) for t in tree_leaves((given, kwargs)) if isinstance(t, Tensor))
            return found
        return function(*args, **(kwargs or {}))


class _Values(TorchFunctionMode):
    """Tells of values that Python takes from tensors without an operation."""

    def __init__(self, reads: Reads):
        super().__init__()
        self._reads = reads

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        if getattr(function, "__name__", "") in ("tolist", "numpy", "__array__", "__dlpack__", "data_ptr"):
            self._reads.are_read(args)
        return function(*args, **(kwargs or {}))


def beyond_kernels(state: State, device: torch.device, read: Collection[int | None] = ()) -> str | None:
    """The name of something that changed since, other than by writes into tensors on that device of which there are
    copies. A tensor may have been replaced by another one, unless it is in memory that was `read`: the next step would
    have to read the other."""
    for name, before, now in state.changes():
        if not _replaced(before, now, read):
            return name
    return state.changed_tensor(device)


def _replaced(before: Any, now: Any, read: Collection[int | None]) -> bool:
    """Did tensors alone change, that were not read?"""
    if before is now:
        return True
    if isinstance(before, Tensor) and isinstance(now, Tensor):
        return (place := address(before)) is not None and place not in read
    if isinstance(before, dict) and isinstance(now, dict):
        return before.keys() == now.keys() and all(_replaced(before[k], now[k], read) for k in before)
    if isinstance(before, list | tuple) and type(before) is type(now) and len(before) == len(now):
        return all(_replaced(b, n, read) for b, n in zip(before, now, strict=True))
    return same(before, now, exact=False)
