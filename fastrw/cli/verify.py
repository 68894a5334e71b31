"""`python -m fastrw verify`: every method and backend against float64, on the zoo (the collection of test models) or on
real models of public packages."""

import argparse
import json
import sys
import warnings

import torch
from rich.box import MARKDOWN, SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Column, Table

from fastrw.api.options import METHODS
from fastrw.api.verify import VerificationError, verify
from fastrw.cli import real_models
from fastrw.testing import Case, cases, real

_FAMILIES = "".join(f"\n  {name:<12} {what}" for name, (what, _) in real.FAMILIES.items())
EPILOG = f"""\
examples:
  python -m fastrw verify                           all test models, in float32 on the CPU
  python -m fastrw verify --models "resnet*"        some of them
  python -m fastrw verify --models hf               real models, here of Hugging Face (needs its packages installed)
  python -m fastrw verify --models real --markdown  all real models that are installed, as a Markdown table
  python -m fastrw verify --device cuda             on a GPU, where the CUDA and Triton backends serve
  python -m fastrw verify --dtype float64 --json    {{"ok": ..., "rows": [{{"model", "method", "backend", ...}}]}}

real models:{_FAMILIES}

A cell is the relative error of the scores against one gradient per example in float64. A dash is a method that
refused, because it would not be exact: that is no failure. "served by" is what method="auto" takes: the first that does
not refuse. The exit status is 1 if any error is above its bound."""

STYLE = {"box": SIMPLE_HEAD, "pad_edge": False}
AUTO = ("layerwise", "tangent", "per_example")  # what method="auto" tries, in this order
DTYPES = {"float32": torch.float32, "float64": torch.float64}
Rows = list[dict]  # the fields of a VerifyRow, its model and whether it is ok
Columns = list[tuple[str, str]]  # (method, backend) that served at least one model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m fastrw verify`."""
    parser.epilog = EPILOG
    parser.add_argument(
        "--models", default="*", metavar="PATTERN",
        help="shell pattern for the names of test models; or a family of real models (below), or real: all of them",
    )  # fmt: skip
    parser.add_argument("--dtype", choices=DTYPES, help="default: float32; of real models, float64")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: cpu)")
    printed = parser.add_mutually_exclusive_group()
    printed.add_argument("--json", action="store_true", help="one JSON object, no table")
    printed.add_argument("--markdown", action="store_true", help="the tables in Markdown")


def run(args: argparse.Namespace) -> int:
    """Shows the errors of each model and the worst of each method; 0 if all are within bounds, else 1; 2: no model."""
    try:
        families = real_models.families(args.models)
    except ModuleNotFoundError as error:
        sys.stderr.write(f"fastrw verify: {error}\n")
        return 2
    if families:
        return _run_real(args, families)
    if not (chosen := cases(args.models)):
        sys.stderr.write(f"fastrw verify: --models must match the name of a test model, got {args.models!r}\n")
        return 2
    errors = Console(stderr=True)
    watched = track(chosen, "verifying", console=errors, disable=not errors.is_terminal, transient=True)
    dtype = DTYPES[args.dtype or "float32"]
    rows = [row for case in watched for row in _verified(case, dtype, args.device)]
    wrong = [row for row in rows if not row["ok"]]
    if args.json:
        sys.stdout.write(json.dumps({"ok": not wrong, "rows": rows}, indent=1) + "\n")
        return 1 if wrong else 0
    served = {(row["method"], row["backend"]) for row in rows if not row["refused"]}
    columns = sorted(served, key=lambda column: ([*METHODS].index(column[0]), column[1]))
    console = Console(width=None if sys.stdout.isatty() else 200 if args.markdown else 120)
    console.print(_table(rows, columns, args.markdown), _summary(rows, columns, args.markdown), sep="\n")
    for row in wrong:
        text = "wrong: {model} by {method}, {backend}: error {error:.1e}, bound {bound:.1e}".format_map(row)
        console.print(text, style="red", soft_wrap=True)
    return 1 if wrong else 0


def _run_real(args: argparse.Namespace, families: list[str]) -> int:
    """Shows the method that serves each real model, and its error."""
    errors = Console(stderr=True)
    chosen = [(family, case) for family in families for case in real.cases(family)]
    watched = track(chosen, "verifying", console=errors, disable=not errors.is_terminal, transient=True)
    dtype = DTYPES[args.dtype or "float64"]
    rows = [real_models.verified(family, case, dtype, args.device) for family, case in watched]
    wrong = not all(row["ok"] for row in rows)
    if args.json:
        sys.stdout.write(json.dumps({"ok": not wrong, "rows": rows}, indent=1) + "\n")
        return 1 if wrong else 0
    style = {"box": MARKDOWN} if args.markdown else STYLE
    console = Console(width=None if sys.stdout.isatty() else 250 if args.markdown else 120)
    console.print(real_models.table(rows, **style), real_models.summary(rows, **style), sep="\n")
    return 1 if wrong else 0


def _verified(case: Case, dtype: torch.dtype, device: str) -> Rows:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's warnings about these models do not matter here
        try:
            report = verify(*case.make(dtype, device), **case.kwargs)
        except VerificationError as wrong:
            report = wrong.report
    return [{"model": case.name, **vars(row), "ok": row.ok} for row in report.rows]


def _cell(row: dict | None) -> str:
    if row is None or row["refused"]:
        return "[dim]-[/]"
    return f"[{'green' if row['ok'] else 'bold red'}]{row['error']:.0e}[/]"


def _table(rows: Rows, columns: Columns, markdown: bool = False) -> Table:
    """A line per model: the method that serves, and the error of each method by each backend."""
    style = {"box": MARKDOWN} if markdown else STYLE
    table = Table(
        Column("model", no_wrap=True), "served by", *(f"{m.replace('_', ' ')} {b}" for m, b in columns), **style
    )
    at = {(row["model"], row["method"], row["backend"]): row for row in rows}
    for model in dict.fromkeys(row["model"] for row in rows):
        served = {method for (name, method, _), row in at.items() if name == model and not row["refused"]}
        auto = next((method for method in AUTO if method in served), "refused")
        table.add_row(model, auto.replace("_", " "), *(_cell(at.get((model, *column))) for column in columns))
    return table


def _summary(rows: Rows, columns: Columns, markdown: bool = False) -> Table:
    """A line per method and backend: how many models it served and refused, and the error nearest its bound."""
    style = {"box": MARKDOWN} if markdown else STYLE
    table = Table("method", "backend", "served", "refused", "wrong", "worst", "bound", "on", **style)
    for method, backend in columns:
        here = [row for row in rows if row["method"] == method and row["backend"] in (backend, "any")]
        served = [row for row in here if not row["refused"]]
        worst = max(served, key=lambda row: row["error"] / row["bound"])
        counts = len(served), len(here) - len(served), sum(not row["ok"] for row in served)
        table.add_row(method, backend, *map(str, counts), _cell(worst), f"{worst['bound']:.0e}", worst["model"])
    return table
