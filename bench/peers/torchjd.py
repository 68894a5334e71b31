"""TorchJD: its autogram engine gives the Gramian of the gradients of [train; validation], whose block of train against
validation is all dot products of Eq. 12; then an ordinary weighted backward."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchjd.autogram import Engine

from bench.models import Batch
from bench.steps import losses
from bench.twins import Twins
from fastrw.engine.weights import rectify

_engines = Twins(lambda twin: Engine(twin, batch_dim=0))


def step(model: nn.Module, batch: Batch, val_batch: Batch) -> tuple[Tensor, str]:
    twin, engine = _engines.of(model)
    n, m = len(batch[1]), len(val_batch[1])
    both = losses(twin, tuple(torch.cat(pair) for pair in zip(batch, val_batch, strict=True)))
    scores = engine.compute_gramian(both)[:n, n:].mean(1)
    both.backward(torch.cat([rectify(scores).to(both.dtype), both.new_zeros(m)]))
    return scores, "autogram engine"
