"""A model's state, saved before a forward and restored after it, so that scoring does not change the model."""

from __future__ import annotations

import ctypes
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from fastrw import learned
from fastrw.errors import Refused
from fastrw.state.copies import copies, put_back
from fastrw.state.held import PLAIN, Held, Path, all_equal, equal, is_comparable, same, walk
from fastrw.state.structure import Structure

KEPT, KEPT_HELD = 1 << 30, 1 << 27  # bytes of parameters, and of what else is held: more is not copied
SAMPLE = 16  # elements of a parameter that are compared where it is not copied ...
FEW_ELEMENTS = 1 << 16  # ... unless all parameters together have no more than these
FEW_THINGS = 32  # if modules and functions hold no more, they are walked in every call

HOOKS = ("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks",
         "_forward_pre_hooks_with_kwargs")  # fmt: skip
REGISTERS = ("_buffers", "_parameters", "_modules", *HOOKS)

_OWN = frozenset(vars(nn.Module()))  # the attributes of every module


class RandomState:
    """The states of torch's generators, on the CPU and on the CUDA devices among `devices`. The latter cannot be read
    during the capture of a CUDA graph: `capture` refuses models that draw random numbers."""

    def __init__(self, *devices: torch.device):
        self._cpu = torch.get_rng_state()
        cuda = [device for device in devices if device.type == "cuda"]
        if cuda and torch.cuda.is_current_stream_capturing():
            cuda = []
        self._cuda = [(device, torch.cuda.get_rng_state(device)) for device in cuda]

    def moved(self) -> bool:
        """Have random numbers been drawn since?"""
        if _bytes(self._cpu) != _bytes(torch.get_rng_state()):
            return True
        return any(_bytes(before) != _bytes(torch.cuda.get_rng_state(device)) for device, before in self._cuda)

    def rewind(self) -> None:
        for device, before in self._cuda:
            torch.cuda.set_rng_state(before, device)
        torch.set_rng_state(self._cpu)


def _bytes(state: Tensor) -> bytes:
    """Of the state of a generator, which lies on the host whatever the generator is for."""
    return ctypes.string_at(state.data_ptr(), state.nbytes)


