"""Results of the ops, to read: a table an op, the ways at a glance, the work on paper."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from rich import box
from rich.table import Table
from rich.text import Text

from bench import roof
from bench.cases import CASES
from bench.ops import IN_EAGER_MODE, by

STYLE = {"title_justify": "left", "box": box.SIMPLE_HEAD, "pad_edge": False, "padding": (0, 1, 0, 0)}


def columns(shown: Table, left: Iterable[str], right: Iterable[str]) -> Table:
    for heading in left:
        shown.add_column(heading, no_wrap=True)
    for heading in right:
        shown.add_column(heading, justify="right", no_wrap=True)
    return shown


def of_op(rows: list[dict]) -> Table:
    """The rows of one op in one dtype: a line a way that got a number or failed."""
    shown = columns(
        Table(title=f"\n{rows[0]['op']}, {rows[0]['dtype']}", **STYLE),
        ("case", "way"),
        ("time", "÷ eager", "quartiles", "÷ compile", "GB/s", "GFLOP/s", "of roof"),
    )
    case = None
    for row in rows:
        if row["why"] and not row["red"]:
            continue
        if case is not None and row["case"] != case:
            shown.add_section()
        name = "" if row["case"] == case else row["case"]
        case = row["case"]
        way = row["way"] + (" *" if row["auto"] else "")
        if row["red"]:
            shown.add_row(name, way, "failed", style="bold red")
            continue
        ratio = row["to_eager"]
        shown.add_row(
            name,
            Text(way, "dim" if by(row["way"]) in IN_EAGER_MODE else ""),
            duration(row["seconds"]["median"]),
            judged(ratio),
            "-".join(f"{q:.2f}" for q in ratio["quartiles"]) if ratio else "-",
            judged(row["to_compile"]),
            f"{row['bandwidth'] / 1e9:.1f}",
            f"{row['rate'] / 1e9:.1f}",
            f"{row['of_roof']:.0%}",
        )
    return shown


def reasons(rows: list[dict]) -> list[Text]:
    """Why ways got no number, a line for each reason, red for what failed."""
    found: dict[tuple[str, str, bool], list[str]] = {}
    for row in rows:
        if row["why"]:
            found.setdefault((row["way"], row["why"], row["red"]), []).append(row["case"])
    lines = []
    for (way, why, red), cases in found.items():
        where = "" if len(cases) == sum(row["way"] == way for row in rows) else f" ({', '.join(cases)})"
        lines.append(Text(f"{way}: no number: {why}{where}", "bold red" if red else "dim"))
    return lines


def duration(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.1f} µs"


def judged(ratio: dict | None) -> Text:
    """Green where it is faster, yellow where it is slower, beyond its quartiles."""
    if ratio is None:
        return Text("-")
    low, high = ratio["quartiles"]
    return Text(f"{ratio['median']:.2f}", "green" if high < 1 else "yellow" if low > 1 else "")


def summary(rows: list[dict]) -> Table:
    """A line an op, dtype and way that is not eager: mean and worst ratio to eager, and how many lose."""
    shown = columns(
        Table(title="ratio to the fastest eager form", **STYLE),
        ("op", "dtype", "way"),
        ("cases", "mean", "best", "worst", "above 1"),
    )
    shown.add_column("worst at", overflow="fold")
    groups: dict[tuple[str, str, str], list[dict]] = {}
    for row in rows:
        if row["to_eager"] and by(row["way"]) not in IN_EAGER_MODE:
            groups.setdefault((row["op"], row["dtype"], row["way"]), []).append(row)
    for key, found in groups.items():
        ratios = [row["to_eager"]["median"] for row in found]
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        slower = sum(ratio > 1 for ratio in ratios)
        worst = max(found, key=lambda row: row["to_eager"]["median"])
        numbers = [f"{x:.2f}" for x in (mean, min(ratios), max(ratios))]
        shown.add_row(*key, str(len(found)), *numbers, Text(str(slower), "yellow" if slower else ""), worst["case"])
    return shown


def on_paper(chosen: dict[str, list[str]], dtypes: Iterable[torch.dtype]) -> Iterable[Table]:
    """Work and floors, a table an op: nothing is run."""
    for op, names in chosen.items():
        shown = columns(
            Table(title=f"{op}: floor on an H100, from memory at {roof.H100.bandwidth / 1e12:.1f} TB/s", **STYLE),
            ("case", "sizes", "dtype"),
            ("MFLOP", "MB", "FLOP/B", "floor", "bound by"),
        )
        for name in names:
            case = CASES[op][name]
            for dtype in dtypes:
                nbytes, floor = case.bytes(dtype), roof.H100.floor(case.flops, case.bytes(dtype), dtype)
                work = f"{case.flops / 1e6:.1f}", f"{nbytes / 1e6:.2f}", f"{case.flops / nbytes:.1f}"
                by = "memory" if nbytes / roof.H100.bandwidth >= floor else "products"
                shown.add_row(name, case.sizes, str(dtype).removeprefix("torch."), *work, duration(floor), by)
        yield shown
