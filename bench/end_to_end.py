"""One whole L2R step against a plain step: fastrw's variants and other libraries, model by model, in one run.

Each variant is checked against Algorithm 1 first and timed only when it is exact; one that cannot run says why. Beside
each ratio stand its goal, where it has one, and its FLOP floor: the ratio if every product ran at one speed and nothing
else took time."""

import argparse
import copy
import itertools
import json
import os
import subprocess
import sys
import tempfile
import textwrap
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from rich.table import Table
from rich.text import Text

import fastrw
from bench import compiled, exactness, goals, peers, record, roof, tables, timing, twins
from bench.driver import Run, make_parser, positive, set_clock, share, some_of
from bench.floors import floors
from bench.models import MODELS, Model, on_this
from bench.steps import BASE, EXPECTED, STEPS, WITHOUT_FASTRW, Step, double_backward
from fastrw.ops import extension

# glibc ignores a first value above 32 MiB
MALLOC = {
    "default": {},
    "retain": {"MALLOC_MMAP_THRESHOLD_": str(32 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(16 * 2**30)},
}
EXTENSION = {"on": {}, "off": {"FASTRW_DISABLE_EXTENSION": "1"}}
VARIABLES = [*MALLOC["retain"], *EXTENSION["off"]]

EPILOG = f"""\
the variants, beside `plain` (one forward and one backward of the mean loss):
  Reweighter            the step of fastrw.Reweighter with its defaults; what served it stands beside it
  fastrw.backward       the same from losses made by hand, in one forward where that is allowed
  all weights positive  the same with normalize="shift": no example has weight 0, so nothing can be skipped
  update=backward       scores, then an ordinary backward of the weighted losses: little memory
  params=last           gradients compared in the last layer alone
  layerwise, tangent, auto      the methods of fastrw, each followed by an ordinary weighted backward
  meta_weights          the weights, then a forward and backward written by the user
  plain and Reweighter, channels_last     model and inputs in that layout; the ratio is taken to that plain step
  plain and Reweighter, compiled      by torch.compile: the loss with the model, and the whole step (compile=True); the
                        ratio is taken to that plain step. Below the table: what compiling took, and the steps that pay
                        for it. On {", ".join(compiled.QUICKLY)}; on others, for minutes, where --methods names them
  torch.func.jvp, vmap(grad), double_backward     as one would write them in torch alone
  {", ".join(peers.PEERS)}     other libraries: pip install -e .[peers]; without them their rows say so

examples:
  python -m bench.end_to_end lenet mlp --methods Reweighter --rounds 25
  python -m bench.end_to_end --malloc both --extension both --json new.json --plot new.png

the columns:
  ratio       median time over that of the plain step; the variants of a model take turns. Then its quartiles
  goal        the goal of the ratio, on two CPU cores; red is missed
  floor       the ratio by FLOPs alone: what could be reached if every product ran at one speed
  memory      peak bytes of tensors over those of the plain step, and its goal
  err s, g    of scores and gradient against Algorithm 1 in the measured dtype

A variant that is not exact gets no number, and the exit status is 1."""


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    parser = make_parser("bench.end_to_end", __doc__, EPILOG)
    share(parser, "models", help=f"of {', '.join(MODELS)}; by default those for this device")
    some_of(parser, "--methods", list(STEPS)[1:])
    share(parser, "--rounds", "--threads", "--device", "--cpu-time", "--json", "--plot")
    parser.add_argument("--patience", type=positive, default=8, metavar="S",
                        help="a variant stops after three rounds that took so long (%(default)s s)")  # fmt: skip
    parser.add_argument("-n", type=int, help="training examples, instead of the model's own number")
    parser.add_argument("-m", type=int, help="validation examples")
    parser.add_argument("--malloc", choices=[*MALLOC, "both"], default="default", help="glibc's: memory kept or not")
    parser.add_argument("--extension", choices=[*EXTENSION, "both"], help="with the compiled extension or without it")
    options = parser.parse_args(argv)
    set_clock(parser, options)
    options.models = options.models or on_this(options.device)
    options.named = options.methods != [*STEPS][1:]
    options.methods = [method for method in STEPS if method in {*options.methods, *map(BASE.get, options.methods)}]
    options.extension = options.extension or ("on" if extension.reason is None else "off")
    if options.extension != "off" and extension.reason is not None and "FASTRW_DISABLE_EXTENSION" not in os.environ:
        parser.error(f"there is no compiled extension: {extension.reason}; take --extension off")
    chosen = [[*every] if choice == "both" else [choice]
              for choice, every in ((options.malloc, MALLOC), (options.extension, EXTENSION))]  # fmt: skip
    with Run("end_to_end", options, clock=timing.clock.__name__, runs=[]) as run:
        for malloc, ext in itertools.product(*chosen):
            environment = {**MALLOC[malloc], **EXTENSION[ext]}
            if all(os.environ.get(key) == environment.get(key) for key in VARIABLES):
                measure_all(run, options, malloc, ext)
            else:
                found = run_elsewhere([*argv, "--malloc", malloc, "--extension", ext], environment)
                run.result["runs"].append(found)
    return run.status


def run_elsewhere(argv: list[str], environment: dict) -> dict:
    """The same run in another process: these settings are read when a process starts."""
    environment = {k: v for k, v in os.environ.items() if k not in VARIABLES} | environment
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder, "run.json")
        command = [sys.executable, "-m", "bench.end_to_end", *argv, "--json", str(found), "--plot", ""]
        status = subprocess.run(command, env=environment, cwd=record.ROOT).returncode
        if not found.exists():
            raise ChildProcessError(f"{record.command(command)} ended with exit status {status}")
        return json.loads(found.read_text())["runs"][0]


