"""One recorded call of a torch function: what is needed to run it again with other values in it."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch._C import _is_any_autocast_enabled
from torch.nn import Parameter
from torch.overrides import resolve_name
from torch.utils._pytree import tree_leaves


def tensors_in(tree: Any) -> list[Tensor]:
    """The tensors in nested tuples, lists and mappings, in order. (pytree does the same at four times the cost.)"""
    found: list[Tensor] = []
    for item in tree.values() if type(tree) is dict else tree:
        kind = type(item)
        if kind is Tensor or kind is Parameter:
            found.append(item)
        elif kind in _PLAIN:
            continue
        elif isinstance(item, Tensor):
            found.append(item)
        elif item and isinstance(item, _NESTS):
            found += tensors_in(item)
    return found


def tensors_of(batch: Any) -> list[Tensor]:
    """The tensors of a batch, in order, whatever it is made of; plain nests are walked without pytree."""
    if type(batch) not in _NESTS:
        return [leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)]
    found: list[Tensor] = []
    for item in batch.values() if type(batch) is dict else batch:
        if type(item) is Tensor:
            found.append(item)
        elif type(item) not in _PLAIN:
            found += tensors_of(item)
    return found


_NESTS = (tuple, list, dict)
_PLAIN = frozenset({int, float, bool, str, type(None)})


def substituted(tree: Any, new: Callable[[Tensor], Any]) -> Any:
    """The same nest of tuples, lists and mappings with every tensor replaced by `new` of it."""
    if isinstance(tree, Tensor):
        return new(tree)
    if isinstance(tree, dict):
        return {k: substituted(v, new) for k, v in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(substituted(v, new) for v in tree))
    if isinstance(tree, tuple | list):
        return type(tree)(substituted(v, new) for v in tree)
    return tree


def outputs_of(out: Any) -> list[Tensor]:
    """The tensors a call returned: one, or those of a tuple."""
    return [out] if isinstance(out, Tensor) else tensors_in(out) if isinstance(out, _NESTS) else []


@lru_cache(maxsize=1024)
def function_name(function: Callable) -> str:
    return (resolve_name(function) or getattr(function, "__name__", str(function))).removeprefix("torch.")


_IN_PLACE_WORDS = {"__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__ipow__", "__imatmul__"}


@lru_cache(maxsize=1024)
def _always_in_place(function: Callable) -> bool:
    name = getattr(function, "__name__", "")
    return name in _IN_PLACE_WORDS or (name.endswith("_") and not name.endswith("__"))


@lru_cache(maxsize=1024)
def _in_place_argument(function: Callable) -> int | None:
    """Where a Python functional takes its `inplace` flag."""
    try:
        return list(inspect.signature(function).parameters).index("inplace")
    except (TypeError, ValueError):
        return None


def writes_first(function: Callable, args: tuple, kwargs: dict) -> bool:
    """Does this call write into its first argument?"""
    if _always_in_place(function):
        return True
    where = _in_place_argument(function)
    return where is not None and bool(kwargs.get("inplace", len(args) > where and args[where]))


class RandomState:
    """The generator states that an operation on a device may draw from. While a CUDA graph is captured the device's
    cannot be read: `capture` refuses what draws."""

    def __init__(self, device: torch.device):
        self._cpu = torch.get_rng_state()
        readable = device.type == "cuda" and not torch.cuda.is_current_stream_capturing()
        self._cuda = (device, torch.cuda.get_rng_state(device)) if readable else None

    def moved(self) -> bool:
        """Has anything been drawn since?"""
        if not torch.equal(self._cpu, torch.get_rng_state()):
            return True
        return self._cuda is not None and not torch.equal(self._cuda[1], torch.cuda.get_rng_state(self._cuda[0]))

    def restore(self) -> None:
        torch.set_rng_state(self._cpu)
        if self._cuda is not None:
            torch.cuda.set_rng_state(self._cuda[1], self._cuda[0])


@dataclass(slots=True)
class Call:
    """A call with its arguments as they were: the first is a copy where the call writes into it."""

    function: Callable
    args: tuple
    kwargs: dict
    in_place: bool
    autocast: tuple[str, torch.dtype] | None  # device type and dtype of the autocast region it ran in
    random: RandomState | None = None  # where it drew random numbers: the state before
    original: Tensor | None = None  # the first argument itself, where `args` holds its copy

    @staticmethod
    def of(function: Callable, args: tuple, kwargs: dict) -> "Call":
        in_place = writes_first(function, args, kwargs)
        original = args[0] if in_place else None
        if in_place:
            args = (args[0].detach().clone(), *args[1:])
        autocast = None
        if _is_any_autocast_enabled():
            device = next((t.device.type for t in tensors_in(args)), "cpu")
            autocast = (device, torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else None
        return Call(function, args, kwargs, in_place, autocast, None, original)

    def tensors(self) -> list[Tensor]:
        return tensors_in((self.args, self.kwargs))

    def replay(self, new: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """Run it again with `new(t)` for every tensor argument t, drawing the same random numbers; its tensors out."""
        args, kwargs = substituted(self.args, new), substituted(self.kwargs, new)
        if self.in_place:
            args = (args[0].clone(), *args[1:])
        if self.random is not None:
            now = RandomState(next(t.device for t in self.tensors()))
            self.random.restore()
        device, dtype = self.autocast or ("cpu", None)
        try:
            with torch.autocast(device, dtype, enabled=self.autocast is not None, cache_enabled=False):
                out = self.function(*args, **kwargs)
        finally:
            if self.random is not None:
                now.restore()
        return outputs_of(args[0] if self.in_place and out is None else out)
