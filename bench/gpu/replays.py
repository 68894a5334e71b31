"""The seconds of a call on the device alone: a graph of launches over rotated inputs, replayed; the host's apart."""

import itertools
import math
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from bench import timing
from bench.gpu import stand_ins
from bench.gpu.stage import Stage, error_line

SHORTEST = 1e-3  # seconds of a replay: next to it, what the events and the start of a graph take is nothing
LONGEST = 0.02  # seconds for the replays, or for the bursts, of one call; three samples are taken at least
MOST = 1024  # launches in a graph, or waiting in the queue
FEWEST_SETS, MOST_SETS = 2, 16


def set_count(nbytes: int, cache: int) -> int:
    """How many sets of inputs push one another out of the cache: three times its size together."""
    return min(max(math.ceil(3 * cache / max(nbytes, 1)), FEWEST_SETS), MOST_SETS)


def last_cache(device: str) -> int:
    """Bytes; a stand-in on a CPU."""
    return torch.cuda.get_device_properties(device).L2_cache_size if timing.on_gpu(device) else 2**16


@dataclass(frozen=True)
class Replayed:
    """Of one call, in seconds; `host` is what Python and the launch take, where the call does not wait."""

    device_s: float
    spread: float  # the third quartile over the first
    host_s: float | None
    launches: int  # calls in the graph
    by: str  # "graph", or why it was timed by events, with the launch in it


def timed(stage: Stage, runs: Sequence[timing.Run]) -> Replayed:
    """Time a call that has run before, given once for each set of inputs."""
    if waits(runs[0], stage.device):
        return by_events(stage, runs, "events: it waits for the GPU")
    try:
        replay, launches = recorded(stage, runs)
    except Exception:  # what cannot be captured is still to be timed
        timing.wait(stage.device)
        return by_events(stage, runs, f"events: not captured: {error_line()}")
    samples = repeated(replay, stage)
    low, high = timing.quartiles(samples)
    device_s = statistics.median(samples) / launches
    return Replayed(device_s, high / low, host(stage, runs, device_s), launches, "graph")


def waits(run: timing.Run, device: str) -> bool:
    """Whether the host waits for the device inside the call: asked here, for a capture that fails harms the process."""
    if not timing.on_gpu(device):
        return False
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        run()
    except RuntimeError as error:
        if "synchronizing" not in str(error):
            raise
        return True
    finally:
        torch.cuda.set_sync_debug_mode(before)
    return False


def recorded(stage: Stage, runs: Sequence[timing.Run]) -> tuple[timing.Run, int]:
    """A replay that is long enough to be timed, and how many calls are in it: whole rounds of the sets."""
    rounds = 1
    while True:
        calls = list(runs) * rounds
        graph = stand_ins.graph(stage.device)
        graph.record(lambda calls=calls: each(calls))
        seconds = max(timing.sample(graph.replay, stage.device), 1e-7)
        wanted = min(math.ceil(1.2 * rounds * SHORTEST / seconds), MOST // len(runs))
        if stage.tiny or seconds >= SHORTEST or wanted <= rounds:
            return graph.replay, len(calls)
        rounds = wanted


def each(runs: Iterable[timing.Run]) -> None:
    for run in runs:
        run()


def repeated(run: timing.Run, stage: Stage, most: int = 9) -> list[float]:
    """Seconds of several runs, of three at least, within the time for one call."""
    samples: list[float] = []
    few, most = (1, 1) if stage.tiny else (3, most)
    while len(samples) < few or (len(samples) < most and sum(samples) < LONGEST):
        samples.append(timing.sample(run, stage.device))
    return samples


def by_events(stage: Stage, runs: Sequence[timing.Run], why: str) -> Replayed:
    turn = itertools.cycle(runs)
    samples = repeated(lambda: next(turn)(), stage)
    low, high = timing.quartiles(samples)
    return Replayed(statistics.median(samples), high / low, None, 1, why)


def host(stage: Stage, runs: Sequence[timing.Run], device_s: float) -> float:
    """Seconds of the Python call alone: the median of a few bursts that the queue of launches holds."""
    length = 2 if stage.tiny else max(4, min(32, int(LONGEST / 3 / max(device_s, 1e-7))))
    calls = list(itertools.islice(itertools.cycle(runs), length))
    bursts = []
    for _ in range(1 if stage.tiny else 5):
        timing.wait(stage.device)
        start = time.perf_counter()
        each(calls)
        bursts.append((time.perf_counter() - start) / length)
    timing.wait(stage.device)
    return statistics.median(bursts)
