"""Tables of methods against settings, the paper's number beside ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.papers.results import Results, Spread
from bench.papers.section import Table

Row = tuple[str, str, dict[str, Any]]  # label, path of the number, settings


def one_column(caption: str, results: Results, rows: Sequence[Row], paper: Mapping[str, str]) -> Table:
    """A row a method: ours, and the paper's by the same label."""
    found = [(label, results.spread(path, **settings)) for label, path, settings in rows]
    shown = [[label, said(value), paper.get(label, "-")] for label, value in found]
    return Table(caption, ["", "here, %", "paper, %"], shown)


def grid(
    caption: str, results: Results, rows: Sequence[Row], column: str, values: Sequence[Any],
    heading: Callable[[Any], str], paper: Mapping[str, Mapping[Any, str]] | None = None,
) -> Table:  # fmt: skip
    """A row a method, a column a value of the setting `column`; the paper's number in a second line of rows."""
    shown = []
    for label, path, settings in rows:
        spreads = [results.spread(path, **settings, **{column: value}) for value in values]
        shown.append([label, *map(said, spreads)])
        if paper and label in paper:
            shown.append([f"{label}, paper", *(paper[label].get(value, "-") for value in values)])
    return Table(caption, ["%", *map(heading, values)], shown)


def said(value: Spread | None) -> str:
    return "-" if value is None else value.said()


def above(first: Spread | None, second: Spread | None) -> bool | None:
    """Is the first mean above the second? None where one is missing."""
    return None if first is None or second is None else first.mean > second.mean
