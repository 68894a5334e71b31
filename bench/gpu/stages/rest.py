"""The zoo of models on the GPU; torch.compile of six op cases; ncu on the three worst kernels."""

import os
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

import torch

from bench import record, timing
from bench.cases import CASES, Case, Draw
from bench.gpu import counters, pool, replays, report, stand_ins
from bench.gpu.counters import Pick
from bench.gpu.stage import Stage
from bench.gpu.stages import op_times
from bench.gpu.summary import number, table
from bench.ops import COMPILED, Judge, by
from fastrw import ops

LIMIT = 30
ZOO, SHARE = 12, 0.5  # its processes, and its part of the time
DTYPE = torch.bfloat16
FUSED = [  # what a compiler can fuse
    ("norm_dot", "gpt2"),
    ("norm_instance", "gpt2"),
    ("batch_norm_tangent", "wrn 160 32², add"),
    ("embedding_dot", "gpt2"),
    ("project_dot", "gpt2 mlp"),
    ("conv_dot", "wrn 160-160"),
]
TINY = [("rectify_normalize", "n 100")]
TINY_PICKS = [("gram_dot", "cpp", "lenet 84-10", "bfloat16")]
PICKS = [  # where no op was timed
    ("gram_dot", "triton", "vit qkv", "bfloat16"),
    ("conv_dot", "triton", "wrn 160-160", "bfloat16"),
    ("norm_dot", "triton", "gpt2", "bfloat16"),
]


def run(stage: Stage) -> None:
    zoo(replace(stage, ends=time.time() + SHARE * stage.left))
    compiled(stage)
    ncu(stage)


def zoo(stage: Stage) -> None:
    """In a rehearsal three tests, which skip for want of a GPU."""
    words = ("-k", "test_autocast") if stage.tiny else ("-m", "gpu")
    report.pytest(stage, ["tests/test_models_gpu.py"], 1 if stage.tiny else ZOO, *words)


def compiled(stage: Stage) -> None:
    """All compile side by side, into the caches on the disk; then each is timed, alone."""
    items = TINY if stage.tiny else FUSED
    end = time.time() + 0.6 * stage.left
    if not stage.tiny:
        os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "2")  # of each of the processes
        pool.over(replace(stage, ends=end - 0.3 * (end - time.time())), compile_one, items, len(items))
    pool.over(replace(stage, ends=end), time_one, items, 1, shares=3)


@torch.no_grad()
def compile_one(stage: Stage, op: str, name: str) -> None:
    start = time.time()
    case = CASES[op][name]
    form(stage, case)(*case.make(Draw(DTYPE, stage.device)))
    timing.wait(stage.device)
    stage.row("compiled", op=op, case=name, seconds=round(time.time() - start, 2))


def form(stage: Stage, case: Case) -> Callable:
    """torch.compile of the first eager form; a rehearsal waits for no compiler."""
    backend = "inductor" if stage.device == "cuda" else "eager"
    return torch.compile(next(iter(case.eager.values())), dynamic=False, backend=backend)


@torch.no_grad()
def time_one(stage: Stage, op: str, name: str) -> None:
    """The compiled form, and what "auto" takes."""
    case, draw = CASES[op][name], Draw(DTYPE, stage.device)
    count = replays.set_count(case.bytes(DTYPE), replays.last_cache(stage.device))
    sets = [case.make(draw) for _ in range(2 if stage.tiny else count)]
    judge, seconds = Judge(op, case, sets[0]), None
    for variant, call in ((COMPILED, form(stage, case)), ("auto", getattr(ops, op))):
        calls = [partial(call, *args) for args in sets]
        verdict = judge(variant, calls[0])
        if verdict["why"] is not None:
            stage.row("to compile", op=op, case=name, variant=variant, why=verdict["why"])
            continue
        replays.each(calls)
        found = replays.timed(stage, calls)
        ratio = found.device_s / seconds if seconds else None
        seconds = found.device_s
        stage.row("to compile", op=op, case=name, variant=variant, **vars(found), ratio=ratio)


def ncu(stage: Stage) -> None:
    """A row a kernel of each pick. What ncu has found it says when it ends."""
    tool = stand_ins.tool("ncu", stage.device)
    if tool is None:
        stage.row("no ncu", why="it is not installed")
        return
    picks = TINY_PICKS if stage.tiny else worst(stage.rows("op_times"))
    words = counters.command(tool, picks, stage.device)
    # one at a time, and nothing beside it
    process = subprocess.Popen(words, cwd=record.ROOT, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT)  # fmt: skip
    try:
        lines = process.communicate(timeout=max(stage.left - 1, 0))[0].splitlines()
    except subprocess.TimeoutExpired:
        stage.row("no ncu", why="no time was left", picks=picks)
        return  # it ends with the stage
    print(*lines, sep="\n")
    found = counters.kernels(lines, picks)
    for row in found:
        stage.row("ncu", **row)
    if not found:
        stage.row("no ncu", why=counters.refusal(lines) or f"exit status {process.returncode}", last=lines[-3:])


def worst(rows: Iterable[dict], count: int = 3) -> list[Pick]:
    """Of kernels that users get, an op once, those furthest from the roof."""
    users = [row for row in op_times.served(rows) if by(row["variant"]) in ("cuda", "triton")]
    found: dict[str, Pick] = {}
    for row in op_times.worst(users, len(users)):
        found.setdefault(row["op"], (row["op"], row["variant"], row["case"], row["dtype"]))
    return list(found.values())[:count] or PICKS


def summary(rows: list[dict]) -> list[str]:
    """How the zoo ended; auto beside torch.compile; the longest kernel of each pick."""
    lines, told, picks = report.summary(rows), {}, {}
    for row in rows:
        if row["kind"] == "no ncu":
            lines.append(f"no ncu: {row['why']}")
        elif row["kind"] == "to compile":
            told.setdefault((row["op"], row["case"]), {})[row["variant"]] = row
        elif row["kind"] == "ncu":
            pick = tuple(row["pick"])
            picks[pick] = max(picks.get(pick, row), row, key=lambda row: row["ns"] or 0)
    timed = [(*case, *(cell(of.get(variant)) for variant in (COMPILED, "auto"))) for case, of in told.items()]
    lines += ["", *table(("op, bfloat16", "case", "torch.compile µs", "ours µs (÷)"), timed)]
    counted = []
    for pick, row in picks.items():
        figures = [number(row.get(key), ".0f") for key in ("sm", "dram", "l2_hit", "occupancy", "registers")]
        counted.append((" ".join(pick), row["kernel"][:40], number((row["ns"] or 0) / 1e3, ".1f"), *figures))
    heads = ("ncu: longest kernel of", "kernel", "µs", "SM %", "DRAM %", "L2 hit %", "occupancy %", "registers")
    return [*lines, "", *table(heads, counted)]


def cell(row: dict | None) -> str:
    """Microseconds, and the ratio to torch.compile; or why there are none."""
    if row is None or "why" in row:
        return row["why"][:60] if row else ""
    return number(1e6 * row["device_s"], ".1f") + (f" ({row['ratio']:.2f})" if row["ratio"] else "")
