"""The time of a step, by phase."""

from __future__ import annotations

import time

import torch

from fastrw.api.problem import Problem


class Timeline:
    """`mark(phase)` ends a phase: (name, seconds) in `phases`. Waits for the GPU, so that times are exact."""

    def __init__(self, problem: Problem):
        self._devices = {p.device for p in problem.params.values() if p.is_cuda}
        self.phases: list[tuple[str, float]] = []
        self._last = self._now()

    def mark(self, phase: str) -> None:
        now = self._now()
        self.phases.append((phase, now - self._last))
        self._last = now

    def _now(self) -> float:
        for device in self._devices:
            torch.cuda.synchronize(device)
        return time.perf_counter()
