"""How a rule sees its arguments: parameters as directions, batch tensors as values without a graph."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fastrw.calls import substituted
from fastrw.tape import Use


@dataclass(frozen=True, slots=True)
class Directed:
    """A parameter (or what is derived from one) and its direction along V, both without a graph."""

    value: Tensor
    direction: Tensor


class Rule:
    """`tangent(*args, **kwargs)` takes the operation's arguments with `Directed` in place of parameters and returns the
    output's derivative along the directions, broadcastable to the output.

    `dot(g, backend, *args, **kwargs)`, where there is one, gives the sums of tangent * g over blocks of neighbouring
    elements without forming the tangent: [rows], in the order of the elements; None where it does not serve.

    The rule serves where every `Directed` stands at one of `slots` (names of arguments) and, if `native`, where no
    argument has to be cast.
    """

    def __init__(
        self, tangent: Callable[..., Tensor], *slots: str, dot: Callable[..., Tensor] | None = None, native=False
    ):
        self.tangent, self.dot, self.native = tangent, dot, native
        self._served = [name in slots for name in inspect.signature(tangent).parameters]
        self._slots = slots

    def serves(self, use: Use, dtype: torch.dtype) -> bool:
        call = use.call
        for argument, served in zip(call.args, self._served, strict=False):
            if id(argument) in use.directed and not served:
                return False
        if any(id(v) in use.directed and k not in self._slots for k, v in call.kwargs.items()):
            return False
        return not self.native or all(t.dtype == dtype for t in call.tensors() if t.is_floating_point())


def direction(argument) -> Tensor | None:
    return argument.direction if isinstance(argument, Directed) else None


def total(*parts: Tensor | None) -> Tensor:
    """The sum of the parts that are there."""
    first, *rest = [part for part in parts if part is not None]
    for part in rest:
        first = first + part
    return first


def arguments(use: Use, directions: dict[int, Tensor], dtype: torch.dtype) -> tuple[tuple, dict]:
    """The use's arguments as its rule takes them; floating point ones in `dtype`."""

    def seen(t: Tensor):
        cast = t.detach().to(dtype) if t.is_floating_point() else t
        entry = use.directed.get(id(t))
        return cast if entry is None else Directed(cast, directions[id(t)].to(dtype))

    return substituted(use.call.args, seen), substituted(use.call.kwargs, seen)
