"""A model's state, saved before a forward and restored after it, so that scoring does not change the model."""

from __future__ import annotations

import random
import sys
from collections import OrderedDict
from collections.abc import Collection
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from fastrw import learned
from fastrw.errors import Refused

KEPT = 1 << 30  # bytes: larger sets of parameters are not copied to detect writes

_PLAIN = frozenset({int, float, bool, str, type(None), complex})
_COLLECTIONS = frozenset({dict, OrderedDict, set, list, tuple})


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
        if not torch.equal(self._cpu, torch.get_rng_state()):
            return True
        return any(not torch.equal(before, torch.cuda.get_rng_state(device)) for device, before in self._cuda)

    def rewind(self) -> None:
        for device, before in self._cuda:
            torch.cuda.set_rng_state(before, device)
        torch.set_rng_state(self._cpu)


class State:
    """A snapshot of everything that a forward of a model may change: buffers; tensors, generators and plain values in
    attributes of its modules; parameters, if the model's forward is known to write them; and all random states.
    `rewind` restores it.

    Tensors are restored through `.data`: batch_norm updates its running statistics without a version bump, and so must
    this, or the backward of a live graph would raise.
    """

    def __init__(self, named_modules: dict[str, nn.Module]):
        modules = named_modules.values()
        self._owners = [(module._buffers, dict(module._buffers)) for module in modules]
        own = [vars(module) for module in modules if not _has_no_state(module)]
        self._attributes = [(now, {k: v for k, v in now.items() if _is_state(v)}, now.keys() | ()) for now in own]
        held = [v for _, found, _ in self._attributes for v in found.values()]
        tensors = [b for _, before in self._owners for b in before.values() if b is not None]
        tensors += [v for v in held if isinstance(v, Tensor)]
        tensors += [m.weight for m in modules if vars(m).get("max_norm") is not None]  # renormed in place
        self._tensors = [(t, t.detach().clone(), t._version) for t in tensors]
        self._generators = [(v, v.get_state()) for v in held if isinstance(v, torch.Generator)]
        named = {
            id(p): (f"{at}.{k}", p)
            for at, m in named_modules.items()
            for k, p in m._parameters.items()
            if p is not None
        }.values()
        table = learned.table(named_modules[""], "parameters written")
        self._seen = table.get("") or table.put("", _Seen())
        wanted = self._seen.next(named)
        self._parameters = [
            (name, p, p._version, p.data_ptr(), p.detach().clone() if name in wanted else None) for name, p in named
        ]
        self._random = RandomState(*{t.device for t in (*(p for _, p in named), *tensors)})
        self._python = random.getstate()
        self._numpy = sys.modules["numpy"].random.get_state() if "numpy" in sys.modules else None

    def moved(self) -> bool:
        """Has a forward changed anything since? Ignores random states, and writes without a version bump, like those of
        batch_norm, which only `buffers_moved` detects."""
        if any([*map(id, now.values())] != [*map(id, before.values())] for now, before in self._owners):
            return True
        if any(now.get(k, self) is not v for now, before, _ in self._attributes for k, v in before.items()):
            return True
        if any(t._version != version for t, _, version in self._tensors) or self._written():
            return True
        return any(not torch.equal(g.get_state(), before) for g, before in self._generators)

    def buffers_moved(self) -> bool:
        """Has a forward changed anything, even one bit of a tensor?"""
        return self.moved() or not all(_equal(tensor, value) for tensor, value, _ in self._tensors)

    def rewind(self) -> None:
        """Restores everything, as far as possible, before it raises an error."""
        failed: list[Exception] = []
        for now, before in self._owners:
            if [*map(id, now.values())] != [*map(id, before.values())]:
                now.clear()
                now.update(before)
        for now, before, names in self._attributes:
            for k in now.keys() - names:
                del now[k]
            for k, v in before.items():
                if now.get(k, self) is not v:
                    now[k] = v
        for tensor, value, _ in self._tensors:
            try:
                _put(tensor, value)
            except Exception as error:  # restore the others nevertheless
                failed.append(error)
        failed += self._put_parameters()
        for generator, before in self._generators:
            generator.set_state(before)
        self._random.rewind()
        random.setstate(self._python)
        if self._numpy is not None:
            sys.modules["numpy"].random.set_state(self._numpy)
        if failed:
            raise failed[0]

    def _written(self) -> dict[str, tuple[nn.Parameter, Tensor | None]]:
        """The parameters written since, by name, each with its saved value, if there is one."""
        return {
            name: (p, kept)
            for name, p, version, place, kept in self._parameters
            if (p._version, p.data_ptr()) != (version, place) or (kept is not None and not _equal(p, kept))
        }

    def _put_parameters(self) -> list[Exception]:
        """Restores the parameters that the forward wrote (a momentum encoder, a clamp), and records which."""
        written = self._written()
        self._seen.written |= written.keys()
        for p, kept in written.values():
            if kept is not None:
                p.data.copy_(kept)
        if lost := sorted(name for name, (_, kept) in written.items() if kept is None):
            return [Refused(
                "fastrw.state: a forward must not write its parameters, because two forwards start from one state, got "
                f"{lost[0]!r} written (compute both losses in one forward, for fastrw.backward)"
            )]  # fmt: skip
        return []


class _Seen:
    """Which parameters the forwards of a model write. To detect it, all are saved around the 1st, 2nd, 4th, ...
    forward; those found to be written are saved around every forward."""

    def __init__(self):
        self.forwards, self.written = 0, set()

    def next(self, parameters: Collection[tuple[str, nn.Parameter]]) -> set[str]:
        """The names of those to save."""
        due = self.forwards & (self.forwards - 1) == 0
        self.forwards += 1
        if due and sum(p.nbytes for _, p in parameters) <= KEPT:
            return {name for name, _ in parameters}
        return self.written


@cache
def _is_from_torch(kind: type) -> bool:
    return kind.__module__.startswith("torch.nn.modules.")


def _has_no_state(module: nn.Module) -> bool:
    """The forwards of torch's own modules change only buffers, unless a user's hook does otherwise."""
    return _is_from_torch(type(module)) and not (module._forward_hooks or module._forward_pre_hooks)


def _is_state(v: Any) -> bool:
    """Is this attribute of a module a tensor without a graph, a generator or a plain value?"""
    if type(v) in _COLLECTIONS:
        return False
    is_plain = type(v) in _PLAIN or isinstance(v, torch.Generator)
    return is_plain or (isinstance(v, Tensor) and v.grad_fn is None and not v.requires_grad)


def _equal(tensor: Tensor, value: Tensor) -> bool:
    if tensor.layout != torch.strided:
        tensor, value = tensor.to_dense(), value.to_dense()
    return tensor.shape == value.shape and torch.equal(tensor, value)


def _put(tensor: Tensor, value: Tensor) -> None:
    if tensor.layout != torch.strided or tensor.shape != value.shape or tensor.dtype != value.dtype:
        if not _equal(tensor, value):
            tensor.data = value  # resized, sparse
    elif 0 in tensor.stride() and tensor.numel() > 1:  # expanded: one element stands for many
        if not torch.equal(tensor, value):
            index = tuple(slice(0, 1) if s == 0 else slice(None) for s in tensor.stride())
            tensor.data[index].copy_(value[index])
    else:
        tensor.data.copy_(value)
