"""gram_dot, Eq. 12 as printed: every backend that can serve, eager and torch.compile of the reference, and the roof.

Each candidate is held against the reference in float64 before it is timed; one that is wrong gets no number."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial

import torch
from rich import box
from rich.table import Table
from torch import Tensor

from bench import record, roof, timing
from bench.cases import GRAM_CASES, GramCase
from fastrw import ops, reference, tolerance

BACKENDS = ("reference", "cpp", "cuda", "triton")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
Way = Callable[[], Tensor]


def main(argv: list[str] | None = None) -> int:
    options = (words := parser()).parse_args(argv)
    record.known(words, options.cases, GRAM_CASES)
    torch.set_num_threads(options.threads)
    dtypes = [DTYPES[name] for name in options.dtype]
    ceilings = roof.measure(options.device, tuple(dtypes))
    wanted = options.cases or [name for name, case in GRAM_CASES.items() if on_gpu(options.device) or not case.large]
    result = {"bench": "gram_dot", **record.header(options.device), "roof": ceilings.as_dict(), "rows": []}
    console = record.console()
    machine = result["machine"]
    console.print(
        f"{machine.get('gpu', machine['cpu'])}, {machine['threads']} threads, torch {torch.__version__}, "
        f"{caches(options.device)}; measured roof: {ceilings}; load {result['load'][0]:.2f}"
    )
    for name in wanted:
        for dtype in dtypes:
            rows = measure(name, dtype, options.device, ceilings, options.rounds, compiled=options.compile)
            console.print(table(rows))
            result["rows"] += rows
    if options.json:
        record.write_json(options.json, result)
    return 1 if any(row["red"] for row in result["rows"]) else 0


def parser() -> argparse.ArgumentParser:
    words = argparse.ArgumentParser(prog="python -m bench.gram_dot", description=__doc__.splitlines()[0])
    words.add_argument("cases", nargs="*", metavar="case", help=f"of {', '.join(GRAM_CASES)}")
    words.add_argument("--device", default=record.device(), help="cpu or cuda")
    words.add_argument("--dtype", nargs="+", choices=DTYPES, default=["float32"])
    words.add_argument("--rounds", type=int, default=50)
    words.add_argument("--threads", type=int, default=torch.get_num_threads())
    words.add_argument("--no-compile", dest="compile", action="store_false", help="leave torch.compile out")
    words.add_argument("--json", metavar="FILE")
    return words


def on_gpu(device: str) -> bool:
    return device.startswith("cuda")


def caches(device: str) -> str:
    return "caches cold" if on_gpu(device) else "caches warm"


def candidates(case: GramCase, dtype: torch.dtype, device: str, *, compiled: bool = True) -> dict[str, Way]:
    """Every way to compute the case, whether or not it can serve here."""
    tensors = case.make(dtype, device)
    ways = {name: partial(ops.gram_dot, *tensors, 1.0, backend=name) for name in BACKENDS}
    ways["eager"] = partial(reference.gram_dot, *tensors, 1.0)
    if compiled:
        torch.compiler.reset()  # past a few shapes of one function, torch.compile would run it eagerly
        ways["torch.compile"] = partial(torch.compile(reference.gram_dot, dynamic=False), *tensors, 1.0)
    return ways


def verdict(way: Way, case: GramCase, dtype: torch.dtype, device: str) -> tuple[str | None, bool]:
    """Why this way gets no number (None: it gets one), and whether that is because it is wrong."""
    tensors = case.make(dtype, device)
    truth = reference.gram_dot(*(t.double() for t in tensors))
    plain = tolerance.relative_error(reference.gram_dot(*tensors), truth)
    bound = tolerance.bound(torch.float32, plain, case.k * (case.p + case.q))
    try:
        error = tolerance.relative_error(way(), truth)
    except Exception as refusal:  # a backend says why it cannot serve; a compiler may fail in any way
        return str(refusal).strip().split("\n")[0], False
    return (None, False) if error <= bound else (f"wrong: error {error:.0e} > {bound:.0e}", True)


def measure(
    name: str, dtype: torch.dtype, device: str, ceilings: roof.Roof, rounds: int, *, compiled: bool = True
) -> list[dict]:
    """One row a candidate; `seconds` and `of_roof` are None where it got no number, `why` says so."""
    case = GRAM_CASES[name]
    ways = candidates(case, dtype, device, compiled=compiled)
    verdicts = {way: verdict(run, case, dtype, device) for way, run in ways.items()}
    green = {way: run for way, run in ways.items() if verdicts[way][0] is None}
    times = timing.interleave(green, rounds, device, cold_cache=on_gpu(device))
    nbytes = case.bytes(dtype)
    floor = ceilings.floor(case.flops, nbytes, dtype)
    paper = roof.H100.floor(case.flops, case.bytes(torch.bfloat16), torch.bfloat16)
    size = {"r": case.r, "k": case.k, "p": case.p, "q": case.q, "flops": case.flops, "bytes": nbytes}
    rows = []
    for way, (why, red) in verdicts.items():
        row = {"case": name, **size, "dtype": str(dtype).removeprefix("torch."), "candidate": way}
        row |= {"why": why, "red": red, "floor": floor, "floor_h100": paper, "seconds": None, "of_roof": None}
        if why is None:
            row |= {"seconds": times[way].as_dict(), "of_roof": floor / times[way].median}
        rows.append(row)
    return rows


def table(rows: list[dict]) -> Table:
    """The rows of one case, its work on paper above them."""
    case = rows[0]
    size = ", ".join(f"{letter}={case[letter]}" for letter in "rkpq")
    work = f"{case['flops'] / 1e6:.2f} MFLOP, {case['bytes'] / 1e6:.2f} MB"
    floors = f"floor here {case['floor'] * 1e6:.1f} us, on an H100 in bfloat16 {case['floor_h100'] * 1e6:.2f} us"
    title = f"{case['case']}, {case['dtype']}: {size}; {work}; {floors}"
    shown = Table(title=title, title_justify="left", box=box.SIMPLE)
    shown.add_column("candidate", no_wrap=True)
    for heading in ("us", "quartiles", "of roof"):
        shown.add_column(heading, justify="right", no_wrap=True)
    shown.add_column("no number because", overflow="fold")
    for row in rows:
        if row["why"]:
            shown.add_row(row["candidate"], "-", "-", "-", row["why"])
            continue
        low, high = (f"{q * 1e6:.1f}" for q in row["seconds"]["quartiles"])
        median = f"{row['seconds']['median'] * 1e6:.1f}"
        shown.add_row(row["candidate"], median, f"{low}-{high}", f"{row['of_roof']:.1%}", "")
    return shown


if __name__ == "__main__":
    sys.exit(main())
