"""What a recorded step depends on: where any of it is another, its graph does not serve."""

from __future__ import annotations

from functools import partial
from types import CellType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from fastrw.api.problem import Problem
from fastrw.engine.request import Options
from fastrw.nodes.precision import told


def kind_of(problem: Problem, options: Options) -> tuple:
    """What a graph depends on: shapes of what it is given, modes and hooks of the model, addresses of its tensors, and
    settings of precision."""
    leaves, tree = tree_flatten(given_to(problem, options))
    modules = problem.modules.values()
    tensors = [t for m in modules for t in (*m._parameters.values(), *m._buffers.values()) if t is not None]
    places = tuple((t.data_ptr(), t.dtype, t.requires_grad, not t._backward_hooks) for t in tensors)
    tables = (hooks for m in modules
              for hooks in (m._forward_hooks, m._forward_pre_hooks, m._backward_hooks, m._backward_pre_hooks)
              if hooks)  # fmt: skip
    modes = tuple((id(m), m.training) for m in modules), tuple(id(hook) for hooks in tables for hook in hooks.values())
    cast = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda"), told(torch.device("cuda"))
    losses = fingerprint(problem.loss_fn), fingerprint(problem.losses_fn)
    given = str(tree), tuple(map(_shape, leaves))
    return losses, tuple(map(id, problem.params.values())), given, modes, places, cast


def given_to(problem: Problem, options: Options) -> tuple:
    """What a step reads that is not the model's."""
    return problem.batch, problem.val_batch, options.scaling


def device_of(problem: Problem) -> torch.device:
    return next(iter(problem.params.values())).device


def _shape(leaf: Any) -> Any:
    """Of a tensor; the value of what else Python acts upon."""
    if isinstance(leaf, Tensor):
        return leaf.shape, leaf.stride(), leaf.dtype, leaf.device
    array = getattr(leaf, "tobytes", None)  # of numpy, whose repr leaves out most of it
    return (type(leaf), leaf.shape, array()) if array else repr(leaf)


def fingerprint(value: Any, outer: tuple = ()) -> Any:
    """What a graph depends on in a loss function: its code, and the plain values bound to it."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, partial):
        bound = [value.func, *value.args, *value.keywords, *value.keywords.values()]
        return tuple(fingerprint(one, outer) for one in bound)
    if isinstance(value, FunctionType) and value not in outer:  # it may be bound to itself
        held = [cell.cell_contents for cell in value.__closure__ or () if cell != CellType()]
        bound = [*held, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
        return (value.__code__, *(fingerprint(one, (*outer, value)) for one in bound))
    own = vars(value).items() if isinstance(value, nn.Module) else ()
    return (type(value), id(value), *((name, one) for name, one in own if isinstance(one, bool | int | float | str)))
