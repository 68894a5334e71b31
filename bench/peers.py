"""The step of Ren et al. 2018 as other libraries let one write it; `pip install -e .[peers]` installs them.

A library is imported when its step is first taken. What a step has to set up once (hooks, an engine) is kept, and each
step is checked against Algorithm 1 like every other."""

import importlib
from collections.abc import Callable
from functools import partial
from importlib import metadata
from typing import Any

import torch
from torch import Tensor, nn

from bench.models import Batch, copied_buffers, losses, twice_differentiable, validation_gradient
from bench.twins import CannotRun, Twins
from fastrw.engine.weights import rectify

PEERS = {"Opacus": "opacus", "TorchJD": "torchjd", "TorchOpt": "torchopt"}  # the library -> its package
RATE = 0.1


def steps() -> dict[str, Callable[[nn.Module, Batch, Batch], tuple[Tensor, str]]]:
    """Library -> its step: see bench/steps.py."""
    takes = {"Opacus": _opacus, "TorchJD": _torchjd, "TorchOpt": _torchopt}
    return {name: partial(_step, PEERS[name], take) for name, take in takes.items()}


def _step(package: str, take: Callable, *batches: Any) -> tuple[Tensor, str]:
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise CannotRun(f"not installed ({error}): pip install -e .[peers]") from None
    scores, how = take(*batches)
    return scores, f"{package} {metadata.version(package)}, {how}"


def _of(module: str, name: str, **options: Any) -> Twins:
    """Twins with an object of a library on each, which is imported when the first is made."""
    return Twins(lambda twin: getattr(importlib.import_module(module), name)(twin, **options))


_hooked = _of("opacus.grad_sample", "GradSampleHooks", loss_reduction="sum")
_engines = _of("torchjd.autogram", "Engine", batch_dim=0)


def _opacus(model: nn.Module, batch: Batch, val_batch: Batch) -> tuple[Tensor, str]:
    """Hooks keep every example's gradient, which is multiplied with V and then summed by weight.

    Opacus' ghost norms would need less, but they give the norms of the gradients and no dot products."""
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


def _torchjd(model: nn.Module, batch: Batch, val_batch: Batch) -> tuple[Tensor, str]:
    """The autogram engine gives the Gramian of the gradients of [train; validation], whose block of train against
    validation has all dot products of Eq. 12; then an ordinary weighted backward."""
    twin, engine = _engines.of(model)
    n, m = len(batch[1]), len(val_batch[1])
    both = losses(twin, tuple(torch.cat(pair) for pair in zip(batch, val_batch, strict=True)))
    scores = engine.compute_gramian(both)[:n, n:].mean(1)
    both.backward(torch.cat([rectify(scores).to(both.dtype), both.new_zeros(m)]))
    return scores, "autogram engine"


def _torchopt(model: nn.Module, batch: Batch, val_batch: Batch) -> tuple[Tensor, str]:
    """Algorithm 1 through a differentiable SGD, as TorchOpt's own example of L2R has it.

    The example runs the training forward once more for the update; here its graph is kept instead, which is faster."""
    import torchopt

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
