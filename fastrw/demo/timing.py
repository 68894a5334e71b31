"""What a step costs: the methods' steps take turns in one process, so that a slowdown affects them all."""

import statistics
import time
from dataclasses import replace

from fastrw.demo.learners import DoubleBackward, FSRLearner
from fastrw.demo.noise import Task
from fastrw.demo.settings import Settings
from fastrw.demo.train import FSRRun, Run

ALGORITHM_1 = "double backward"


def step_times(task: Task, settings: Settings, *, rounds: int = 60, seconds: float = 6.0) -> dict[str, float]:
    """Median seconds of a whole step (weights, forward, backward, optimizer) by method, over up to `rounds` rounds.

    After `seconds` no further round begins, but three are always taken; the first is a warm-up and not counted.
    """
    endless = replace(settings, steps=1_000_000)  # so that no timed step evaluates
    kind = FSRRun if settings.fsr else Run
    runs = {name: kind(name, task, endless, settings.seed) for name in kind.methods}
    for run in runs.values():
        if isinstance(run.learner, FSRLearner):
            run.learner.fsr.warmup = 0
    if not settings.fsr:
        runs[ALGORITHM_1] = run = Run("fastrw", task, endless, settings.seed)
        run.learner = DoubleBackward(run.model)
    times = {name: [] for name in runs}
    end = time.perf_counter() + seconds
    for taken in range(rounds + 1):
        if taken > 3 and time.perf_counter() > end:
            break
        for name, run in runs.items():
            start = time.perf_counter()
            run.step()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(each[1:]) for name, each in times.items()}
