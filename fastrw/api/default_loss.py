"""The default loss: that of the model itself where it has one (Hugging Face), else cross-entropy per example.

A model that takes labels may compute a loss of its own from them. What it computes is found once per kind of labels:
the rule (`RULES`), whether labels are shifted by one position, and whether the model has to see them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Loss = Callable[[Any, Any], Any]  # (output, target) -> [n]


@dataclass(frozen=True)
class Reading:
    """How the losses of a batch come from a forward of the model."""

    loss: Loss | None = None  # None: the default cross-entropy
    shift: bool = False  # logits at position t predict the label at t + 1
    labels: bool = False  # are labels given to the model?
    dtype: torch.dtype | None = None  # in which the loss is computed, if not in that of the logits

    def pair(self, output: Any, target: Any) -> tuple[Any, Any]:
        """(output, target) as the loss takes them."""
        if self.dtype is not None and isinstance(output, Tensor) and output.dtype != self.dtype:
            output = output.to(self.dtype)
        return (output[:, :-1], target[:, 1:]) if self.shift else (output, target)


def losses_of(loss_fn: Loss, reading: Reading, model: nn.Module, batch: Any) -> Tensor:
    """[n]: loss_fn(output, target) of a batch (inputs, targets), or a mapping with "labels"."""
    if isinstance(batch, Mapping):
        inputs: Any = dict(batch)
        target = inputs["labels"] if reading.labels else inputs.pop("labels")
    else:
        inputs, target = batch
    if isinstance(inputs, Mapping):
        output = model(**inputs)
    else:
        output = model(*inputs) if isinstance(inputs, tuple | list) else model(inputs)
    return loss_fn(*reading.pair(logits_of(output), target))


def logits_of(output: Any) -> Any:
    """The logits in an output of a Hugging Face model; any other output as it is."""
    if isinstance(output, Mapping):
        return output.get("logits", output)
    return getattr(output, "logits", output)


def cross_entropy(prefix: str, output: Any, target: Any) -> Tensor:
    """[n]: cross-entropy per example, averaged over its positions whose target is not -100 (0 if there are none)."""
    if not isinstance(output, Tensor) or not isinstance(target, Tensor):
        raise TypeError(
            f"{prefix}the default loss needs tensors (else give loss_fn), got an output of type "
            f"{type(output).__name__} and a target of type {type(target).__name__}"
        )
    with torch._C.DisableTorchFunction():  # shape checks need not be traced
        last = _class_is_last(prefix, output, target)
    return _averaged_cross_entropy(-1 if last else 1, output, target)


def _averaged_cross_entropy(dim: int, output: Tensor, target: Tensor) -> Tensor:
    """[n]: cross-entropy with the classes along `dim`, averaged over the positions of an example."""
    losses = F.cross_entropy(output if dim == 1 else output.movedim(dim, 1), target, reduction="none")
    if losses.ndim == 1:
        return losses
    losses = losses.flatten(1)
    if target.is_floating_point():
        return losses.mean(1)
    return losses.sum(1) / (target != -100).flatten(1).sum(1).clamp(min=1)


def _squared_error(output: Tensor, target: Tensor) -> Tensor:
    """[n]: averaged over the values of an example; logits [n, 1] may have labels [n]."""
    losses = F.mse_loss(output.reshape(target.shape), target.to(output.dtype), reduction="none")
    return losses.reshape(len(target), -1).mean(1)


def _binary_cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """[n]: averaged over the classes of an example."""
    losses = F.binary_cross_entropy_with_logits(output, target.to(output.dtype), reduction="none")
    return losses.reshape(len(target), -1).mean(1)


RULES: dict[str, Loss] = {  # what losses of models are
    "cross-entropy over the last dimension": partial(_averaged_cross_entropy, -1),
    "cross-entropy over dimension 1": partial(_averaged_cross_entropy, 1),
    "squared error": _squared_error,
    "binary cross-entropy": _binary_cross_entropy,
}


def readings(output: Tensor, target: Tensor, dtype: torch.dtype) -> Iterator[tuple[Reading, Tensor, Tensor]]:
    """Each reading of these logits and labels that is possible: its losses [n], and how many labels an example has."""
    for shift in (False, True):
        if shift and (target.ndim < 2 or target.is_floating_point()):
            continue
        for rule in RULES.values():
            reading = Reading(rule, shift, dtype=None if dtype == output.dtype else dtype)
            z, y = reading.pair(output, target)
            try:
                losses = rule(z, y)
            except (RuntimeError, ValueError, IndexError):  # other shapes or dtypes than this rule takes
                continue
            counts = y.new_ones(len(y)) if y.is_floating_point() else (y != -100).reshape(len(y), -1).sum(1)
            yield reading, losses, counts.to(losses.dtype)


def _class_is_last(prefix: str, output: Tensor, target: Tensor) -> bool:
    """Are the logits [n, ..., C] (and not [n, C, ...])?"""
    first, last = target.shape == (*output.shape[:1], *output.shape[2:]), target.shape == output.shape[:-1]
    if target.is_floating_point() and target.shape == output.shape and output.ndim >= 2:
        first, last = True, False  # class probabilities
    if first and last and output.ndim > 2:
        raise ValueError(
            f"{prefix}the class dimension must be clear (else give loss_fn), got outputs {tuple(output.shape)}"
        )
    if not (first or last) or output.ndim < 2:
        raise ValueError(
            f"{prefix}targets must be [n] or one per position of the output [n, C, ...] or [n, ..., C] (else give "
            f"loss_fn), got an output {tuple(output.shape)} and targets {tuple(target.shape)}"
        )
    return last and not first
