"""The forms of a whole step that are timed on a GPU: plain and reweighted, eager, captured and compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import nn

import fastrw
from bench.compiled import compiled_loss
from bench.gpu import stand_ins
from bench.gpu.stage import Stage
from bench.models import Batch, Model, losses
from fastrw.engine.report import Step
from fastrw.ops import backends

Run = Callable[[], object]


def prepare(case: Model, setting: str, variant: str, stage: Stage) -> Run:
    """One whole step of that variant, on a model of its own."""
    return on_model(case, setting, variant, stage)[0]


def on_model(case: Model, setting: str, variant: str, stage: Stage) -> tuple[Run, nn.Module]:
    """The same, and that model: the gradients are in its `.grad`."""
    here = case.make(stage.device)
    run = FORMS[variant](*here, autocast(setting, stage.device), stage)

    def step() -> object:
        here[0].zero_grad()
        return run()

    return step, here[0]


def autocast(setting: str, device: str) -> AbstractContextManager:
    return torch.autocast(device, torch.bfloat16) if setting == "bf16" else nullcontext()


def plain(model: nn.Module, batch: Batch, _val_batch: Batch, cast: AbstractContextManager, stage: Stage) -> Run:
    def run() -> None:
        with cast:
            loss = losses(model, batch).mean()
        loss.backward()

    return run


def compiled(model: nn.Module, batch: Batch, _val_batch: Batch, cast: AbstractContextManager, stage: Stage,
             mode: str | None = None) -> Run:  # fmt: skip
    """The loss is compiled with the model: the cheapest plain step there is."""
    mean = compiled_loss(model, backend(stage), None if stage.tiny else mode)

    def run() -> None:
        with cast:
            loss, _ = mean(*batch)
        loss.backward()

    return run


def backend(stage: Stage) -> str:
    """A rehearsal waits for no compiler."""
    return "eager" if stage.tiny else "inductor"


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

    def run() -> Step:
        with cast:
            return step.backward(batch, val_batch)

    return run


def compiled_whole(model: nn.Module, batch: Batch, val_batch: Batch, cast: AbstractContextManager, stage: Stage,
                   mode: str | None = None, fused: Sequence[str] = ()) -> Run:  # fmt: skip
    """The whole step, compiled when this returns. fused: ops that are left to the compiler."""
    options = {"compile": backend(stage), "mode": None if stage.tiny else mode}
    run = reweighted(model, batch, val_batch, cast, stage, **options)
    with backends.fusing(stage.device, *fused):
        for _ in range(2):  # the first is eager
            model.zero_grad()
            run()
    return run


# elementwise or sums: what a compiler can fuse with what is around it
ELEMENTWISE = ("norm_dot", "norm_instance", "embedding_dot", "combine", "rectify_normalize", "batch_norm_tangent")
FORMS: dict[str, Callable[..., Run]] = {
    "plain": plain,
    "plain captured": captured,
    "plain compiled": compiled,
    "plain replays": partial(compiled, mode="reduce-overhead"),
    "Reweighter": reweighted,
    "capture": partial(reweighted, capture=True),
    "compiled": compiled_whole,
    "compiled replays": partial(compiled_whole, mode="reduce-overhead"),
    "compiled, ops fused": partial(compiled_whole, fused=ELEMENTWISE),
    "update=backward": partial(reweighted, update="backward"),
    "params=last": partial(reweighted, params="last"),
}
