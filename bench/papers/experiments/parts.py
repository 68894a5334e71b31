"""What the experiments' reports are made of: rows of numbers, the axes they run over, claims, tables and lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from bench.papers import drawing
from bench.papers.experiments.experiment import Figure, Finding, Table
from bench.papers.results import Results, Spread


@dataclass(frozen=True)
class Row:
    """A number that tables, pictures and claims show: its label, whose it is, and where a result keeps it."""

    label: str
    method: str
    path: str = "accuracy"
    paper: Any = None  # the paper's number, or a mapping from the axis's values to numbers
    settings: dict[str, Any] = field(default_factory=dict)
    shade: str = ""  # of drawing.COLOURS, where it is not the method

    def at(self, results: Results, **settings: Any) -> Spread | None:
        return results.spread(self.path, method=self.method, **self.settings, **settings)

    @property
    def colour(self) -> str:
        return drawing.COLOURS[self.shade or self.method]


@dataclass(frozen=True)
class Axis:
    """The settings that a table's columns or a picture's x axis run over: every combination of their values."""

    names: tuple[str, ...]
    heading: str  # format of a column's heading
    label: str = ""  # of the x axis
    tick: str = ""  # format on the x axis, where it is not the heading
    log: bool = False

    def points(self, results: Results, **settings: Any) -> list[dict[str, Any]]:
        values = product(*(sorted(results.values(name, **settings)) for name in self.names))
        return [dict(zip(self.names, point, strict=True)) for point in values]


def said(value: Spread | None) -> str:
    return "-" if value is None else value.said()


def above(first: Spread | None, second: Spread | None) -> bool | None:
    """Is the first mean above the second? None where one is missing."""
    return None if first is None or second is None else first.mean > second.mean


def beats(claim: str, first: Row, second: Row) -> Callable[[Results], Finding]:
    def judge(results: Results) -> Finding:
        a, b = first.at(results), second.at(results)
        return Finding(claim, f"{said(a)} % against {said(b)} %", above(a, b))

    return judge


def beats_along(
    claim: str, first: Row, second: Row, axis: Axis, here: str = "at {} of {} settings (points: {})"
) -> Callable[[Results], Finding]:
    """It holds where the first is above the second at every point of the axis; `here` is told how many there are."""

    def judge(results: Results) -> Finding:
        pairs = [[row.at(results, **point) for row in (first, second)] for point in axis.points(results)]
        wins = [above(*pair) is True for pair in pairs]
        gaps = ", ".join(f"{100 * (a.mean - b.mean):+.1f}" for a, b in pairs if a and b)
        return Finding(claim, here.format(sum(wins), len(wins), gaps), all(wins))

    return judge


def column(caption: str, rows: Sequence[Row]) -> Callable[[Results], Table]:
    """A row per method: our number, and the paper's."""

    def make(results: Results) -> Table:
        shown = [[row.label, said(row.at(results)), row.paper or "-"] for row in rows]
        return Table(caption, ["", "here, %", "paper, %"], shown)

    return make


def columns(caption: str, rows: Sequence[Row], axis: Axis, **settings: Any) -> Callable[[Results], Table]:
    """A row per method, a column per point of the axis; the paper's numbers in rows below ours."""

    def make(results: Results) -> Table:
        points, shown = axis.points(results, **settings), []
        for row in rows:
            shown.append([row.label, *(said(row.at(results, **point, **settings)) for point in points)])
            if row.paper:
                keys = [tuple(point.values()) if len(point) > 1 else [*point.values()][0] for point in points]
                shown.append([f"{row.label}, paper", *(row.paper.get(key, "-") for key in keys)])
        return Table(caption, ["%", *(axis.heading.format(*point.values()) for point in points)], shown)

    return make


def lines(
    name: str, caption: str, rows: Sequence[Row], axis: Axis, ylabel: str = "test accuracy, %", **settings: Any
) -> Callable[[Results], Figure]:
    """A line per method over the axis (of one setting)."""

    def make(results: Results) -> Figure:
        points = axis.points(results, **settings)
        places = [[*point.values()][0] for point in points]
        series = {row.label: (row.colour, [row.at(results, **point, **settings) for point in points]) for row in rows}
        ticks = [(axis.tick or axis.heading).format(place) for place in places]
        return Figure(name, caption, drawing.lines(places, series, axis.label, ylabel, log=axis.log, ticks=ticks))

    return make
