"""One whole L2R step against a plain step: fastrw's ways and its peers, on five models, in one run.

Each way is checked against Algorithm 1 first and timed only when it is exact; a way that cannot run says why. Beside
each ratio stands its FLOP floor: the ratio if every product ran at one speed and nothing else took time."""

from __future__ import annotations

import argparse
import copy
import functools
import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from rich import box
from rich.console import Console
from rich.table import Table

import fastrw
from bench import exactness, record, roof, timing
from bench.floors import floors
from bench.models import MODELS
from bench.steps import EXPECTED, STEPS, Step, double_backward, plain

# glibc ignores a first value above 32 MiB
MALLOC = {
    "default": {},
    "retain": {"MALLOC_MMAP_THRESHOLD_": str(32 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(16 * 2**30)},
}


def main(argv: list[str] | None = None) -> int:
    options = (words := parser()).parse_args(argv)
    record.known(words, options.models, MODELS)
    console = record.console()
    settings = list(MALLOC) if options.malloc == "both" else [options.malloc]
    runs = []
    for setting in settings:
        if all(os.environ.get(key) == MALLOC[setting].get(key) for key in MALLOC["retain"]):
            runs.append(run(options, setting, console))
        else:
            runs.append(run_elsewhere(options, setting))
    result = {"bench": "end_to_end", **record.header(options.device), "runs": runs}
    if options.json:
        record.write_json(options.json, result)
    if options.plot:
        from bench.plot import plot_steps

        plot_steps(runs, options.plot)
    return 1 if any(row["red"] for each in runs for row in each["rows"]) else 0


def parser() -> argparse.ArgumentParser:
    words = argparse.ArgumentParser(prog="python -m bench.end_to_end", description=__doc__.splitlines()[0])
    words.add_argument("models", nargs="*", metavar="model", help=f"of {', '.join(MODELS)}; all by default")
    words.add_argument("--methods", nargs="+", choices=list(STEPS)[1:], default=list(STEPS)[1:], metavar="METHOD")
    words.add_argument("--rounds", type=int, default=9)
    words.add_argument("--threads", type=int, default=torch.get_num_threads())
    words.add_argument("--device", default=record.device(), help="cpu or cuda")
    words.add_argument("-n", type=int, help="training examples, instead of the model's own number")
    words.add_argument("-m", type=int, help="validation examples")
    words.add_argument("--malloc", choices=[*MALLOC, "both"], default="default", help="glibc's: memory kept or not")
    words.add_argument("--json", metavar="FILE")
    words.add_argument("--plot", metavar="FILE", help="a PNG of ratio by model and way")
    return words


def run_elsewhere(options: argparse.Namespace, setting: str) -> dict:
    """The same run in a process of its own: malloc reads its settings when a process starts."""
    environment = {k: v for k, v in os.environ.items() if k not in MALLOC["retain"]} | MALLOC[setting]
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder, "run.json")
        words = [*options.models, "--malloc", setting, "--json", str(found), "--device", options.device]
        words += ["--rounds", str(options.rounds), "--threads", str(options.threads), "--methods", *options.methods]
        words += [word for letter in "nm" if (size := getattr(options, letter)) for word in (f"-{letter}", str(size))]
        subprocess.run([sys.executable, "-m", "bench.end_to_end", *words], env=environment, cwd=record.ROOT)
        return json.loads(found.read_text())["runs"][0]


