"""What the experiments' reports are made of: rows of numbers, the axes they run over, claims, tables and lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from bench.papers import drawing
from bench.papers.drawing import deferred
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

    def at(self, results: Results, **settings: Any) -> Spread:
        return results.spread(self.path, method=self.method, **self.settings, **settings)

    def along(self, results: Results, axis: Axis, **settings: Any) -> dict[Any, Spread]:
        points = axis.points(results, **settings)
        return {point: self.at(results, **own, **settings) for point, own in points.items()}

    @property
    def colour(self) -> str:
        return drawing.COLOURS[self.shade or self.method]


@deferred
def beats(results: Results, claim: str, first: Row, second: Row) -> Finding:
    a, b = first.at(results), second.at(results)
    return Finding(claim, f"{a} % against {b} %", a.mean > b.mean if a and b else None)


@deferred
def beats_along(results: Results, claim: str, first: Row, second: Row, axis: Axis,
                here: str = "at {} of {} settings (points: {})") -> Finding:  # fmt: skip
    """Holds if the first is above the second at every point of the axis; `here` takes the counts and the gaps."""
    pairs = [*zip(first.along(results, axis).values(), second.along(results, axis).values(), strict=True)]
    wins = [a.mean > b.mean for a, b in pairs]
    gaps = ", ".join(f"{100 * (a.mean - b.mean):+.1f}" for a, b in pairs if a and b)
    return Finding(claim, here.format(sum(wins), len(wins), gaps), all(wins))


@deferred
def column(results: Results, caption: str, rows: Sequence[Row]) -> Table:
    """A row per method: our number, and the paper's."""
    return Table(caption, ["", "here, %", "paper, %"], [[row.label, f"{row.at(results)}", row.paper or "-"]
                                                        for row in rows])  # fmt: skip


@deferred
def columns(results: Results, caption: str, rows: Sequence[Row], axis: Axis, **settings: Any) -> list[Table]:
    """A row per method, a column per point of the axis; the paper's numbers in rows below ours. None without points."""
    points, shown = axis.points(results, **settings), []
    for row in rows:
        shown.append([row.label, *map(str, row.along(results, axis, **settings).values())])
        if row.paper:
            shown.append([f"{row.label}, paper", *(row.paper.get(point, "-") for point in points)])
    return [Table(caption, ["%", *map(axis.heading, points)], shown)] if points else []


@deferred
def picture(
    results: Results, name: str, caption: str, rows: Sequence[Row], axis: Axis, ylabel: str = "test accuracy, %",
    bars: bool = False, least: int = 1, **settings: Any,
) -> list[Figure]:  # fmt: skip
    """A line per method over the axis, or a group of bars per point; nothing if there are fewer than `least` points."""
    points = [*axis.points(results, **settings)]
    ticks = [*map(axis.tick or axis.heading, points)]
    series = {row.label: (row.colour, [*row.along(results, axis, **settings).values()]) for row in rows}
    draw = drawing.lines(points, series, log=axis.log, ticks=ticks, xlabel=axis.label, ylabel=ylabel)
    if bars:
        draw = drawing.bars(ticks, series, ylabel)
    return [Figure(name, caption, draw)] if len(points) >= least else []
