"""How everything here is timed: variants take turns in one process, in rotated order; medians and quartiles.

The first call of each variant is its cold time (compilation, caches of plans, first touch of memory) and is kept apart.
The rounds that follow are warm: the inputs may lie in cache, as they do when a backward has just written them.
With `cold_cache=True` a buffer larger than the last cache is written before every sample."""

import itertools
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

Run = Callable[[], object]
LARGER_THAN_CACHE = 256 * 2**20
clock = time.perf_counter  # or time.process_time: for one thread beside other work
os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # a memory profile would print a line at each start and stop


@dataclass(frozen=True)
class Timing:
    """Seconds of one variant."""

    cold: float
    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def quartiles(self) -> tuple[float, float]:
        return quartiles(self.samples)

    def summary(self) -> dict:
        return {"median": self.median, "quartiles": self.quartiles, "cold": self.cold}

    def over(self, other: "Timing") -> dict:
        """The ratio to another variant of the same run, round by round: what slows both cancels."""
        ratios = [x / y for x, y in zip(self.samples, other.samples, strict=True)]
        return {"median": statistics.median(ratios), "quartiles": quartiles(ratios)}

    def against(self, base: "Timing") -> dict:
        """What the rows of whole steps record: every sample, and the ratio to a step that may have other rounds."""
        ratios = {"ratio": self.median / base.median, "quartiles": [q / base.median for q in self.quartiles]}
        return {"seconds": {**self.summary(), "samples": self.samples}, **ratios}


def quartiles(samples: Sequence[float]) -> tuple[float, float]:
    """The first and the third."""
    if len(samples) < 2:
        return samples[0], samples[0]
    low, _, high = statistics.quantiles(samples, n=4, method="inclusive")
    return low, high


def rounds_within(seconds: float, runs: dict[str, Run], device: str) -> int:
    """How many rounds of these variants, already warm, fit in so many seconds; at least 5, at most 200."""
    took = sum(sample(run, device) for run in runs.values())
    return min(max(int(seconds / max(took, 1e-9)), 5), 200)


def on_gpu(device: str) -> bool:
    return device.startswith("cuda")


def wait(device: str) -> None:
    if on_gpu(device):
        torch.cuda.synchronize()


def sample(run: Run, device: str, flush: torch.Tensor | None = None) -> float:
    """Seconds of one call. On a GPU by events, so that a flush queued before hides the cost of the launch."""
    wait(device)
    if flush is not None:
        flush.zero_()
    if not on_gpu(device):
        start = clock()
        run()
        return clock() - start
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    wait(device)
    return start.elapsed_time(end) / 1e3


def interleave(
    runs: dict[str, Run], rounds: int, device: str = "cpu", *, cold_cache: bool = False, warmup: int = 1,
    patience: float = float("inf"),
) -> dict[str, Timing]:  # fmt: skip
    """Time each variant once a round; each round begins with the next one. A variant whose samples add up to more than
    `patience` seconds stops at three of them."""
    cold = {name: sample(run, device) for name, run in runs.items()}
    for name, run in runs.items():
        for _ in range(warmup if cold[name] < patience else 0):
            run()
    flush = torch.empty(LARGER_THAN_CACHE, dtype=torch.uint8, device=device) if cold_cache else None
    samples: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            if len(samples[name]) < 3 or sum(samples[name]) < patience:
                samples[name].append(sample(runs[name], device, flush))
    return {name: Timing(cold[name], tuple(samples[name])) for name in names}


MARK = 1_000_003  # bytes: a tensor of this size marks a place in the account of the CPU's memory
MEMORY_CALLS = 3  # whose memory is measured: of two neighbours both may be checked


def peak_memory(run: Run, device: str = "cpu", before: Run = lambda: None) -> int:
    """Peak bytes of tensors during a call, above those alive before it: the least of some calls, because a few steps
    do more than others (fastrw checks the 1st, 2nd, 4th, 8th ... one). `before` runs first and does not count.

    On a CPU the previous call is accounted for too: what a call keeps for the next one, and replaces, is no growth.
    """
    if on_gpu(device):
        return min(_peak_on_gpu(run, before, device) for _ in range(MEMORY_CALLS))
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as profile:
        before()
        run()
        for _ in range(MEMORY_CALLS):
            before()
            torch.empty(MARK, dtype=torch.uint8)
            run()
            torch.empty(MARK, dtype=torch.uint8)
    between: list[list[int]] = [[]]
    for size in memory_events(profile):
        if size == MARK:
            between.append([])
        elif size != -MARK:
            between[-1].append(size)
    return min(max(itertools.accumulate(sizes, initial=0)) for sizes in between[1::2])


def _peak_on_gpu(run: Run, before: Run, device: str) -> int:
    before()
    wait(device)
    alive = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    wait(device)
    return torch.cuda.max_memory_allocated() - alive


def memory_events(profile: torch.profiler.profile) -> list[int]:
    """Bytes of tensors taken (or, below 0, given back), in order, while a profile of memory ran."""
    events = (event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]")
    return [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
