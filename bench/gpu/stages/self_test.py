"""The self-test of every op, backend and dtype, side by side, with the seconds that a first call takes to compile."""

import os
import threading
import time
import warnings

import torch

from bench import timing
from bench.gpu import pool
from bench.gpu.stage import Stage
from bench.gpu.stages import steps
from bench.gpu.summary import table

LIMIT = 100
PROCESSES, COMPILERS = 12, 6
DTYPES = ("float32", "bfloat16", "float16")
BACKENDS = {"cuda": ("triton", "cuda"), "cpu": ("triton", "cpp")}


def run(stage: Stage) -> None:
    """Meanwhile others compile what the next stage times: torch and Triton keep what is compiled on the disk."""
    from fastrw.ops import backends

    items = [(op, backend, dtype) for backend in BACKENDS[stage.device] for op in backends.names() for dtype in DTYPES]
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "3")  # of each of the processes that compile
    beside = []
    for compiling in (steps.TO_COMPILE, steps.TO_COMPILE_WHOLE):
        of = (stage, steps.warm, compiling[: 1 if stage.tiny else None], COMPILERS, 4)
        beside.append(threading.Thread(target=pool.over, args=of))
        beside[-1].start()
    pool.over(stage, one, items[:: 10 if stage.tiny else 1], 1 if stage.tiny else PROCESSES)
    for thread in beside:
        thread.join()


def one(stage: Stage, op: str, backend: str, dtype: str) -> None:
    """Whether it agrees with the reference on the op's tiny input; seconds of the first call and of the next."""
    from fastrw.ops import backends, self_test

    entry, device = backends.get(op), torch.device(stage.device)
    served, kind = entry.backends[backend], getattr(torch, dtype)
    args = entry.draw(device, kind)
    about = {"op": op, "backend": backend, "dtype": dtype}
    if (why := served.can(*args)) is not None:
        stage.row("self-test", **about, passed=None, why=why)
        return
    timing.wait(stage.device)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", self_test.BrokenBackend)  # the row says it
        why = self_test.verdict(entry, served, device, kind)
    timing.wait(stage.device)
    first = time.perf_counter() - start
    if why is None:
        start = time.perf_counter()
        served.run(*args)
        timing.wait(stage.device)
    stage.row("self-test", **about, passed=why is None, why=why, seconds=first, again=time.perf_counter() - start)


def summary(rows: list[dict]) -> list[str]:
    lines = []
    for backend in dict.fromkeys(row["backend"] for row in rows if row["kind"] == "self-test"):
        own = [row for row in rows if row.get("backend") == backend]
        seconds = sorted(row["seconds"] for row in own if row["passed"])
        counts = (sum(row["passed"] is what for row in own) for what in (True, False, None))
        lines.append((backend, *counts, f"{seconds[len(seconds) // 2]:.1f}, {seconds[-1]:.1f}" if seconds else ""))
    told = table(("backend", "passed", "failed", "no kernel", "s to compile (median, most)"), lines)
    wrong = [row for row in rows if row.get("passed") is False]
    told += [f"- WRONG {row['op']} {row['backend']} {row['dtype']}: {row['why'][:200]}" for row in wrong]
    for variant in dict.fromkeys(row["variant"] for row in rows if row["kind"] == "compiled"):
        own = [row for row in rows if row.get("variant") == variant]
        seconds = ", ".join(f"{row['model']} {row['setting']} {row['seconds']:.0f}" for row in own)
        told += ["", f"seconds of the first step, {variant}: {seconds}"]
    return told
