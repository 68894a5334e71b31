"""What modules and functions hold besides parameters and buffers: found by a walk, saved, compared, put back."""

from __future__ import annotations

import array
import enum
import random
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from operator import is_
from types import BuiltinFunctionType, CellType, FunctionType, GeneratorType, MethodType, ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

PLAIN = frozenset({int, float, bool, str, bytes, complex, type(None), torch.Size, torch.dtype, torch.device})
THINGS = 10_000  # the most that one walk visits: nearest first
ITEMS, FEW = 200_000, 256  # of larger collections only the length is watched: in a whole walk; in a short one

Path = tuple[str, ...]  # the names of what a thing is reached through, and its own


class Kind(NamedTuple):
    """How the content of a thing is read, as a copy, and put back. write: None where that is impossible."""

    read: Callable[[Any], Any]
    write: Callable[[Any, Any], None] | None
    item: str  # how an item is named
    size: Callable[[Any], int] = lambda thing: 0


@dataclass(slots=True, eq=False)
class Held:
    """A thing and its content; `watched`: of which only the size is known."""

    path: Path
    thing: Any
    kind: Kind
    saved: Any
    watched: bool = False

    def moved(self, exact: bool = True) -> bool:
        """exact: see `same`."""
        return not same(self.now(), self.saved, exact)

    def now(self) -> Any:
        return (self.kind.size if self.watched else self.kind.read)(self.thing)

    def put(self) -> bool:
        """Returns whether the content is now as it was."""
        if not self.moved(exact=False):
            return True
        if self.watched or self.kind.write is None:
            return False
        self.kind.write(self.thing, self.saved)
        return True


def walk(roots: Iterable[tuple[str, Any]], seen: set[int], whole: bool, known: set[str]
         ) -> tuple[list[Held], list[tuple[Path, Tensor]]]:  # fmt: skip
    """All that can be reached from the roots and is not `seen` (ids; to which it is added), and the tensors in it. If
    not `whole`, only the roots and what has a `known` name."""
    found: list[Held] = []
    tensors: list[tuple[Path, Tensor]] = []
    pending = deque(((name,), thing) for name, thing in roots)
    while pending and len(found) < THINGS:
        path, thing = pending.popleft()
        if id(thing) in seen:
            continue
        if isinstance(thing, Tensor):
            seen.add(id(thing))
            tensors.append((path, thing))
            continue
        if not whole and len(path) > 1 and path[-1] not in known:
            continue
        seen.add(id(thing))
        for kind in kinds(type(thing)):
            try:
                size = kind.size(thing)
                watched = size > (ITEMS if whole else FEW) and path[-1] not in known
                content = size if watched else kind.read(thing)
            except Exception:  # a class that cannot be read like those it derives from
                continue
            if watched:
                found.append(Held(path, thing, kind, content, watched))
                continue
            items = content.items() if isinstance(content, dict) else enumerate(content) if kind.item else ()
            items = [(key, item) for key, item in items if type(item) not in PLAIN]
            if any(type(item).__module__ in ("_thread", "threading") for _, item in items):
                continue  # other threads change it
            found.append(Held(path, thing, kind, content))
            pending += [((*path, path[-1] + kind.item.format(key)), item) for key, item in items]
    return found, tensors


