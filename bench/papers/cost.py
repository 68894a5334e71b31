"""What a training step costs compared with a plain one: interleaved rounds, ratios within a round, peak memory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.utils.data import TensorDataset

from bench import timing
from bench.models import MODELS, Batch
from bench.papers.trial import Result, Trial, Work, short
from bench.steps import STEPS
from fastrw.demo.data import Images


@dataclass(frozen=True)
class Cost(Trial):
    model: str = "lenet"  # of bench.models
    n: int = 100
    m: int = 10
    ways: tuple[str, ...] = ("Reweighter", "double_backward")  # names of bench.steps, or "FSR"
    rounds: int = 7

    def start(self, images: Images | None, device: str = "cpu") -> Turns:
        return Turns(self, device)


class Turns(Work):
    """Each step times every method once. On one thread of a CPU CPU seconds are measured, elsewhere wall time."""

    kept = ("done", "samples")

    def __init__(self, trial: Cost, device: str):
        self.trial, self.device, self.total = trial, device, trial.rounds
        names = ("plain", *trial.ways)
        self.ways = {name: self._way(name) for name in names}
        self.samples: dict[str, list[float]] = {name: [] for name in names}
        self.one_thread = device == "cpu" and torch.get_num_threads() == 1

    def _way(self, name: str) -> Callable[[], Any]:
        model, batch, val_batch = MODELS[self.trial.model].make(self.device, self.trial.n, self.trial.m)
        step = _fsr(model, batch) if name == "FSR" else partial(STEPS[name], model, batch, val_batch)

        def way() -> None:
            model.zero_grad()
            step()

        return way

    def step(self) -> None:
        before = timing.clock
        timing.clock = time.process_time if self.one_thread else time.perf_counter
        try:
            names = list(self.ways)
            first = self.done % len(names)
            if not any(self.samples.values()):
                for way in self.ways.values():
                    way()
            for name in names[first:] + names[:first]:
                self.samples[name].append(timing.sample(self.ways[name], self.device))
        finally:
            timing.clock = before
        self.done += 1

    def result(self) -> Result:
        peaks = {name: timing.peak_memory(way, self.device) for name, way in self.ways.items()}
        times = {name: timing.Timing(math.nan, tuple(samples)) for name, samples in self.samples.items()}
        rows = {}
        for name, taken in times.items():
            ratio = taken.over(times["plain"])
            rows[name] = {"seconds": short(taken.median), "ratio": short(ratio["median"]),
                          "quartiles": [*map(short, ratio["quartiles"])],
                          "memory": short(peaks[name] / max(1, peaks["plain"]))}  # fmt: skip
        return {"rows": rows, "clock": "CPU seconds of one thread" if self.one_thread else "seconds"}


def _fsr(model: torch.nn.Module, batch: Batch) -> Callable[[], Any]:
    """FSR's step past its warm-up, last layer, Table 4's reward batch of twice the training batch."""
    from fastrw.fsr import FSR

    x, _ = batch
    with torch.no_grad():
        classes = model(x[:2]).shape[1]
    index = torch.arange(len(x))
    y = (index % classes).to(x.device)  # every class needs an example
    learner = FSR(model, len(y), classes, dataset=TensorDataset(x, y), labels=y, capacity=max(classes, len(y)),
                  q=2 * len(y), warmup=0)  # fmt: skip
    return partial(learner.step, index, x, y)