def run(options: argparse.Namespace, setting: str, console: Console) -> dict:
    torch.set_num_threads(options.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # the bound is float32's
    ceilings = roof.measure(options.device, (torch.float32,))
    machine, before = record.machine(options.device), os.getloadavg()
    console.print(
        f"{machine.get('gpu', machine['cpu'])}, {machine['threads']} threads, torch {torch.__version__}, "
        f"malloc {setting}; measured roof: {ceilings}; load before {before[0]:.2f}. {record.caution(machine)}"
    )
    rows = []
    for name in options.models or MODELS:
        found = measure(name, options.methods, options.rounds, options.device, options.n, options.m)
        console.print(table(name, found))
        rows += found
    load = {"before": before, "after": os.getloadavg()}
    return {"malloc": setting, "machine": machine, "roof": ceilings.as_dict(), "load": load, "rows": rows}


def measure(
    name: str, methods: list[str], rounds: int, device: str, n: int | None = None, m: int | None = None
) -> list[dict]:
    """One row a way; `seconds`, `ratio` and memory are None where it could not run or was not exact, `why` says so."""
    model, batch, val_batch = MODELS[name].make(device, n, m)
    least = floors(copy.deepcopy(model), batch, val_batch)
    truths = {expected: exactness.truths(model, batch, val_batch, expected)
              for expected in {EXPECTED.get(method, double_backward) for method in methods}}  # fmt: skip
    rows = {"plain": {"served_by": "plain", "errors": None, "why": None, "red": False}}
    for method in methods:
        rows[method] = admit(STEPS[method], truths[EXPECTED.get(method, double_backward)])

    def way(step):
        model.zero_grad()
        step(model, batch, val_batch)

    steps = {"plain": plain} | {method: STEPS[method] for method in methods if rows[method]["why"] is None}
    ways = {method: functools.partial(way, step) for method, step in steps.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said once, when the way was checked
        times = timing.interleave(ways, rounds, device)
        peaks = {}
        for method, step in steps.items():
            model.zero_grad()  # the last way's gradients must not be freed within this one's account
            peaks[method] = timing.peak_memory(functools.partial(step, model, batch, val_batch), device)
    base = times["plain"].median
    for method, row in rows.items():
        row |= {"model": name, "method": method, "floor": floor_of(method, row["served_by"], least)}
        row |= {"seconds": None, "ratio": None, "quartiles": None, "peak_bytes": None, "peak_ratio": None}
        if method in ways:
            row["seconds"], row["ratio"] = times[method].as_dict(), times[method].median / base
            row["quartiles"] = [q / base for q in times[method].quartiles]
            row["peak_bytes"], row["peak_ratio"] = peaks[method], peaks[method] / peaks["plain"]
    return list(rows.values())


def admit(step: Step, truths: tuple[exactness.Truth, ...]) -> dict:
    """Run it once against Algorithm 1: its errors and what served it, or why it gets no number."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            errors, served_by = exactness.check(step, truths)
        return {"served_by": served_by, "errors": errors._asdict(), "why": None, "red": False}
    except Exception as error:  # a peer may fail in any way: the row says how
        why, red = str(error).strip().split(". ")[0], isinstance(error, exactness.Red)
        if not isinstance(error, exactness.Red | fastrw.Refused):
            why = f"{type(error).__name__}: {why}"
        return {"served_by": None, "errors": None, "why": why, "red": red}


def floor_of(method: str, served_by: str | None, least: dict[str, float]) -> float | None:
    """The floor of what served; the drop-in has a forward of its own besides."""
    floor = least.get(method if method in EXPECTED else served_by or method)
    return floor + least["forward"] if floor and method == "meta_weights" else floor


def table(name: str, rows: list[dict]) -> Table:
    shown = Table(title=f"{name}: ratio to a plain step", title_justify="left", box=box.SIMPLE)
    shown.add_column("way", no_wrap=True)
    shown.add_column("served by", overflow="fold")
    for heading in ("ms", "ratio", "quartiles", "floor", "memory", "err s", "err g"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        floor = f"{row['floor']:.2f}" if row["floor"] else "-"
        if row["why"]:
            shown.add_row(row["method"], row["why"], "-", "-", "-", floor, "-", "-", "-")
            continue
        low, high = row["quartiles"]
        errors = [f"{row['errors'][key]:.0e}" for key in ("scores", "gradient")] if row["errors"] else ["-", "-"]
        times = [f"{row['seconds']['median'] * 1e3:.2f}", f"{row['ratio']:.2f}", f"{low:.2f}-{high:.2f}", floor]
        shown.add_row(row["method"], row["served_by"], *times, f"{row['peak_ratio']:.2f}", *errors)
    return shown


if __name__ == "__main__":
    sys.exit(main())
