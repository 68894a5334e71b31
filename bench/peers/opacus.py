"""Opacus: its hooks keep every example's gradient, which is dotted with V and then summed by weight.

Its ghost norms would need less, but they give the norms of the gradients and no dot products."""

from __future__ import annotations

import torch
from opacus.grad_sample import GradSampleHooks
from torch import Tensor, nn

from bench.models import Batch
from bench.steps import losses, validation_gradient
from bench.twins import Twins
from fastrw.engine.weights import rectify

_hooked = Twins(lambda twin: GradSampleHooks(twin, loss_reduction="sum"))


def step(model: nn.Module, batch: Batch, val_batch: Batch) -> tuple[Tensor, str]:
    twin, hooks = _hooked.of(model)
    hooks.set_grad_sample_to_none()
    along = validation_gradient(model, val_batch)
    losses(twin, batch).sum().backward()
    with torch.no_grad():
        scores = sum(p.grad_sample.flatten(1) @ along[name].flatten() for name, p in model.named_parameters())
        weights = rectify(scores).to(scores.dtype)
        for p in model.parameters():
            p.grad = torch.einsum("n,n...->...", weights, p.grad_sample)
    hooks.set_grad_sample_to_none()
    return scores, "grad_sample hooks"
