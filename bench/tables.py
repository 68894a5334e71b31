"""Results to read: one renderer for all tables, and the tables of the ops."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby, product

import torch
from rich import box
from rich.table import Table
from rich.text import Text

from bench import roof
from bench.cases import CASES
from bench.ops import EAGER_MODE, by


def table(title: str, headings: Sequence[str], rows: Iterable[Sequence] = (), fold: str | None = None) -> Table:
    """A table; a heading that begins with ">" is right-aligned, and only the column `fold` may be wrapped."""
    shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in headings:
        if heading == fold:
            shown.add_column(heading, overflow="fold", max_width=27)
        else:
            shown.add_column(heading.lstrip(">"), justify="right" if heading[:1] == ">" else "left", no_wrap=True)
    for row in rows:
        shown.add_row(*row)
    return shown


def quartiles(pair: Sequence[float]) -> str:
    return "-".join(f"{q:.2f}" for q in pair)


def duration(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.1f} µs"


def of_op(rows: list[dict]) -> Table:
    """The rows of one op in one dtype: a line for each variant that got a number or failed."""
    headings = "case", "variant", ">time", ">÷ eager", ">quartiles", ">÷ compile", ">GB/s", ">GFLOP/s", ">of roof"
    shown = table(f"\n{rows[0]['op']}, {rows[0]['dtype']}", headings)
    kept = [row for row in rows if row["red"] or not row["why"]]
    for case, same in groupby(kept, lambda row: row["case"]):
        shown.add_section()
        for index, row in enumerate(same):
            name = "" if index else case
            variant = row["way"] + (" *" if row["auto"] else "")
            if row["red"]:
                shown.add_row(name, variant, "failed", style="bold red")
                continue
            shown.add_row(
                name,
                Text(variant, "dim" if by(row["way"]) in EAGER_MODE else ""),
                duration(row["seconds"]["median"]),
                _ratio(row["to_eager"]),
                quartiles(row["to_eager"]["quartiles"]) if row["to_eager"] else "-",
                _ratio(row["to_compile"]),
                f"{row['bandwidth'] / 1e9:.1f}",
                f"{row['rate'] / 1e9:.1f}",
                f"{row['of_roof']:.0%}",
            )
    return shown


def _ratio(ratio: dict | None) -> Text:
    """Green where it is faster, yellow where it is slower, beyond its quartiles."""
    if ratio is None:
        return Text("-")
    low, high = ratio["quartiles"]
    return Text(f"{ratio['median']:.2f}", "green" if high < 1 else "yellow" if low > 1 else "")


def reasons(rows: list[dict]) -> list[Text]:
    """Why variants got no number, a line for each reason, red for what failed."""
    found: dict[tuple[str, str, bool], list[str]] = {}
    for row in rows:
        if row["why"]:
            found.setdefault((row["way"], row["why"], row["red"]), []).append(row["case"])
    lines = []
    for (variant, why, red), cases in found.items():
        where = "" if len(cases) == sum(row["way"] == variant for row in rows) else f" ({', '.join(cases)})"
        lines.append(Text(f"{variant}: no number: {why}{where}", "bold red" if red else "dim"))
    return lines


def summary(rows: list[dict]) -> Table:
    """A line for each op, dtype and variant that is not eager: mean and worst ratio to eager, and how many lose."""
    groups: dict[tuple[str, str, str], list[dict]] = {}
    for row in rows:
        if row["to_eager"] and by(row["way"]) not in EAGER_MODE:
            groups.setdefault((row["op"], row["dtype"], row["way"]), []).append(row)
    lines = []
    for key, found in groups.items():
        ratios = [row["to_eager"]["median"] for row in found]
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        slower = sum(ratio > 1 for ratio in ratios)
        worst = found[ratios.index(max(ratios))]["case"]
        numbers = [f"{x:.2f}" for x in (mean, min(ratios), max(ratios))]
        lines.append([*key, str(len(found)), *numbers, Text(str(slower), "yellow" if slower else ""), worst])
    headings = "op", "dtype", "variant", ">cases", ">mean", ">best", ">worst", ">above 1", "worst at"
    return table("ratio to the fastest eager form", headings, lines, fold="worst at")


def on_paper(chosen: dict[str, list[str]], dtypes: Iterable[torch.dtype]) -> Iterable[Table]:
    """Work and floors, a table for each op: nothing is run."""
    headings = "case", "sizes", "dtype", ">MFLOP", ">MB", ">FLOP/B", ">floor", ">bound by"
    memory = roof.H100.bandwidth
    for op, names in chosen.items():
        shown = table(f"{op}: floor on an H100, from memory at {memory / 1e12:.1f} TB/s", headings)
        for name, dtype in product(names, dtypes):
            case = CASES[op][name]
            nbytes, floor = case.bytes(dtype), roof.H100.floor(case.flops, case.bytes(dtype), dtype)
            work = f"{case.flops / 1e6:.1f}", f"{nbytes / 1e6:.2f}", f"{case.flops / nbytes:.1f}"
            bound = "memory" if nbytes / memory >= floor else "products"
            shown.add_row(name, case.sizes, str(dtype).removeprefix("torch."), *work, duration(floor), bound)
        yield shown
