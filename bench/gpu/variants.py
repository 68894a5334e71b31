"""The forms of a whole step that are timed on a GPU: plain and reweighted, eager, captured and compiled."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import nn

import fastrw
from bench.gpu import stand_ins
from bench.gpu.stage import Stage
from bench.models import Batch, Model, losses

Run = Callable[[], object]


def prepare(case: Model, setting: str, variant: str, stage: Stage) -> Run:
    """One whole step of that variant, on a model of its own."""
    here = case.make(stage.device)
    run = FORMS[variant](*here, autocast(setting, stage.device), stage)

    def step() -> object:
        here[0].zero_grad()
        return run()

    return step


def autocast(setting: str, device: str) -> AbstractContextManager:
    return torch.autocast(device, torch.bfloat16) if setting == "bf16" else nullcontext()


def plain(model: nn.Module, batch: Batch, _val_batch: Batch, cast: AbstractContextManager, stage: Stage) -> Run:
    def run() -> None:
        with cast:
            loss = losses(model, batch).mean()
        loss.backward()

    return run


def compiled(model: nn.Module, batch: Batch, _val_batch: Batch, cast: AbstractContextManager, stage: Stage) -> Run:
    """The loss is compiled with the model: the cheapest plain step there is."""
    torch.compiler.reset()
    backend = "aot_eager" if stage.tiny else "inductor"
    mean = torch.compile(lambda *here: losses(model, here).mean(), backend=backend, dynamic=False)

    def run() -> None:
        with cast:
            loss = mean(*batch)
        loss.backward()

    return run


def captured(model: nn.Module, batch: Batch, val_batch: Batch, cast: AbstractContextManager, stage: Stage) -> Run:
    """A plain step as one graph, whose gradients stay where they are."""
    step, graph = plain(model, batch, val_batch, cast, stage), stand_ins.graph(stage.device)

    def once() -> None:
        for p in model.parameters():
            p.grad = None
        step()

    once()
    graph.record(once)
    gradients = [p.grad for p in model.parameters()]

    def run() -> None:
        graph.replay()
        for p, gradient in zip(model.parameters(), gradients, strict=True):
            p.grad = gradient

    return run if stage.device == "cuda" else once


def reweighted(model: nn.Module, batch: Batch, val_batch: Batch, cast: AbstractContextManager, stage: Stage,
               **options) -> Run:  # fmt: skip
    if options.get("capture"):
        stand_ins.capture(stage.device)
    step = fastrw.Reweighter(model, **options)

    def run() -> object:
        with cast:
            return step.backward(batch, val_batch)

    return run


FORMS: dict[str, Callable[..., Run]] = {
    "plain": plain,
    "plain captured": captured,
    "plain compiled": compiled,
    "Reweighter": reweighted,
    "capture": partial(reweighted, capture=True),
    "update=backward": partial(reweighted, update="backward"),
    "params=last": partial(reweighted, params="last"),
}
