"""The arguments of a call (model, two batches, a loss, some parameters), checked and combined into one callable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fastrw import learned
from fastrw.api.compiled import uncompiled
from fastrw.api.default_loss import Reading, cross_entropy, losses_of
from fastrw.api.own_loss import OfAnotherKind, is_causal, reading_of
from fastrw.engine import guards
from fastrw.state.batches import mapped, tensors_of
from fastrw.state.snapshot import State
from fastrw.state.structure import Structure


class Problem:
    """`losses(batch)` gives the [n] losses f_i of a batch with their graph; `params` holds the selected parameters.
    known: the structure of the model in an earlier call.

    Raises TypeError or ValueError, before the model has run, where an argument breaks a rule.
    """

    def __init__(self, model: nn.Module, batch: Any, val_batch: Any, *, loss_fn: Callable | None = None,
                 losses_fn: Callable | None = None, params: Any = None, caller: str = "meta_weights",
                 known: Structure | None = None):  # fmt: skip
        self.prefix = f"fastrw.{caller}: "
        if not isinstance(model, nn.Module):
            raise TypeError(f"{self.prefix}model must be a torch.nn.Module, got {type(model).__name__}")
        if loss_fn is not None and losses_fn is not None:
            raise ValueError(f"{self.prefix}give loss_fn or losses_fn, not both, got both")
        for name, function in (("loss_fn", loss_fn), ("losses_fn", losses_fn)):
            if function is not None and not callable(function):
                raise TypeError(f"{self.prefix}{name} must be callable, got {type(function).__name__}")
        if torch.is_inference_mode_enabled():
            raise ValueError(f"{self.prefix}gradients are needed, got a call under torch.inference_mode()")
        guards.one_process(self.prefix)
        self.model, self.batch, self.val_batch = model, batch, val_batch
        self.val_losses: Tensor | None = None  # of the last validation forward
        self.structure = Structure(model) if known is None else known.current()
        self.modules = self.structure.modules
        self._splits_batch = losses_fn is None
        guards.no_synchronized_norm(self.modules, self.prefix)
        self.params = select(self.structure, params, self.prefix)
        guards.not_sharded(self.structure.parameters.values(), self.prefix, self.structure is not known)
        self.loss_fn, self.losses_fn = loss_fn, losses_fn
        self._functions = [function for function in (loss_fn, losses_fn) if function is not None]
        if self._splits_batch:
            for name, b in (("batch", batch), ("val_batch", val_batch)):
                self._check_batch(name, b)

    @property
    def val_loss(self) -> Tensor:
        """f^v, 0-d, of the last validation forward."""
        assert self.val_losses is not None
        return self.val_losses.mean()

    def state(self, within: State | None = None, whole: bool | None = None) -> State:
        """A snapshot of all that the forwards of this problem may change; within, whole: see `State`."""
        return State(self.structure, self._functions, within, whole)

    def losses(self, batch: Any, graph: bool = True) -> Tensor:
        """f_i for i in the batch: [n], with a graph if `graph`. (It is recorded nevertheless: with it, a forward may
        take another path, and register hooks.)"""
        with torch.enable_grad(), uncompiled():
            losses = self.function(batch)(self.model, batch)
        name = "val_batch" if batch is self.val_batch else "batch"
        if batch is self.val_batch and isinstance(losses, Tensor):
            self.val_losses = losses.detach()
        if not isinstance(losses, Tensor):
            raise TypeError(f"{self.prefix}the loss must return a tensor [n], got {type(losses).__name__}")
        if losses.ndim == 0:
            raise ValueError(f'{self.prefix}the loss must return one loss per example (reduction="none"), got a scalar')
        if losses.ndim != 1:
            raise ValueError(f"{self.prefix}the loss must return [n], one loss per example, got {tuple(losses.shape)}")
        if len(losses) == 0:
            raise ValueError(f"{self.prefix}{name} must hold at least one example, got 0")
        if not losses.is_floating_point():
            raise TypeError(f"{self.prefix}losses must be real floating point, got {losses.dtype}")
        if (sizes := self._sizes(batch)) and len(losses) not in sizes:
            n = " or ".join(map(str, sorted(sizes)))
            raise ValueError(f"{self.prefix}losses must be [n] with n = {n} targets, got {tuple(losses.shape)}")
        if graph and not losses.requires_grad:
            raise ValueError(f"{self.prefix}the losses of {name} must depend on a parameter, got none with a graph")
        return losses if graph else losses.detach()

    def function(self, batch: Any) -> Callable[[Any, Any], Any]:
        """(model, batch) -> losses, for batches like this one."""
        if self.losses_fn is not None:
            return self.losses_fn
        reading = self._reading(batch) if isinstance(batch, Mapping) else Reading()
        loss_fn = self.loss_fn or reading.loss or partial(cross_entropy, self.prefix)
        return partial(losses_of, loss_fn, reading)

    def _reading(self, batch: Mapping) -> Reading:
        """How the model itself reads this kind of labels."""
        labels = batch["labels"]
        kind = (getattr(labels, "dtype", None), getattr(labels, "ndim", None), self.loss_fn is None)
        known = learned.table(self.model, "readings of labels")
        if (found := known.get(kind)) is not None:
            return found
        try:
            found, lasting = reading_of(self.model, batch, self.state(), self.prefix)
        except OfAnotherKind:
            if self.loss_fn is None:
                raise
            found, lasting = Reading(shift=labels.ndim > 1 and is_causal(self.model)), True
        return known.put(kind, found) if lasting else found

    def without(self, bad: Tensor, first: int) -> Any:
        """The batch with a good example in place of every bad one ([n] flags): shapes and random draws stay. Examples
        lie along dimension `first` or, where that is not of size n, along the first that is."""
        n = len(bad)
        index = torch.where(bad, (~bad).int().argmax(), torch.arange(n, device=bad.device))

        def take(t: Any) -> Any:
            if not isinstance(t, Tensor) or t.is_nested or t.layout != torch.strided:
                return t
            dims = [d for d, size in enumerate(t.shape) if size == n]
            dim = first if first in dims else next(iter(dims), None)
            return t if dim is None else t.index_select(dim, index.to(t.device))

        return mapped(take, self.batch)

    def _sizes(self, batch: Any) -> set[int]:
        """What the number of examples can be: the rows of targets or, of a list with an item per example (a dict of
        boxes), its items, if inputs have as many. Empty if only the losses can tell (flat targets, as for CTC)."""
        if not self._splits_batch:
            return set()
        inputs, targets = _split(batch)
        found = {t.size(0) for t in tensors_of(targets) if t.ndim}
        dims = {size for t in tensors_of(inputs) if not t.is_nested for size in t.shape}
        if isinstance(targets, list | tuple):
            found.add(len(targets))
        if isinstance(inputs, list | tuple):
            dims.add(len(inputs))
        return found & dims if dims else found

    def _check_batch(self, name: str, batch: Any) -> None:
        rule = f'{name} must be (inputs, targets) or a mapping with "labels" (or give losses_fn)'
        if isinstance(batch, Mapping):
            if "labels" not in batch:
                raise ValueError(f"{self.prefix}{rule}, got the keys {sorted(map(str, batch))}")
        elif not isinstance(batch, tuple | list) or len(batch) != 2:
            got = f"{len(batch)} items" if isinstance(batch, tuple | list) else type(batch).__name__
            raise TypeError(f"{self.prefix}{rule}, got {got}")
        if self._sizes(batch) == {0}:
            raise ValueError(f"{self.prefix}{name} must hold at least one example, got 0")
        parameters = self.structure.parameters.values()
        device = next((p.device for p in parameters), None)
        for leaf in tensors_of(batch):
            if leaf.ndim and leaf.device != device and leaf.device not in (devices := {p.device for p in parameters}):
                expected = ", ".join(map(str, devices))
                raise ValueError(f"{self.prefix}{name} must be on the model's device {expected}, got {leaf.device}")


def place(value: Any) -> Any:
    """Where a function was written, or the type of another callable: it stays the same where the function is made anew
    in every step, whatever numbers are bound to it."""
    while isinstance(value, partial):
        value = value.func
    value = getattr(value, "__func__", value)
    code = getattr(value, "__code__", None)
    return type(value) if code is None else (code.co_filename, code.co_firstlineno, code.co_name)


def _split(batch: Any) -> tuple[Any, Any]:
    """Inputs and targets."""
    if isinstance(batch, Mapping):
        return {k: v for k, v in batch.items() if k != "labels"}, batch["labels"]
    return batch


def selection(params: Any) -> Any:
    """`params`, to be read more than once: a generator gives its parameters only once."""
    return list(params) if isinstance(params, Iterator) else params


def select(structure: Structure, params: Any, prefix: str) -> dict[str, nn.Parameter]:
    """The selected parameters by name: None all that require grad, "last" those of the last layer (in the order of
    `model.modules()`) that has any, names with wildcards, or parameters of the model."""
    items = [params] if params is None or isinstance(params, str | Tensor) else params
    key = tuple(items) if isinstance(items, list | tuple) else ()
    if not key or any(not isinstance(item, str | None) for item in key):
        return _select(structure, params, prefix)
    flags = [p.requires_grad for p in structure.parameters.values()]
    known, chosen = structure.selected.get(key, (None, {}))
    if known != flags:
        chosen = _select(structure, params, prefix)
        structure.selected[key] = flags, chosen
    return chosen


def _select(structure: Structure, params: Any, prefix: str) -> dict[str, nn.Parameter]:
    every = structure.parameters
    if lazy := [k for k, p in every.items() if type(p) is nn.UninitializedParameter]:
        rule = "lazy parameters must be initialised by a first forward"
        raise ValueError(f"{prefix}{rule}, got {lazy[0]!r} uninitialised")
    if params is None or params == "last":
        chosen = {k: p for k, p in every.items() if p.requires_grad}
        if params == "last":
            layers = (
                [p for p in m._parameters.values() if p is not None] for m in reversed(structure.modules.values())
            )
            last = next((own for own in layers if any(p.requires_grad for p in own)), [])
            chosen = {k: p for k, p in chosen.items() if any(p is q for q in last)}
        if not chosen:
            raise ValueError(f"{prefix}model must have a parameter that requires grad, got none")
    else:
        chosen = {}
        params = [params] if isinstance(params, str | Tensor) else params
        if not isinstance(params, Iterable):
            raise TypeError(f'{prefix}params must be None, "last", names or parameters, got {type(params).__name__}')
        for item in params:
            if isinstance(item, str):
                found = {k: p for k, p in every.items() if fnmatchcase(k, _written(item))}
                rule, got = "params must name parameters of the model", repr(item)
            elif isinstance(item, Tensor):
                found = {k: p for k, p in every.items() if p is item}
                rule, got = "params must be parameters of the model", f"a tensor of shape {tuple(item.shape)}"
            else:
                raise TypeError(f"{prefix}params must be names or parameters, got {type(item).__name__}")
            if not found:
                raise ValueError(f"{prefix}{rule}, got {got}")
            chosen |= found
        if frozen := [k for k, p in chosen.items() if not p.requires_grad]:
            raise ValueError(f"{prefix}selected parameters must require grad, got {frozen[0]!r} which does not")
        if not chosen:
            raise ValueError(f"{prefix}params must select a parameter, got an empty selection")
    return chosen


def _written(name: str) -> str:
    """The name in the model as it was before torch.compile."""
    return name.replace("_orig_mod.", "")
