"""Every op at the sizes of real layers: device time by replayed graphs, host time apart, % of the roof."""

import statistics
import time
from collections import Counter
from collections.abc import Iterable
from functools import cache, partial
from pathlib import Path

import torch

from bench.cases import CASES, Draw, is_large
from bench.gpu import pool, replays, roofs
from bench.gpu.stage import Stage, read
from bench.gpu.summary import number, table
from bench.ops import BACKENDS, DTYPES, EAGER_MODE, Judge, by, variants
from fastrw.ops import backends

LIMIT = 50
PATIENCE = 8  # seconds for one case
JUDGES = 12  # processes: most of their time goes into compiling
HERE = {"cuda": ("reference", "cuda", "triton"), "cpu": ("reference", "cpp", "triton")}
TINY = [("gram_dot", "lenet 84-10"), ("rectify_normalize", "n 100")]
OF_DTYPE = ("bfloat16", "float32")
Item = tuple[str, str, str]  # op, case, dtype


def run(stage: Stage) -> None:
    chosen = items(stage.tiny)
    judges = partial(judge, until=time.time() + 0.4 * stage.left)
    for work, processes in ((judges, 1 if stage.tiny else JUDGES), (measure, 1)):  # what is timed is alone on the GPU
        share = stage.left * processes / len(chosen)
        pool.over(stage, work, chosen, processes, shares=PATIENCE / max(share, 0.01))


def items(tiny: bool) -> list[Item]:
    """The cases of a GPU's size first, bfloat16 before float32, and a case of each op before the next of any."""
    if tiny:
        return [(*case, dtype) for case in TINY for dtype in OF_DTYPE]
    found = []
    for op, cases in CASES.items():
        for large in (True, False):
            for place, name in enumerate(name for name in cases if is_large(name) == large):
                found += [((not large, of, place), (op, name, dtype)) for of, dtype in enumerate(OF_DTYPE)]
    return [item for _, item in sorted(found, key=lambda pair: pair[0])]


@torch.no_grad()
def judge(stage: Stage, op: str, name: str, dtype: str, *, until: float) -> None:
    """Compile every variant and hold it against float64; where no time is left, `measure` will."""
    if time.time() > until:
        return
    case = CASES[op][name]
    args = case.make(Draw(DTYPES[dtype], stage.device))
    verdict_of = Judge(op, case, args)
    for variant, call in variants(op, case, args, HERE[stage.device], compiled=False).items():
        verdict(stage, (op, name, dtype), variant, verdict_of, call)


def verdict(stage: Stage, item: Item, variant: str, verdict_of: Judge, call) -> str | None:
    """Why the variant gets no time, which is a row."""
    start = time.time()
    found = verdict_of(variant, call)
    about = dict(zip(("op", "case", "dtype"), item, strict=True))
    stage.row("verdict", **about, variant=variant, **found, seconds=round(time.time() - start, 3))
    if "CUDA error" in (found["why"] or ""):
        raise RuntimeError(found["why"])  # the process is of no more use
    return found["why"]


@cache
def verdicts(out: Path) -> dict[tuple[str, ...], str | None]:
    """What `judge` has found, by op, case, dtype and variant; read once, for the processes that judge have ended."""
    rows = (row for row in read(out) if row["stage"] == "op_times" and row["kind"] == "verdict")
    return {(row["op"], row["case"], row["dtype"], row["variant"]): row["why"] for row in rows}


@cache
def roof_of(out: Path) -> roofs.Roofs:
    return roofs.measured(row for row in read(out) if row["stage"] == "machine")


