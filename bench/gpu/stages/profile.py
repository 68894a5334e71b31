"""The three worst steps under the profiler: how busy the GPU is, where the gaps are, which kernels take the time."""

import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity

from bench import timing
from bench.gpu import pool, stand_ins
from bench.gpu.stage import Stage
from bench.gpu.stages import steps
from bench.gpu.summary import number, table
from bench.gpu.variants import prepare

LIMIT = 30
UNLESS = ("resnet32_gn", "transformer", "gpt2_small")  # where no step was timed
WARM, STEPS = 5, 3
TRACE, LARGEST = "trace.json.gz", 12 * 10**6  # bytes
Span = tuple[float, float, str]  # µs of its start and end, and what ran


def run(stage: Stage) -> None:
    chosen = worst(steps.results(stage.rows("steps")))
    pool.over(stage, profiled, chosen[: 1 if stage.tiny else None], 1)


def worst(rows: Iterable[dict], count: int = 3) -> list[tuple[str, str, str]]:
    """Model, setting and variant of the largest ratios to a plain step, a model once."""
    ours = [row for row in rows if row["variant"] in steps.NOT_COMPILED]
    found: dict[str, tuple[str, str, str]] = {}
    for row in sorted(ours, key=lambda row: -row["ratio"]):
        found.setdefault(row["model"], (row["model"], row["setting"], row["variant"]))
    return list(found.values())[:count] or [(model, "defaults", "Reweighter") for model in UNLESS[:count]]


def profiled(stage: Stage, model: str, setting: str, variant: str) -> None:
    with profiler(stage):  # CUPTI starts here, before a graph is captured and before anything is timed
        torch.zeros(1, device=stage.device)
    step = prepare(stand_ins.models(stage.tiny)[model], setting, variant, stage)
    for _ in range(1 if stage.tiny else WARM):
        step()
    ms = 1e3 * statistics.median(whole(step, stage) for _ in range(3))
    with profiler(stage) as profile:
        for _ in range(STEPS):
            step()
        timing.wait(stage.device)
    about = {"model": model, "setting": setting, "variant": variant}
    spans = on_device(profile.profiler.kineto_results.events(), stage.device)
    if not spans:
        stage.row("nothing", **about, ms=ms, why="the profiler saw nothing on the device")
        return
    busy, gaps = union(spans)
    length = max(end for _, end, _ in spans) - min(start for start, _, _ in spans)
    stage.row("busy", **about, ms=ms, profiled_ms=length / 1e3 / STEPS, busy_ms=busy / 1e3 / STEPS,
              busy_share=busy / length, busy_of_ms=busy / 1e3 / STEPS / ms, kernels=len(spans) / STEPS)  # fmt: skip
    for us, before, after in gaps[:5]:
        stage.row("gap", **about, us=us, before=before, after=after)
    for name, us, count in totals(spans)[:10]:
        share = us / sum(end - start for start, end, _ in spans)
        stage.row("kernel", **about, name=name, us=us / STEPS, share=share, count=count / STEPS)
    averages = sorted(profile.key_averages(), key=lambda event: -event.self_cpu_time_total)
    for event in averages[:5]:
        stage.row("host op", **about, name=event.key, us=event.self_cpu_time_total / STEPS, count=event.count / STEPS)
    if not (stage.out / TRACE).exists():
        stage.row("trace", **about, **trace(profile, stage.out))


def profiler(stage: Stage) -> torch.profiler.profile:
    here = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * timing.on_gpu(stage.device)
    return torch.profiler.profile(activities=here, acc_events=True)


def whole(step: Callable[[], object], stage: Stage) -> float:
    """Seconds of a step, without the profiler."""
    timing.wait(stage.device)
    start = time.perf_counter()
    step()
    timing.wait(stage.device)
    return time.perf_counter() - start


def on_device(events: Iterable, device: str) -> list[Span]:
    """Kernels, copies and fills, in order; in a rehearsal the ops of the CPU take their place."""
    kind = torch.autograd.DeviceType.CUDA if timing.on_gpu(device) else torch.autograd.DeviceType.CPU
    found = []
    for event in events:
        if event.device_type() != kind or event.is_user_annotation() or event.name().startswith("ProfilerStep"):
            continue
        if timing.on_gpu(device) or event.name().startswith("aten::"):
            start = event.start_ns() / 1e3
            found.append((start, start + event.duration_ns() / 1e3, event.name()[:150]))
    return sorted(found)


def union(spans: Sequence[Span]) -> tuple[float, list[tuple[float, str, str]]]:
    """µs in which something ran; and the gaps, the longest first: µs, what ended before it, what began after it."""
    ordered = sorted(spans)
    busy, gaps = 0.0, []
    _, until, last = ordered[0][0], ordered[0][0], ""
    for start, end, name in ordered:
        if start > until:
            gaps.append((start - until, last, name))
        busy += max(0.0, end - max(start, until))
        if end >= until:
            until, last = end, name
    return busy, sorted(gaps, reverse=True)


def totals(spans: Iterable[Span]) -> list[tuple[str, float, int]]:
    """Name, µs and count of each kernel, the largest sum first."""
    found: dict[str, list[float]] = defaultdict(list)
    for start, end, name in spans:
        found[name].append(end - start)
    return sorted(((name, sum(us), len(us)) for name, us in found.items()), key=lambda row: -row[1])


def trace(profile: torch.profiler.profile, out: Path) -> dict:
    """Export it for a viewer; moved whole, and only where it is small enough to be kept."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, TRACE)
        profile.export_chrome_trace(str(file))
        size = file.stat().st_size
        if size > LARGEST:
            return {"file": None, "bytes": size, "why": f"left out: over {LARGEST} bytes"}
        shutil.move(file, out / TRACE)
        return {"file": TRACE, "bytes": size}


def summary(rows: list[dict]) -> list[str]:
    """A line a step; then what fills it and what stops it."""
    told, lines = [], []
    for row in rows:
        if row["kind"] == "busy":
            own = [other for other in rows if step_of(other) == step_of(row)]
            first = {kind: [other for other in own if other["kind"] == kind] for kind in ("gap", "kernel", "host op")}
            told.append((*step_of(row), number(row["ms"]), number(row["busy_ms"]), f"{100 * row['busy_of_ms']:.0f}",
                          f"{100 * row['busy_share']:.0f}", f"{row['kernels']:.0f}"))  # fmt: skip
            top = ", ".join(f"{short(k['name'])} {100 * k['share']:.0f} %" for k in first["kernel"][:4])
            ops = ", ".join(f"{short(op['name'])} {op['us'] / 1e3:.2f} ms" for op in first["host op"][:3])
            lines.append(f"- {row['model']}: {top}; host: {ops}")
            for gap in first["gap"][:1]:
                lines.append(f"  - gap of {gap['us']:.0f} µs: {short(gap['before'])} → {short(gap['after'])}")
        elif row["kind"] == "nothing":
            lines.append(f"- {' '.join(step_of(row))}: {row['why']}")
    heads = ("model", "setting", "variant", "ms", "busy ms", "% of ms", "% profiled", "kernels")
    return [*table(heads, told), *lines]


def step_of(row: dict) -> tuple[str, ...]:
    return tuple(row.get(key, "") for key in ("model", "setting", "variant"))


def short(name: str, most: int = 36) -> str:
    """The name of a kernel without its template arguments."""
    name = name.removeprefix("void ").partition("<")[0].partition("(")[0].rpartition("::")[2] or name
    return name[:most]
