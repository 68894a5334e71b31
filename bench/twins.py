"""A second model for variants that hang hooks on a model or lay it out anew: the other variants of the same run must
not pay for them."""

import copy
from collections.abc import Callable
from functools import wraps
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.utils.weak import WeakTensorKeyDictionary


class CannotRun(Exception):
    """A variant has no place here: its library is not installed, or the inputs have no channels."""


class Twins:
    """`make(twin)` is called once for each model; what it returns is kept as long as the model lives."""

    def __init__(self, make: Callable[[nn.Module], Any]):
        self._make, self._made = make, WeakKeyDictionary()

    def of(self, model: nn.Module) -> tuple[nn.Module, Any]:
        """The twin of `model`, with its own modules and the parameters of the model, and what was made of it."""
        if model not in self._made:
            twin = copy.deepcopy(model, {id(p): p for p in model.parameters()})
            self._made[model] = twin, self._make(twin)
        return self._made[model]


def channels_last(step: Callable) -> Callable:
    """`step` on copies of the model and the inputs in channels_last, made once; the gradients end up in the model's
    `.grad`.

    Raises CannotRun where there is nothing to lay out."""

    @wraps(step)
    def laid_out(model: nn.Module, batch: tuple, val_batch: tuple):
        _, copied = _models.of(model)
        found = step(copied, _laid(batch), _laid(val_batch))
        for p, q in zip(model.parameters(), copied.parameters(), strict=True):
            p.grad, q.grad = q.grad, None
        return found

    return laid_out


_models = Twins(lambda twin: copy.deepcopy(twin).to(memory_format=torch.channels_last))
_inputs: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def _laid(batch: tuple) -> tuple:
    inputs, targets = batch
    if inputs.ndim != 4:
        raise CannotRun("inputs without channels have no channels_last")
    if inputs not in _inputs:
        _inputs[inputs] = inputs.contiguous(memory_format=torch.channels_last)
    return _inputs[inputs], targets
