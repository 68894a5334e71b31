"""A step of a model and inputs laid out in channels_last, as one would keep them for convolutions."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import wraps
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.utils.weak import WeakTensorKeyDictionary

_models: WeakKeyDictionary = WeakKeyDictionary()  # model -> its copy in channels_last
_inputs: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


class NoLayout(Exception):
    """The inputs have no channels."""


def channels_last(step: Callable) -> Callable:
    """`step` on a copy of the model and of the inputs that is made once; the gradients end up in the model's `.grad`.

    Raises NoLayout where there is nothing to lay out.
    """

    @wraps(step)
    def laid_out(model: nn.Module, batch: tuple, val_batch: tuple):
        if model not in _models:
            _models[model] = copy.deepcopy(model).to(memory_format=torch.channels_last)
        twin = _models[model]
        found = step(twin, _laid(batch), _laid(val_batch))
        for p, q in zip(model.parameters(), twin.parameters(), strict=True):
            p.grad, q.grad = q.grad, None
        return found

    return laid_out


def _laid(batch: tuple) -> tuple:
    inputs, targets = batch
    if inputs.ndim != 4:
        raise NoLayout("inputs without channels have no channels_last")
    if inputs not in _inputs:
        _inputs[inputs] = inputs.contiguous(memory_format=torch.channels_last)
    return _inputs[inputs], targets
