"""The default loss: cross-entropy per example."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def losses_of(loss_fn: Callable, model: nn.Module, batch: Any) -> Tensor:
    """[n]: loss_fn(output, target) of a batch (inputs, targets), or a mapping with "labels"."""
    if isinstance(batch, Mapping):
        inputs, target = {k: v for k, v in batch.items() if k != "labels"}, batch["labels"]
    else:
        inputs, target = batch
    if isinstance(inputs, Mapping):
        output = model(**inputs)
    else:
        output = model(*inputs) if isinstance(inputs, tuple | list) else model(inputs)
    named = isinstance(output, Mapping) and "logits" in output  # an output of a Hugging Face model
    output = output["logits"] if named else getattr(output, "logits", output)
    if isinstance(batch, Mapping) and isinstance(target, Tensor) and target.ndim > 1 and _is_causal(model):
        output, target = output[:, :-1], target[:, 1:]  # a causal model's logits at t predict the label at t + 1
    return loss_fn(output, target)


def _is_causal(model: nn.Module) -> bool:
    return "ForCausalLM" in (getattr(model, "loss_type", None) or "") or type(model).__name__.endswith(
        ("ForCausalLM", "LMHeadModel")
    )


def cross_entropy(prefix: str, output: Any, target: Any) -> Tensor:
    """[n]: cross-entropy per example, averaged over its positions whose target is not -100 (0 if there are none)."""
    if not isinstance(output, Tensor) or not isinstance(target, Tensor):
        raise TypeError(
            f"{prefix}the default loss needs tensors (else give loss_fn), got an output of type "
            f"{type(output).__name__} and a target of type {type(target).__name__}"
        )
    with torch._C.DisableTorchFunction():  # shape checks need not be traced
        last = _class_is_last(prefix, output, target)
    if last:
        output = output.movedim(-1, 1)
    losses = F.cross_entropy(output, target, reduction="none")
    if output.ndim == 2:
        return losses
    losses = losses.flatten(1)
    if target.is_floating_point():
        return losses.mean(1)
    return losses.sum(1) / (target != -100).flatten(1).sum(1).clamp(min=1)


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
