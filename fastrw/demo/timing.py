"""What a step costs: every method's steps take turns in one process, so that whatever slows one slows them all."""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch.func import functional_call
from torch.nn import functional as F

from fastrw.demo.fsr_run import FSR_METHODS, FSRRun
from fastrw.demo.methods import METHODS
from fastrw.demo.noise import Task
from fastrw.demo.settings import Settings
from fastrw.demo.train import Run

ALGORITHM_1 = "double backward"


def algorithm_1(run: Run) -> None:
    """One step of Ren et al. 2018, Algorithm 1, as printed: the price of the same weights without fastrw."""
    _, (x, y), (xv, yv) = run.draw()
    parameters = dict(run.model.named_parameters())
    losses = F.cross_entropy(run.model(x), y, reduction="none")
    epsilon = torch.zeros_like(losses, requires_grad=True)
    gradients = torch.autograd.grad((epsilon * losses).sum(), [*parameters.values()], create_graph=True)
    ahead = {name: p - g for (name, p), g in zip(parameters.items(), gradients, strict=True)}
    val_loss = F.cross_entropy(functional_call(run.model, ahead, (xv,)), yv)
    (slope,) = torch.autograd.grad(val_loss, epsilon, retain_graph=True)
    w = (-slope).clamp(min=0)
    w = w / (w.sum() + (w.sum() == 0))
    run.update((w * losses).sum().backward)


def step_times(task: Task, settings: Settings, *, rounds: int = 60, seconds: float = 6.0) -> dict[str, float]:
    """Median seconds of a whole step (weights, forward, backward, optimizer) by method, over up to `rounds` rounds.

    After `seconds` no further round begins, but three are always taken; the first is a warm-up and not counted.
    """
    endless = replace(settings, steps=1_000_000)  # so that no timed step evaluates
    steppers: dict[str, Callable[[], None]] = {name: Run(name, task, endless, settings.seed).step for name in METHODS}
    run = Run("fastrw", task, endless, settings.seed)
    steppers[ALGORITHM_1] = lambda: algorithm_1(run)
    return in_turns(steppers, rounds, seconds)


def fsr_step_times(task: Task, settings: Settings, *, rounds: int = 60, seconds: float = 6.0) -> dict[str, float]:
    """The same of the methods without clean examples, after their warm-up."""
    endless = replace(settings, steps=1_000_000)
    steppers = {}
    for name in FSR_METHODS:
        run = FSRRun(name, task, endless, settings.seed)
        if run.fsr:
            run.fsr.warmup = 0
        steppers[name] = run.step
    return in_turns(steppers, rounds, seconds)


def in_turns(steppers: dict[str, Callable[[], None]], rounds: int, seconds: float) -> dict[str, float]:
    """Median seconds of each, in turns; see `step_times`."""
    times = {name: [] for name in steppers}
    end = time.perf_counter() + seconds
    for taken in range(rounds + 1):
        if taken > 3 and time.perf_counter() > end:
            break
        for name, step in steppers.items():
            start = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(each[1:]) for name, each in times.items()}