@torch.no_grad()
def measure(stage: Stage, op: str, name: str, dtype: str) -> None:
    """A row for each variant that is right, those of eager torch first: the others' ratios are to the fastest."""
    item, case, of = (op, name, dtype), CASES[op][name], DTYPES[dtype]
    nbytes, cache_size = case.bytes(of), replays.last_cache(stage.device)
    draw = Draw(of, stage.device)
    count = 2 if stage.tiny else replays.set_count(nbytes, cache_size)
    sets = [case.make(draw) for _ in range(count)]
    every = [variants(op, case, args, HERE[stage.device], compiled=False) for args in sets]
    auto = backends.choose(op, "auto", *sets[0]).name if op in backends.names() else None
    roof = roof_of(stage.out)
    floor = roof.floor(op, case, of)
    about = {"op": op, "case": name, "sizes": case.sizes, "dtype": dtype, "flops": case.flops, "bytes": nbytes}
    about |= {"sets": len(sets), "cold": len(sets) * nbytes >= 3 * cache_size, "floor": floor, "roof": roof.source}
    about["launch_bound"] = floor < roof.launch
    judged, verdict_of, best = verdicts(stage.out), cache(lambda: Judge(op, case, sets[0])), None
    for variant in sorted(every[0], key=lambda variant: by(variant) not in EAGER_MODE):
        calls = [of_set[variant] for of_set in every]
        if (key := (*item, variant)) in judged:
            why = judged[key]
            for call in calls if why is None else ():
                call()  # in this process for the first time
        else:
            why = verdict(stage, item, variant, verdict_of(), calls[0])
        if why is not None:
            continue
        found = replays.timed(stage, calls)
        if by(variant) in EAGER_MODE:
            best = min(best or found.device_s, found.device_s)
        to_eager = found.device_s / best if best and by(variant) in BACKENDS else None
        stage.row("time", **about, variant=variant, auto=variant == auto, **vars(found),
                  of_roof=floor / found.device_s, to_eager=to_eager)  # fmt: skip


def served(rows: Iterable[dict]) -> list[dict]:
    """Of each case and dtype the row of what a user gets: what "auto" takes, or, of a use, the fastest form."""
    found: dict[Item, dict] = {}
    for row in rows:
        if row["kind"] == "time" and by(row["variant"]) in BACKENDS:
            item = row["op"], row["case"], row["dtype"]
            known = found.get(item)
            if known is None or (not known["auto"] and (row["auto"] or row["device_s"] < known["device_s"])):
                found[item] = row
    return list(found.values())


def fastest(rows: Iterable[dict]) -> Counter[str]:
    """How often each backend is the fastest of them."""
    found: dict[Item, dict] = {}
    for row in rows:
        if row["kind"] == "time" and by(row["variant"]) in BACKENDS:
            item = row["op"], row["case"], row["dtype"]
            found[item] = min(found.get(item, row), row, key=lambda row: row["device_s"])
    return Counter(by(row["variant"]) for row in found.values())


def worst(rows: Iterable[dict], count: int) -> list[dict]:
    """The furthest from the roof, where a launch is not what is timed."""
    rows = [row for row in rows if not row["launch_bound"]]
    return sorted(rows, key=lambda row: row["of_roof"])[:count]


def summary(rows: list[dict]) -> list[str]:
    """What is wrong; a line an op, with bfloat16 / float32 in a cell; the furthest from the roof."""
    wrong = [row for row in rows if row["kind"] == "verdict" and is_wrong(row)]
    lines = [f"- WRONG {named(row)}: {row['why'][:100]}" for row in wrong[:6]]
    if len(wrong) > 6:
        lines.append(f"- and {len(wrong) - 6} more")
    users = served(rows)
    told = []
    for op in dict.fromkeys(row["op"] for row in users):
        best = fastest(row for row in rows if row.get("op") == op).most_common()
        halves = [[row for row in users if (row["op"], row["dtype"]) == (op, dtype)] for dtype in OF_DTYPE]
        cells = [" / ".join(str(len(half)) for half in halves), ", ".join(f"{name} {n}" for name, n in best)]
        for key, scale, form in (("of_roof", 100, ".0f"), ("to_eager", 1, ".2f"), ("host_s", 1e6, ".0f")):
            cells.append(" / ".join(number(median((row[key] for row in half), scale), form) for half in halves))
        told.append((op, *cells))
    lines += ["", *table(("op, bf16 / f32", "cases", "fastest", "% of roof", "÷ eager", "host µs"), told), ""]
    for row in worst(users, 3):
        told = f"{1e6 * row['device_s']:.1f} µs, {100 * row['of_roof']:.0f} %, {number(row['to_eager'])} of eager"
        lines.append(f"- far from the roof: {named(row)}: {told}")
    return lines


def is_wrong(row: dict) -> bool:
    return row["red"] or "failed its self-test" in (row["why"] or "")


def named(row: dict) -> str:
    return f"{row['op']} {row['case']} {row['dtype']} {row['variant']}"


def median(values: Iterable[float | None], scale: float) -> float | None:
    found = [scale * value for value in values if value is not None]
    return statistics.median(found) if found else None