def measure_all(run: Run, options: argparse.Namespace, malloc: str, ext: str) -> None:
    """Measure all models in this process; the result is written after each of them."""
    ceilings = roof.measure(options.device, (torch.float32,))
    machine, before = record.machine(options.device), os.getloadavg()
    built = f"{'with' if ext == 'on' else 'WITHOUT'} the compiled extension"
    run.opening(f"malloc {malloc}, {built}; measured roof: {ceilings}")
    # without the extension the variants that never use it would only be measured again
    methods = [method for method in options.methods if ext == "on" or method not in WITHOUT_FASTRW]
    out = {"malloc": malloc, "extension": ext, "machine": machine, "roof": ceilings.as_dict(), "rows": []}
    run.result["runs"].append(out)
    for name in options.models:
        slow = () if options.named or name in compiled.QUICKLY else compiled.EAGER
        here = [method for method in methods if method not in slow]
        with record.progress(f"{name}: ") as say, compiled.from_nothing(here):
            found = measure(name, MODELS[name], here, options, ext, say)
        out["load"] = {"before": before, "after": os.getloadavg()}
        run.add(found, table(name, found), *compiled.costs(found), to=out)


def measure(
    name: str, case: Model, methods: list[str], options: argparse.Namespace, ext: str, say: Callable[[str], None]
) -> list[dict]:
    """A row for each variant, named by its key "method"; `seconds`, `ratio` and memory are None where it could not run
    or was not exact, as `why` says.

    options: n and m (None: the case's own), device, rounds and patience.
    """
    device = options.device
    model, batch, val_batch = case.make(device, options.n, options.m)
    least = floors(copy.deepcopy(model), batch, val_batch)
    expected = {method: EXPECTED.get(method, double_backward) for method in methods}
    rows = {"plain": {"served_by": "plain", "errors": None, "why": None, "red": False}}
    peaks = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        say("Algorithm 1")
        checked = case.small(batch, val_batch)
        truths = {step: exactness.truths(model, *checked, step) for step in {*expected.values()}}
        for method in methods:
            say(f"checking {method}")
            rows[method] = admit(STEPS[method], truths[expected[method]])
        del truths
        exact = [method for method, row in rows.items() if row["why"] is None]
        steps = {method: partial(STEPS[method], model, batch, val_batch) for method in exact}
        say(f"timing {len(steps)} variants in turns")
        runs = {method: lambda step=step: (model.zero_grad(), step()) for method, step in steps.items()}
        times = timing.interleave(runs, options.rounds, device, patience=options.patience)
        for method, step in steps.items():
            say(f"memory of {method}")
            peaks[method] = timing.peak_memory(step, device, before=model.zero_grad)
    for method, row in rows.items():
        base = BASE[method] if BASE.get(method) in times else "plain"
        floor = least.get(method if method in least else row["served_by"])
        if floor and method == "meta_weights":  # another forward follows
            floor += least["forward"]
        row |= {"model": name, "method": method, "base": base, "floor": floor}
        row |= dict.fromkeys(("seconds", "ratio", "quartiles", "to_plain", "peak_bytes", "peak_ratio"))
        if method in steps:
            row |= times[method].against(times[base]) | {"to_plain": times[method].median / times["plain"].median}
            row |= {"peak_bytes": peaks[method], "peak_ratio": peaks[method] / peaks[base]}
    compiled.tell_costs(rows)
    goals.set_goals(rows.values(), ext, device)
    return [*rows.values()]


def admit(step: Step, truths: tuple[exactness.Truth, ...]) -> dict:
    """Run it once against Algorithm 1: its errors and what served it, or why it gets no number."""
    try:
        errors, served_by = exactness.check(step, truths)
        return {"served_by": served_by, "errors": errors._asdict(), "why": None, "red": False}
    except Exception as error:  # another library may fail in any way: the row says how
        why, red = str(error).strip().split(". ")[0], isinstance(error, exactness.Red)
        if not isinstance(error, exactness.Red | fastrw.Refused | twins.CannotRun):
            why = f"{type(error).__name__}: {why}"
        return {"served_by": None, "errors": None, "why": why, "red": red}


def table(name: str, rows: list[dict]) -> Table:
    lines = []
    for row in rows:
        why = row["why"] and textwrap.shorten(row["why"], 110, placeholder="…")
        over = "" if row["base"] == "plain" else f"; ÷ {row['base']} (÷ plain: {tables.number(row['to_plain'])})"
        errors = [*row["errors"].values()] if row["errors"] else [None, None]
        lines.append({
            "variant": row["method"],
            "served by": why or row["served_by"] + over,
            ">ms": tables.median(row),
            ">ratio": Text(tables.number(row["ratio"]), goals.colour(row["ratio"], row["goal"])),
            ">goal": tables.number(row["goal"], missing=""),
            ">quartiles": tables.quartiles(row["quartiles"]),
            ">floor": tables.number(row["floor"]),
            ">memory": Text(tables.number(row["peak_ratio"]), goals.colour(row["peak_ratio"], row["memory_goal"])),
            ">goal ": tables.number(row["memory_goal"], missing=""),
            **{f">err {of}": tables.number(error, ".0e") for of, error in zip("sg", errors, strict=True)},
            "style": tables.style(row),
        })  # fmt: skip
    return tables.table(f"{name}: ratio to a plain step", lines, fold="served by")


if __name__ == "__main__":
    sys.exit(main())
