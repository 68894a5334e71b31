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
class Axis:
    """The settings that a table's columns or a picture's x axis run over: every combination of their values. A point
    is a value, of several settings a tuple."""

    names: tuple[str, ...]
    heading: Callable[[Any], str]  # of a column, from the point
    label: str = ""  # of the x axis
    tick: Callable[[Any], str] | None = None  # on the x axis, where it is not the heading
    log: bool = False

    def points(self, results: Results, **settings: Any) -> dict[Any, dict[str, Any]]:
        """Point -> its settings: numbers in ascending order, all else in the order of the trials."""
        values = [results.values(name, **settings) for name in self.names]
        values = [sorted(each) if all(isinstance(v, int | float) for v in each) else each for each in values]
        return {
            point if len(point) > 1 else point[0]: dict(zip(self.names, point, strict=True))
            for point in product(*values)
        }


@dataclass(frozen=True)
class Row:
    """A number that tables, pictures and claims show: its label, its method, and its path in a result."""

    label: str
    method: str
    path: str = "accuracy"
    paper: Any = None  # the paper's number, or a mapping from the axis's points to numbers
    settings: dict[str, Any] = field(default_factory=dict)
    shade: str = ""  # of drawing.COLOURS, where it is not the method

    def at(self, results: Results, **settings: Any) -> Spread | None:
        return results.spread(self.path, method=self.method, **self.settings, **settings)

    def along(self, results: Results, axis: Axis, **settings: Any) -> dict[Any, Spread | None]:
        points = axis.points(results, **settings)
        return {point: self.at(results, **own, **settings) for point, own in points.items()}

    @property
    def colour(self) -> str:
        return drawing.COLOURS[self.shade or self.method]


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
    """Holds if the first is above the second at every point of the axis; `here` takes the counts and the gaps."""

    def judge(results: Results) -> Finding:
        pairs = [*zip(first.along(results, axis).values(), second.along(results, axis).values(), strict=True)]
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


def columns(caption: str, rows: Sequence[Row], axis: Axis, **settings: Any) -> Callable[[Results], list[Table]]:
    """A row per method, a column per point of the axis; the paper's numbers in rows below ours. None without points."""

    def make(results: Results) -> list[Table]:
        points, shown = axis.points(results, **settings), []
        for row in rows:
            shown.append([row.label, *map(said, row.along(results, axis, **settings).values())])
            if row.paper:
                shown.append([f"{row.label}, paper", *(row.paper.get(point, "-") for point in points)])
        return [Table(caption, ["%", *map(axis.heading, points)], shown)] if points else []

    return make


def picture(
    name: str, caption: str, rows: Sequence[Row], axis: Axis, ylabel: str = "test accuracy, %", bars: bool = False,
    least: int = 1, **settings: Any,
) -> Callable[[Results], list[Figure]]:  # fmt: skip
    """A line per method over the axis, or a group of bars per point; nothing if there are fewer than `least` points."""

    def make(results: Results) -> list[Figure]:
        points = [*axis.points(results, **settings)]
        ticks = [*map(axis.tick or axis.heading, points)]
        series = {row.label: (row.colour, [*row.along(results, axis, **settings).values()]) for row in rows}
        draw = drawing.lines(points, series, axis.label, ylabel, log=axis.log, ticks=ticks)
        if bars:
            draw = drawing.bars(ticks, series, ylabel)
        return [Figure(name, caption, draw)] if len(points) >= least else []

    return make