class State:
    """A snapshot of everything that a forward of a model may change: buffers, attributes of its modules and what they
    hold (collections, arrays, generators, objects, other modules), what the `functions` hold that compute the losses,
    parameters, and all random states. `rewind` restores it.

    Copies of everything are made around the 1st, 2nd, 4th, ... call (`whole`). Around the others, only of what is cheap
    (buffers, attributes) or was found to change. Where something else changes nevertheless, `rewind` raises Refused,
    and the next call is exact. within: a snapshot that this one is taken within the same call as; whole: False where
    the call must not be one of those.

    Tensors are restored through `.data`: batch_norm updates its running statistics without a version bump, and so must
    this, or the backward of a live graph would raise.
    """

    def __init__(self, structure: Structure, functions: Iterable[Any] = (), within: State | None = None,
                 whole: bool | None = None):  # fmt: skip
        modules = structure.modules
        table = learned.table(modules[""], "what forwards change")
        self._seen = seen = table.get("") or table.put("", _Seen())
        if whole is None:
            whole = within.whole if within is not None else seen.next_is_whole()
        self.whole = whole
        self._registers = _Dicts()  # the buffers, parameters, modules and hooks of each module
        self._attributes = _Dicts()
        everything = [*zip(modules, map(vars, modules.values()), strict=True)]
        hooked = [bool(own["_forward_hooks"] or own["_forward_pre_hooks"]) for _, own in everything]
        self._unhooked = [own for (_, own), has in zip(everything, hooked, strict=True) if not has]
        # the forwards of torch's own modules change only buffers, unless a user's hook does otherwise
        quiet, others = [], everything if whole else []
        if not whole:
            for one, has, torchs in zip(everything, hooked, structure.from_torch, strict=True):
                (quiet if torchs and not has and one[0] not in seen.names else others).append(one)
        self._attributes.extend(quiet)
        for name in ("_buffers", "_parameters", "_modules"):
            self._registers.extend([(at, own[name]) for at, own in quiet if own[name]])
        roots: list[tuple[str, Any]] = []
        for at, own in others:
            things = [(f"{at}.{k}" if at else k, own[k]) for k in _names(own) if type(own[k]) not in PLAIN]
            self._attributes.add(at, own, bool(things))
            for name in REGISTERS:
                if isinstance(own[name], dict) and (own[name] or whole):  # not those of a scripted module
                    self._registers.add(at, own[name], name == "_buffers")
            roots += things
            if whole or own["_forward_hooks"] or own["_forward_pre_hooks"]:
                hooks = (*own["_forward_hooks"].values(), *own["_forward_pre_hooks"].values())
                roots += [(f"a hook of {at or 'the model'}", hook) for hook in hooks]
        named = structure.places
        buffers = {id(b): b for _, own in everything for b in own["_buffers"].values() if b is not None}
        visited = {*structure.ids, *buffers}
        for function in functions:  # a method: what its object holds
            function = getattr(function, "__self__", function)
            roots.append((getattr(function, "__name__", type(function).__name__), function))
        far = whole or (seen.things is not None and seen.things <= FEW_THINGS)
        self._held, held = walk(roots, visited, far, seen.names)
        if whole:
            seen.things = len(self._held) + len(held)
        limited = [modules[at].weight for at, own in everything if own.get("max_norm") is not None]
        copied: list[tuple[Path, Tensor]] = [((), t) for t in (*buffers.values(), *limited) if is_comparable(t)]
        watched: list[tuple[Path, Tensor]] = [(("a buffer",), b) for b in buffers.values() if not is_comparable(b)]
        left = KEPT_HELD if whole else FEW_ELEMENTS
        for path, t in held:
            fits = far and is_comparable(t) and t.nbytes <= left  # nested tensors do not tell
            left -= t.nbytes if fits else 0
            kept = (len(path) == 1 or path[-1] in seen.names or fits) and t.grad_fn is None and is_comparable(t)
            (copied if kept else watched).append((path, t))
        values = copies([t for _, t in copied])
        self._tensors = [_Tensor(path, t, value) for (path, t), value in zip(copied, values, strict=True)]
        self._tensors += [_Tensor(path, t, None) for path, t in watched]
        self._parameters = _Parameters(list(named.values()), seen, whole)
        # (a device costs more to read)
        places = {t.get_device(): t for t in (*self._parameters.all, *buffers.values())}
        self._random = RandomState(*{t.device for t in places.values()})
        self._python = random.getstate()
        self._numpy = sys.modules["numpy"].random.get_state() if "numpy" in sys.modules else None

    def moved(self, bits: bool = False) -> bool:
        """Has a forward changed anything since? Ignores random states; unless `bits`, also writes to a tensor without a
        version bump, like those of batch_norm."""
        return (
            bool(self._registers.changed())
            or bool(self._attributes.changed())
            or any(_moved(self._tensors, lambda t: bits))
            or any(held.moved() for held in self._held)
            or bool(self._parameters.written())
        )

    def drawn(self) -> bool:
        """Have the generators of torch, Python or numpy been drawn from since?"""
        if self._random.moved() or random.getstate() != self._python:
            return True
        return self._numpy is not None and not same(sys.modules["numpy"].random.get_state(), self._numpy)

    def changes(self) -> Iterator[tuple[str, Any, Any]]:
        """(name, content before, content now) of what modules and functions hold, where these differ."""
        for at, now, before in self._attributes.changed():
            yield from ((f"{at}.{k}" if at else k, before.get(k), now.get(k)) for k in {**before, **now})
        yield from ((held.path[-1], held.saved, held.now()) for held in self._held if held.moved())

    def changed_tensor(self, device: torch.device) -> str | None:
        """The name of a buffer or module that was replaced since, or of a tensor that was written to and is not on that
        device, or of which there is no copy."""
        others = [t for t in self._tensors if t.tensor.device != device or t.value is None]
        found = [f"{at}.{k}" if at else k for at, now, before in self._registers.changed()
                 for k in {**before, **now} if before.get(k) is not now.get(k)]  # fmt: skip
        found += [t.path[-1] if t.path else "a buffer" for t in others if t.written()]
        return next(iter([*found, *self._parameters.lost()]), None)

    def copied(self) -> list[tuple[Tensor, Tensor]]:
        """(tensor, its copy) of all that is put back."""
        found = [(t.tensor, t.value) for t in self._tensors if t.value is not None]
        return found + self._parameters.copied()

    def undo(self) -> None:
        """Restores everything, as far as possible, after an error, which is the one to report."""
        with suppress(Exception):
            self.rewind()

    def rewind(self) -> None:
        """Restores everything, as far as possible, before it raises an error."""
        failed: list[Exception] = []
        lost: list[str] = []
        for at, now, before in (*self._registers.changed(False), *self._attributes.changed(False)):
            self._seen.names.add(at)
            now.clear()
            now.update(before)
        for own in self._unhooked:  # some forwards install hooks, and note it in an attribute
            if own["_forward_hooks"] or own["_forward_pre_hooks"]:
                for name in HOOKS:
                    own[name].clear()
        for thing in self._changed_anew():
            self._seen.names.update(thing.path)
        for thing in self._held:
            try:
                if not thing.put():
                    lost.append(thing.path[-1])
            except Exception as error:  # restore the others nevertheless
                failed.append(error)
        lost += [t.path[-1] for t in self._tensors if t.value is None and t.written()]
        failed += put_back([(t.tensor, t.value) for t in self._tensors if t.value is not None])
        lost += self._parameters.put()
        self._random.rewind()
        random.setstate(self._python)
        if self._numpy is not None:
            sys.modules["numpy"].random.set_state(self._numpy)
        if lost:
            raise Refused(
                "fastrw.state: two forwards must start from one state, got a forward that changes "
                f"{sorted(lost)[0]!r} in a way that cannot be put back (compute both losses in one forward, for "
                "fastrw.backward)"
            )
        if failed:
            raise failed[0]

    def _changed_anew(self) -> list[Held | _Tensor]:
        """Things that were not known to change, and did. Comparing waits for a GPU: only around some calls."""
        with suppress(Exception):
            held, tensors = ([t for t in some if t.path and t.path[-1] not in self._seen.names]
                             for some in (self._held, self._tensors))  # fmt: skip
            moved = _moved(tensors, lambda t: self.whole or not t.tensor.is_cuda)
            written = [t for t, changed in zip(tensors, moved, strict=True) if changed]
            return [t for t in held if t.moved(exact=False)] + written
        return []


