"""Results to read: one renderer for all tables, and the tables of the ops."""

import statistics
from collections.abc import Iterable, Sequence
from itertools import product

import torch
from rich import box
from rich.table import Table
from rich.text import Text

from bench import roof
from bench.cases import CASES
from bench.ops import EAGER_MODE, by


def table(title: str, lines: Sequence[dict[str, str | Text]], fold: str = "", group: bool = False) -> Table:
    """Lines of cells by heading, and "style" where a line has one.

    A heading that begins with ">" is right-aligned, and blanks around it only tell it apart; only the column `fold` may
    be wrapped. With `group` a rule is drawn where the first cell changes, which is written once."""
    shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    headings = [heading for heading in (lines[0] if lines else ()) if heading != "style"]
    for heading in headings:
        wraps = {"overflow": "fold", "max_width": 27} if heading == fold else {"no_wrap": True}
        shown.add_column(heading.strip("> "), justify="right" if heading[:1] == ">" else "left", **wraps)
    before = None
    for line in lines:
        cells = [line[heading] for heading in headings]
        if group and cells[0] != before:
            shown.add_section()
            before = cells[0]
        elif group:
            cells[0] = ""
        shown.add_row(*cells, style=line.get("style", ""))
    return shown


def style(row: dict) -> str:
    """Red where a variant is wrong, dim where it has no number."""
    return "bold red" if row["red"] else "dim" if row.get("why") else ""


def number(figure: float | None, form: str = ".2f", scale: float = 1, missing: str = "-") -> str:
    return missing if figure is None else format(figure * scale, form)


def median(row: dict, form: str = ".2f") -> str:
    """Of a whole step, in milliseconds."""
    return number((row.get("seconds") or {}).get("median"), form, 1e3)


def quartiles(pair: Sequence[float] | None) -> str:
    return "-".join(f"{q:.2f}" for q in pair) if pair else "-"


def duration(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.1f} µs"


def of_op(rows: list[dict]) -> Table:
    """The rows of one op in one dtype: a line for each variant that got a number or failed."""
    lines = [
        {
            "case": row["case"],
            "variant": Text(row["way"] + " *" * row["auto"], "dim" if by(row["way"]) in EAGER_MODE else ""),
            ">time": "failed" if row["red"] else duration(row["seconds"]["median"]),
            ">÷ eager": _ratio(row["to_eager"]),
            ">quartiles": quartiles((row["to_eager"] or {}).get("quartiles")),
            ">÷ compile": _ratio(row["to_compile"]),
            ">GB/s": number(row["bandwidth"], ".1f", 1e-9),
            ">GFLOP/s": number(row["rate"], ".1f", 1e-9),
            ">of roof": number(row["of_roof"], ".0%"),
            "style": style(row),
        }
        for row in rows
        if row["red"] or not row["why"]
    ]
    return table(f"\n{rows[0]['op']}, {rows[0]['dtype']}", lines, group=True)


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
    groups: dict[tuple[str, str, str], dict[str, float]] = {}
    for row in rows:
        if row["to_eager"] and by(row["way"]) not in EAGER_MODE:
            ratios = groups.setdefault((row["op"], row["dtype"], row["way"]), {})
            ratios[row["case"]] = row["to_eager"]["median"]
    lines = []
    for key, ratios in groups.items():
        slower = sum(ratio > 1 for ratio in ratios.values())
        line = dict(zip(("op", "dtype", "variant"), key, strict=True)) | {">cases": str(len(ratios))}
        for heading, figure in ((">mean", statistics.geometric_mean), (">best", min), (">worst", max)):
            line[heading] = number(figure(ratios.values()))
        line |= {">above 1": Text(str(slower), "yellow" if slower else ""), "worst at": max(ratios, key=ratios.get)}
        lines.append(line)
    return table("ratio to the fastest eager form", lines, fold="worst at")


def on_paper(op: str, names: Iterable[str], dtypes: Iterable[torch.dtype]) -> Table:
    """Work and floors of an op's cases: nothing is run."""
    memory, lines = roof.H100.bandwidth, []
    for name, dtype in product(names, dtypes):
        case = CASES[op][name]
        nbytes, floor = case.bytes(dtype), roof.H100.floor(case.flops, case.bytes(dtype), dtype)
        line = {"case": name, "sizes": case.sizes, "dtype": roof.name(dtype)}
        line |= {">MFLOP": number(case.flops, ".1f", 1e-6), ">MB": number(nbytes, ".2f", 1e-6)}
        line |= {">FLOP/B": number(case.flops / nbytes, ".1f"), ">floor": duration(floor)}
        lines.append(line | {">bound by": "memory" if nbytes / memory >= floor else "products"})
    return table(f"{op}: floor on an H100, from memory at {memory / 1e12:.1f} TB/s", lines)
