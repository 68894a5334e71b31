"""One whole L2R step against a plain step: fastrw's ways and its peers, model by model, in one run.

Each way is checked against Algorithm 1 first and timed only when it is exact; a way that cannot run says why. Beside
each ratio stand its goal, where it has one, and its FLOP floor: the ratio if every product ran at one speed and nothing
else took time."""

from __future__ import annotations

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
from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

import fastrw
from bench import exactness, goals, layouts, peers, record, roof, tables, timing
from bench.floors import floors
from bench.models import MODELS, Model, on_this
from bench.steps import BASE, EXPECTED, STEPS, WITHOUT_FASTRW, Step, double_backward, plain
from fastrw.ops import extension

# glibc ignores a first value above 32 MiB
MALLOC = {
    "default": {},
    "retain": {"MALLOC_MMAP_THRESHOLD_": str(32 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(16 * 2**30)},
}
EXTENSION = {"on": {}, "off": {"FASTRW_DISABLE_EXTENSION": "1"}}
VARIABLES = [*MALLOC["retain"], *EXTENSION["off"]]

EPILOG = f"""\
the ways, beside `plain` (one forward and one backward of the mean loss):
  Reweighter            the step of fastrw.Reweighter as it comes; what served it stands beside it
  fastrw.backward       the same from losses made by hand, in one forward where that is allowed
  all weights positive  the same with normalize="shift": no example has weight 0, so nothing can be skipped
  update=backward       scores, then an ordinary backward of the weighted losses: little memory
  params=last           gradients compared in the last layer alone
  layerwise, tangent, auto      the methods of fastrw, each followed by an ordinary weighted backward
  meta_weights          the drop-in: weights, then a forward and backward of one's own
  plain and Reweighter, channels_last     model and inputs laid out so; the Reweighter is held against that plain step
  torch.func.jvp, vmap(grad), double_backward     as one would write them in torch alone
  {", ".join(peers.PEERS)}     other libraries: pip install -e .[peers]; without them their lines say so

examples:
  python -m bench.end_to_end                                 all that fits this machine, all ways
  python -m bench.end_to_end lenet mlp --methods Reweighter --rounds 25
  python -m bench.end_to_end --malloc both --extension both  four tables: glibc as it comes and keeping its memory,
                                                             with the compiled extension and without it
  python -m bench.end_to_end --json new.json --plot new.png

the columns:
  ratio       median time over that of the plain step; the ways of a model take turns. Then its quartiles
  goal        what the ratio should come to, on two CPU cores; red is missed
  floor       the ratio by FLOPs alone: what could be, if every product ran at one speed
  memory      peak bytes of tensors over those of the plain step, and its goal
  err s, g    of scores and gradient against Algorithm 1 in the dtype that is timed

A way that is not exact gets no number, and the exit status is 1."""


def main(argv: list[str] | None = None) -> int:
    options = (words := parser()).parse_args(argv)
    record.known(words, options.models, MODELS)
    if options.rounds < 1 or options.patience <= 0:
        words.error("--rounds and --patience are positive")
    options.models = options.models or on_this(options.device)
    options.extension = options.extension or here()
    if options.extension != "off" and extension.reason is not None and "FASTRW_DISABLE_EXTENSION" not in os.environ:
        words.error(f"there is no compiled extension: {extension.reason}; take --extension off")
    console = record.console()
    result = {"bench": "end_to_end", **record.header(options.device), "runs": [], "complete": False}
    for malloc, ext in itertools.product(asked(options.malloc, MALLOC), asked(options.extension, EXTENSION)):
        environment = {**MALLOC[malloc], **EXTENSION[ext]}
        if all(os.environ.get(key) == environment.get(key) for key in VARIABLES):
            result["runs"].append(run(options, malloc, ext, console, partial(save, options, result)))
        else:
            result["runs"].append(run_elsewhere(options, malloc, ext, environment))
        save(options, result)
    result["complete"] = True
    save(options, result)
    if options.plot:
        from bench.plot import plot_steps

        plot_steps(result["runs"], options.plot)
    return 1 if any(row["red"] for each in result["runs"] for row in each["rows"]) else 0


def here() -> str:
    """Does this process have the extension?"""
    return "on" if extension.reason is None else "off"


def asked(choice: str, every: dict) -> list[str]:
    return list(every) if choice == "both" else [choice]


def save(options: argparse.Namespace, result: dict, running: dict | None = None) -> None:
    if options.json:
        record.write_json(options.json, {**result, "runs": result["runs"] + ([running] if running else [])})


def parser() -> argparse.ArgumentParser:
    words = argparse.ArgumentParser(
        prog="python -m bench.end_to_end", description=__doc__.splitlines()[0], epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    every = list(STEPS)[1:]
    words.add_argument(
        "models", nargs="*", metavar="model", help=f"of {', '.join(MODELS)}; by default those for this device"
    )
    words.add_argument("--methods", nargs="+", choices=every, default=every, metavar="WAY", help="see below; all")
    words.add_argument("--rounds", type=int, default=9, help="turns that each way takes (%(default)s)")
    words.add_argument(
        "--patience", type=float, default=8, metavar="S",
        help="a way that has taken so many seconds ends with three turns (%(default)s)",
    )  # fmt: skip
    words.add_argument("--threads", type=int, default=torch.get_num_threads(), help="%(default)s")
    words.add_argument("--device", default=record.device(), help="cpu or cuda (%(default)s)")
    words.add_argument("-n", type=int, help="training examples, instead of the model's own number")
    words.add_argument("-m", type=int, help="validation examples")
    words.add_argument("--malloc", choices=[*MALLOC, "both"], default="default", help="glibc's: memory kept or not")
    words.add_argument("--extension", choices=[*EXTENSION, "both"], help="with the compiled extension or without it")
    words.add_argument("--json", metavar="FILE", help="the result, rewritten whole after every model")
    words.add_argument("--plot", metavar="FILE", help="a PNG of ratio by model and way")
    return words


def run_elsewhere(options: argparse.Namespace, malloc: str, ext: str, environment: dict) -> dict:
    """The same run in a process of its own: these settings are read when a process starts."""
    environment = {k: v for k, v in os.environ.items() if k not in VARIABLES} | environment
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder, "run.json")
        words = [*options.models, "--malloc", malloc, "--extension", ext, "--json", str(found)]
        words += ["--device", options.device, "--patience", str(options.patience)]
        words += ["--rounds", str(options.rounds), "--threads", str(options.threads), "--methods", *options.methods]
        words += [word for letter in "nm" if (size := getattr(options, letter)) for word in (f"-{letter}", str(size))]
        command = [sys.executable, "-m", "bench.end_to_end", *words]
        status = subprocess.run(command, env=environment, cwd=record.ROOT).returncode
        if not found.exists():
            raise ChildProcessError(f"{record.command(command)} ended with exit status {status}")
        return json.loads(found.read_text())["runs"][0]


def run(options: argparse.Namespace, malloc: str, ext: str, console: Console, save: Callable) -> dict:
    torch.set_num_threads(options.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # the bound is float32's
    ceilings = roof.measure(options.device, (torch.float32,))
    machine, before = record.machine(options.device), os.getloadavg()
    console.print(
        f"{machine.get('gpu', machine['cpu'])}, {machine['threads']} threads, torch {torch.__version__}, malloc "
        f"{malloc}, {'with' if ext == 'on' else 'WITHOUT'} the compiled extension; measured roof: {ceilings}; load "
        f"before {before[0]:.2f}. {record.caution(machine)}"
    )
    # without the extension the ways that never use it would only be measured again
    methods = [way for way in options.methods if ext == "on" or way not in WITHOUT_FASTRW]
    rows: list[dict] = []
    out = {"malloc": malloc, "extension": ext, "machine": machine, "roof": ceilings.as_dict(), "rows": rows}
    for name in options.models:
        with record.progress() as status:
            found = measure(name, MODELS[name], methods, options, ext, partial(saying, status, name))
        console.print(table(name, found))
        rows += found
        out["load"] = {"before": before, "after": os.getloadavg()}
        save(out)
    return out


def saying(status: Status, name: str, doing: str) -> None:
    status.update(f"{name}: {doing}")


def measure(
    name: str, case: Model, methods: list[str], options: argparse.Namespace, ext: str,
    say: Callable[[str], None] = lambda doing: None,
) -> list[dict]:  # fmt: skip
    """One row a way; `seconds`, `ratio` and memory are None where it could not run or was not exact, `why` says so.

    options: n and m (None: the case's own), device, rounds and patience.
    """
    device = options.device
    model, batch, val_batch = case.make(device, options.n, options.m)
    least = floors(copy.deepcopy(model), batch, val_batch)
    say("Algorithm 1")
    checked = case.small(batch, val_batch)
    truths = {expected: exactness.truths(model, *checked, expected)
              for expected in {EXPECTED.get(method, double_backward) for method in methods}}  # fmt: skip
    rows = {"plain": {"served_by": "plain", "errors": None, "why": None, "red": False}}
    for method in methods:
        say(f"checking {method}")
        rows[method] = admit(STEPS[method], truths[EXPECTED.get(method, double_backward)])
    del truths

    def way(step):
        model.zero_grad()
        step(model, batch, val_batch)

    steps = {"plain": plain} | {method: STEPS[method] for method in methods if rows[method]["why"] is None}
    ways = {method: partial(way, step) for method, step in steps.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said once, when the way was checked
        say(f"timing {len(ways)} ways in turns")
        times = timing.interleave(ways, options.rounds, device, patience=options.patience)
        peaks = {}
        for method, step in steps.items():
            say(f"memory of {method}")
            once = partial(step, model, batch, val_batch)
            peaks[method] = timing.peak_memory(once, device, before=model.zero_grad)
    for method, row in rows.items():
        row |= {"model": name, "method": method, "floor": floor_of(method, row["served_by"], least)}
        row |= {"seconds": None, "ratio": None, "quartiles": None, "peak_bytes": None, "peak_ratio": None}
        row["base"] = base = BASE[method] if BASE.get(method) in times else "plain"
        if method in ways:
            at = times[base].median
            row["seconds"], row["ratio"] = times[method].as_dict(), times[method].median / at
            row["quartiles"] = [q / at for q in times[method].quartiles]
            row["peak_bytes"], row["peak_ratio"] = peaks[method], peaks[method] / peaks[base]
    goals.set_goals(list(rows.values()), ext, device)
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
        if not isinstance(error, exactness.Red | fastrw.Refused | peers.NotInstalled | layouts.NoLayout):
            why = f"{type(error).__name__}: {why}"
        return {"served_by": None, "errors": None, "why": why, "red": red}


def floor_of(method: str, served_by: str | None, least: dict[str, float]) -> float | None:
    """The floor of what served; the drop-in has a forward of its own besides."""
    floor = least.get(method if method in least else served_by)
    return floor + least["forward"] if floor and method == "meta_weights" else floor


def table(name: str, rows: list[dict]) -> Table:
    shown = tables.columns(Table(title=f"{name}: ratio to a plain step", **tables.STYLE), ("way",), ())
    shown.add_column("served by", overflow="fold", max_width=27)
    tables.columns(shown, (), ("ms", "ratio", "goal", "quartiles", "floor", "memory", "goal", "err s", "err g"))
    for row in rows:
        floor = f"{row['floor']:.2f}" if row["floor"] else "-"
        if row["why"]:
            shown.add_row(
                row["method"],
                textwrap.shorten(row["why"], 110, placeholder="…"),
                "-",
                "-",
                "",
                "-",
                floor,
                style="red" if row["red"] else "dim",
            )
            continue
        served = row["served_by"] + ("" if row["base"] == "plain" else f"; ÷ {row['base']}")
        errors = [f"{row['errors'][key]:.0e}" for key in ("scores", "gradient")] if row["errors"] else ["-", "-"]
        shown.add_row(
            row["method"],
            served,
            f"{row['seconds']['median'] * 1e3:.2f}",
            *against(row["ratio"], row["goal"]),
            "-".join(f"{q:.2f}" for q in row["quartiles"]),
            floor,
            *against(row["peak_ratio"], row["memory_goal"]),
            *errors,
        )
    return shown


def against(figure: float, goal: float | None) -> tuple[Text, str]:
    """A figure and its goal: green where it is met, red where it is missed."""
    colour = "" if goal is None else "red" if goals.missed(figure, goal) else "green"
    return Text(f"{figure:.2f}", colour), "" if goal is None else f"{goal:.2f}"


if __name__ == "__main__":
    sys.exit(main())