def same(a: Any, b: Any, exact: bool = True) -> bool:
    """Are two contents equal, to the last bit? Unless `exact`, two tensors on a GPU are not, whose comparison waits."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        return (exact or not a.is_cuda) and equal(a, b)
    if isinstance(a, dict):
        if a.keys() != b.keys():
            return False
        return all(map(is_, a.values(), b.values())) or all(same(v, b[k], exact) for k, v in a.items())
    if isinstance(a, list | tuple):
        return len(a) == len(b) and (all(map(is_, a, b)) or all(same(x, y, exact) for x, y in zip(a, b, strict=True)))
    if type(a) in PLAIN:
        return bool(a == b or (a != a and b != b))
    if (np := sys.modules.get("numpy")) is not None and isinstance(a, np.ndarray):
        return (a.shape, a.dtype, a.tobytes()) == (b.shape, b.dtype, b.tobytes())
    return isinstance(a, set | bytearray | array.array | MethodType) and bool(a == b)


@torch.no_grad()
def equal(a: Tensor, b: Tensor) -> bool:
    """nan is equal to nan. Waits for a GPU where shapes agree."""
    if not is_comparable(a) or not is_comparable(b):
        return a is b
    if not _can_be_compared(a, b):
        return False
    a, b = (t if t.layout == torch.strided else t.to_dense() for t in (a, b))
    if not a.is_cuda and torch.equal(a, b):
        return True
    alike = (a == b) | (a.isnan() & b.isnan()) if a.is_floating_point() else a == b
    return bool(alike.all())


@torch.no_grad()
def all_equal(pairs: Sequence[tuple[Tensor, Tensor]]) -> list[bool]:
    """`equal` of each pair: a GPU is waited for once, and again for those that differ."""
    flags: dict[torch.device, dict[int, Tensor]] = {}
    for i, (a, b) in enumerate(pairs):
        strided = a.is_cuda and a.layout == b.layout == torch.strided
        if strided and is_comparable(a) and is_comparable(b) and _can_be_compared(a, b):
            flags.setdefault(a.device, {})[i] = (a == b).all()
    read: dict[int, bool] = {}
    for some in flags.values():
        read |= zip(some, torch.stack([*some.values()]).tolist(), strict=True)
    return [read.get(i, False) or equal(a, b) for i, (a, b) in enumerate(pairs)]


def _can_be_compared(a: Tensor, b: Tensor) -> bool:
    if (a.shape, a.dtype, a.device) != (b.shape, b.dtype, b.device):
        return False
    return not (a.is_cuda and torch.cuda.is_current_stream_capturing())


def is_comparable(t: Tensor) -> bool:
    """Have its values a plain layout, and memory?"""
    return not t.is_nested and not t.is_meta and t.layout != torch.jagged


# internals of torch and things that their own threads change
_FOREIGN = ("torch._", "torch.fx", "torch.jit", "torch.optim", "torch.utils.data", "torch.distributed", "threading",
            "_thread", "queue", "logging", "multiprocessing", "concurrent", "asyncio", "weakref")  # fmt: skip
_FIXED = (type, ModuleType, BuiltinFunctionType, enum.Enum, range, slice, frozenset, random.SystemRandom)


@cache
def kinds(of: type) -> tuple[Kind, ...]:
    """How the content of things of this type is read; none where nothing in them changes."""
    if of in PLAIN or issubclass(of, _FIXED):
        return ()
    found = [kind for base, kind in (*_KINDS, *_numpy_kinds()) if issubclass(of, base)][:1]
    if not found and of.__module__.startswith(_FOREIGN):
        return ()
    if issubclass(of, Iterator) and of.__module__ == "itertools":
        found = [Kind(_iterator, None, "")]
    if of.__dictoffset__ and of not in (FunctionType, partial):
        found.append(Kind(lambda thing: dict(vars(thing)), _put_fields, ".{}"))
    if slots := [name for base in of.__mro__ for name in _slots(base)]:
        found.append(Kind(lambda thing: {s: getattr(thing, s) for s in slots if hasattr(thing, s)}, _put_slots, ".{}"))
    return tuple(found)


def _slots(base: type) -> list[str]:
    names = base.__dict__.get("__slots__", ()) if base.__module__ != "builtins" else ()
    return [s for s in ([names] if isinstance(names, str) else names) if not s.startswith("__")]


def _variables(function: FunctionType) -> dict[str, Any]:
    """What a function shares with the one around it, its defaults and its attributes."""
    if (function.__module__ or "").startswith("torch."):
        return {}
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    found = {name: cell.cell_contents for name, cell in cells if cell != _UNSET}
    defaults = {f"default {i}": value for i, value in enumerate(function.__defaults__ or ())}
    return found | defaults | (function.__kwdefaults__ or {}) | {"attributes": vars(function)}


def _put_variables(function: FunctionType, saved: dict[str, Any]) -> None:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        if name in saved:
            cell.cell_contents = saved[name]
        elif cell != _UNSET:
            del cell.cell_contents


def _put_fields(thing: Any, saved: dict[str, Any]) -> None:
    now = vars(thing)
    for name in now.keys() - saved.keys():
        del now[name]
    now.update(saved)


def _put_slots(thing: Any, saved: dict[str, Any]) -> None:
    for name, value in saved.items():
        object.__setattr__(thing, name, value)


def _put_dict(thing: dict, saved: dict) -> None:
    thing.clear()
    for key, value in saved.items():
        thing[key] = value


def _put_set(thing: set, saved: set) -> None:
    thing.clear()
    thing.update(saved)


def _put_deque(thing: deque, saved: list) -> None:
    thing.clear()
    thing.extend(saved)


def _put_list(thing: Any, saved: Any) -> None:
    thing[:] = saved


def _frame(generator: GeneratorType) -> tuple:
    frame = generator.gi_frame
    return () if frame is None else (frame.f_lasti, dict(frame.f_locals))


def _iterator(iterator: Any) -> tuple:
    """Where it stands; empty where the iterator does not tell."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            return iterator.__reduce__()
        except TypeError:
            return ()


def _numpy_kinds() -> list[tuple[type, Kind]]:
    if (np := sys.modules.get("numpy")) is None:
        return []
    rng = np.random
    return [
        (np.ndarray, Kind(lambda a: a.copy(), lambda a, saved: np.copyto(a, saved), "", lambda a: a.nbytes >> 10)),
        (rng.RandomState, Kind(lambda r: r.get_state(legacy=False), lambda r, saved: r.set_state(saved), "")),
        (rng.Generator, Kind(lambda r: r.bit_generator.state, lambda r, s: setattr(r.bit_generator, "state", s), "")),
        (rng.BitGenerator, Kind(lambda r: r.state, lambda r, saved: setattr(r, "state", saved), "")),
    ]


_UNSET = CellType()
_KINDS: tuple[tuple[type, Kind], ...] = (
    (list, Kind(list, _put_list, "[{}]", len)),
    (dict, Kind(dict, _put_dict, "[{!r}]", len)),
    (tuple, Kind(tuple, None, "[{}]", len)),
    (set, Kind(set, _put_set, "", len)),
    (deque, Kind(list, _put_deque, "[{}]", len)),
    (bytearray, Kind(bytearray, _put_list, "", len)),
    (array.array, Kind(lambda a: a[:], _put_list, "", len)),
    (FunctionType, Kind(_variables, _put_variables, ".{}")),
    (MethodType, Kind(lambda m: (m.__self__, m.__func__), None, "({})")),
    (partial, Kind(lambda p: (p.func, *p.args, *p.keywords.values()), None, "({})")),
    (GeneratorType, Kind(_frame, None, "")),
    (torch.Generator, Kind(torch.Generator.get_state, torch.Generator.set_state, "")),
    (random.Random, Kind(random.Random.getstate, random.Random.setstate, "")),
)
