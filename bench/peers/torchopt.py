"""TorchOpt: Algorithm 1 through its differentiable SGD, as its own example of L2R does it.

The example runs the training forward once more for the update; here its graph is kept instead, which is faster."""

from __future__ import annotations

import torch
import torchopt
from torch import Tensor, nn

from bench.models import Batch
from bench.steps import copied_buffers, losses, twice_differentiable
from fastrw.engine.weights import rectify

RATE = 0.1


def step(model: nn.Module, batch: Batch, val_batch: Batch) -> tuple[Tensor, str]:
    state = torchopt.extract_state_dict(model, with_buffers=False)
    optimizer = torchopt.MetaSGD(model, lr=RATE)
    with twice_differentiable():
        f = losses(model, batch)
        epsilon = torch.zeros_like(f, requires_grad=True)
        try:
            optimizer.step((epsilon * f).sum())
            val_loss = losses(model, val_batch, copied_buffers(model)).mean()
        finally:
            torchopt.recover_state_dict(model, state)
        scores = -torch.autograd.grad(val_loss, epsilon, retain_graph=True)[0] / RATE
        (rectify(scores) * f).sum().backward()
    return scores, "MetaSGD"