class _Seen:
    """What the forwards of a model were seen to change."""

    def __init__(self):
        self.calls = 0
        self.names: set[str] = set()  # of things, and of all that they are reached through
        self.watched: tuple[list[int], dict[str, Tensor]] = ([], {})  # addresses of parameters; views of elements
        self.things: int | None = None  # found by the last whole walk

    def next_is_whole(self) -> bool:
        self.calls += 1
        if self.calls & (self.calls - 1):
            return False
        return not (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing())


class _Dicts:
    """Dictionaries of modules, and copies of them."""

    def __init__(self) -> None:
        self._names: list[str] = []  # of the modules
        self._now: list[dict[str, Any]] = []
        self._before: list[dict[str, Any]] = []
        self._slow: list[tuple[str, dict, dict]] = []  # that may hold a tensor, however deep: == may wait for a GPU

    def add(self, at: str, now: dict[str, Any], slow: bool = False) -> None:
        if slow:
            self._slow.append((at, now, now.copy()))
            return
        self._names.append(at)
        self._now.append(now)
        self._before.append(now.copy())

    def extend(self, some: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """`add` for each, where == does not wait."""
        self._names += [at for at, _ in some]
        self._now += [now for _, now in some]
        self._before += [now.copy() for _, now in some]

    def changed(self, exact: bool = True) -> list[tuple[str, dict, dict]]:
        """(module's name, dictionary, its copy) where other things stand. exact: see `same`."""
        found = [one for one in self._slow if not same(*one[1:], exact)]
        with suppress(Exception):  # tensors have no truth value
            if self._now == self._before:  # the usual case, fast
                return found
        everything = zip(self._names, self._now, self._before, strict=True)
        return found + [(at, now, before) for at, now, before in everything if not same(now, before, exact)]


class _Tensor:
    """A tensor; a copy of it, or None, and its version."""

    __slots__ = ("path", "tensor", "value", "version")

    def __init__(self, path: Path, tensor: Tensor, value: Tensor | None):
        self.path, self.tensor, self.value = path, tensor, value
        self.version = _version(tensor)

    def written(self) -> bool:
        return _version(self.tensor) != self.version


def _moved(tensors: Sequence[_Tensor], bits: Callable[[_Tensor], bool]) -> list[bool]:
    """Which of them were written to, and where `bits` which of them have another value: batch_norm and writes through
    `.data` leave the version."""
    found = [t.written() for t in tensors]
    kept = [i for i, t in enumerate(tensors) if not found[i] and t.value is not None and bits(t)]
    for i, alike in zip(kept, all_equal([(tensors[i].tensor, tensors[i].value) for i in kept]), strict=True):
        found[i] = not alike
    return found


class _Parameters:
    """The parameters, by name. Copied are all of them in a `whole` snapshot, else those that were seen to be written.
    Of the others, versions and addresses are watched, and, on a CPU, some elements, because writes through `.data` have
    no version: all elements, if they are few."""

    def __init__(self, named: Sequence[tuple[str, Tensor]], seen: _Seen, whole: bool):
        self._seen = seen
        self._compares = whole  # also on a GPU, which waits; else what is copied there counts as written
        whole = whole and sum(p.nbytes for _, p in named) <= KEPT
        self._names, self.all = [name for name, _ in named], [p for _, p in named]
        self._versions, self._places = self._stand()
        copied = named if whole else [] if seen.names.isdisjoint(self._names) else named
        self._kept = {name: (p, p.detach().clone()) for name, p in copied if whole or name in seen.names}
        self._views: dict[str, Tensor] = {} if whole else self._watched()
        self._before = torch.cat([*self._views.values()]) if self._views else None

    def _stand(self) -> tuple[list[int], list[int]]:
        """Their versions, and where they lie."""
        return [p._version for p in self.all], [p.data_ptr() for p in self.all]

    def _touched(self) -> list[str]:
        """The names of those that have another version, or lie elsewhere."""
        versions, places = self._stand()
        if versions == self._versions and places == self._places:  # the usual case, fast
            return []
        then, now = zip(self._versions, self._places, strict=True), zip(versions, places, strict=True)
        return [name for name, a, b in zip(self._names, then, now, strict=True) if a != b]

    def written(self) -> set[str]:
        """The names of those written since."""
        found = set(self._touched())
        copied = [(name, p, kept) for name, (p, kept) in self._kept.items() if name not in found]
        found |= {name for name, p, _ in copied if p.is_cuda and not self._compares}
        copied = [one for one in copied if one[0] not in found]
        equals = all_equal([(p, kept) for _, p, kept in copied]) if copied else []
        found |= {name for (name, *_), same in zip(copied, equals, strict=True) if not same}
        if self._before is None or equal(torch.cat([*self._views.values()]), self._before):
            return found
        return found | {name for name, (now, before) in self._compared().items() if not equal(now, before)}

    def copied(self) -> list[tuple[Tensor, Tensor]]:
        return [*self._kept.values()]

    def lost(self) -> list[str]:
        """The names of those that were written and not copied."""
        return [name for name in self._touched() if name not in self._kept]

    def put(self) -> list[str]:
        """Restores those that the forward wrote (a momentum encoder, a clamp). Returns the names of the others."""
        written, lost, back = self.written(), [], []
        self._seen.names |= written
        values = self._compared() if written and self._views else {}
        for name, p, place in zip(self._names, self.all, self._places, strict=True):
            if name not in written:
                continue
            if name in self._kept:
                back.append(self._kept[name])
            elif name not in values or not self._put_back(p, place, *values[name]):
                lost.append(name)
        for error in put_back(back):
            raise error
        return lost

    def _put_back(self, p: Tensor, place: int, now: Tensor, before: Tensor) -> bool:
        """now, before: the watched elements at the address that the parameter had."""
        if not equal(now, before):
            if len(now) != p.numel():
                return False
            now.copy_(before)
        elif p.data_ptr() == place and len(now) != p.numel():
            return False
        if p.data_ptr() != place:
            p.data = now.new_empty(0).set_(now.untyped_storage(), now.storage_offset(), p.shape, p.stride())
        return True

    def _compared(self) -> dict[str, tuple[Tensor, Tensor]]:
        assert self._before is not None
        parts = self._before.split([len(view) for view in self._views.values()])
        return {name: (view, part) for (name, view), part in zip(self._views.items(), parts, strict=True)}

    def _watched(self) -> dict[str, Tensor]:
        if self._seen.watched[0] != self._places:
            few = sum(p.numel() for p in self.all) <= FEW_ELEMENTS
            named = zip(self._names, self.all, strict=True)
            self._seen.watched = self._places, {name: _elements(p, few) for name, p in named if _is_watchable(p)}
        return self._seen.watched[1]


def _is_watchable(p: Tensor) -> bool:
    """A tensor on a CPU (comparing does not wait for a GPU) with memory of its own, in one piece?"""
    dense = type(p) is nn.Parameter and p.device.type == "cpu" and p.layout == torch.strided
    return dense and p.numel() > 0 and torch.empty_like(p).stride() == p.stride()


def _elements(p: Tensor, every: bool) -> Tensor:
    flat = p.detach().as_strided((p.numel(),), (1,))
    return flat if every else flat[:: p.numel() // SAMPLE | 1]


def _names(own: dict[str, Any]) -> list[str]:
    """The attributes of a module that are not those of every module: these come first, unless something is odd."""
    names = [*own]
    if len(names) >= len(_OWN) and names[0] == "training" and names[len(_OWN) - 1] in _OWN:
        return names[len(_OWN) :]
    return [k for k in names if k not in _OWN]


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version
