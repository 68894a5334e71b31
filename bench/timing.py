"""How everything here is timed: interleaved in one process, rotated order, medians and quartiles, device waited for.

The first call of each way is its cold time (compilation, caches of plans, first touch of memory) and is kept apart.
The rounds that follow are warm: the inputs may lie in cache, as they do when a backward has just written them.
With `cold_cache=True` a buffer larger than the last cache is written before every sample."""

from __future__ import annotations

import itertools
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

Way = Callable[[], object]
LARGER_THAN_CACHE = 256 * 2**20
clock = time.perf_counter  # or time.process_time: for one thread beside other work
os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # the profiler, asked for memory, prints a line at each start and stop


@dataclass(frozen=True)
class Timing:
    """Seconds of one way."""

    cold: float
    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def quartiles(self) -> tuple[float, float]:
        return quartiles(self.samples)

    def summary(self) -> dict:
        """All but the samples themselves."""
        return {"median": self.median, "quartiles": self.quartiles, "cold": self.cold, "rounds": len(self.samples)}

    def over(self, other: Timing) -> dict:
        """The ratio to another way of the same interleaved run, round by round: what slows both cancels."""
        ratios = [x / y for x, y in zip(self.samples, other.samples, strict=True)]
        return {"median": statistics.median(ratios), "quartiles": quartiles(ratios)}

    def as_dict(self) -> dict:
        return {"median": self.median, "quartiles": self.quartiles, "cold": self.cold, "samples": self.samples}


def quartiles(samples: Sequence[float]) -> tuple[float, float]:
    """The first and the third."""
    if len(samples) < 2:
        return samples[0], samples[0]
    low, _, high = statistics.quantiles(samples, n=4, method="inclusive")
    return low, high


def rounds_within(seconds: float, ways: dict[str, Way], device: str) -> int:
    """How many rounds of these ways, already warm, take so long; at least 5, at most 200."""
    took = sum(sample(way, device) for way in ways.values())
    return min(max(int(seconds / max(took, 1e-9)), 5), 200)


def wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def sample(way: Way, device: str, flush: torch.Tensor | None = None) -> float:
    """Seconds of one call. On a GPU by events, so that a flush queued before hides the cost of the launch."""
    wait(device)
    if flush is not None:
        flush.zero_()
    if not device.startswith("cuda"):
        start = clock()
        way()
        return clock() - start
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    way()
    end.record()
    wait(device)
    return start.elapsed_time(end) / 1e3


def interleave(
    ways: dict[str, Way], rounds: int, device: str = "cpu", *, cold_cache: bool = False, warmup: int = 1,
    patience: float = float("inf"),
) -> dict[str, Timing]:  # fmt: skip
    """Time each way once a round, each round beginning with the next way. A way whose samples add up to more than
    `patience` seconds stops at three of them."""
    cold = {name: sample(way, device) for name, way in ways.items()}
    for name, way in ways.items():
        for _ in range(warmup if cold[name] < patience else 0):
            way()
    flush = torch.empty(LARGER_THAN_CACHE, dtype=torch.uint8, device=device) if cold_cache else None
    samples: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            if len(samples[name]) < 3 or sum(samples[name]) < patience:
                samples[name].append(sample(ways[name], device, flush))
    return {name: Timing(cold[name], tuple(samples[name])) for name in names}


MARK = 1_000_003  # bytes: a tensor of this size marks a place in the account of the CPU's memory


def peak_memory(way: Way, device: str = "cpu", before: Way = lambda: None) -> int:
    """Bytes of tensors alive at the worst moment of one call, above those alive before it; `before` is no part of it.

    On a CPU the call before it is in the account, too: what a call keeps for the next one, and replaces, is no growth.
    """
    if device.startswith("cuda"):
        before()
        wait(device)
        alive = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        way()
        wait(device)
        return torch.cuda.max_memory_allocated() - alive
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        before()
        way()
        before()
        torch.empty(MARK, dtype=torch.uint8)
        way()
    sizes = memory_events(profile)
    sizes = sizes[len(sizes) - sizes[::-1].index(-MARK) :]
    return max(0, *itertools.accumulate(sizes)) if sizes else 0


def memory_events(profile: torch.profiler.profile) -> list[int]:
    """Bytes of tensors taken (or, below 0, given back), in order, while a profile of memory ran."""
    events = (event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]")
    return [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
