"""An experiment: what a paper claims, the trials that test it, and how their results are shown and judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.papers.drawing import Draw
from bench.papers.results import Results
from bench.papers.trial import Trial

SCALES = ("cpu", "paper")


@dataclass(frozen=True)
class Table:
    caption: str
    headers: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Figure:
    """`draw(figure)` fills a matplotlib figure of `size` inches; `name` is its file's."""

    name: str
    caption: str
    draw: Draw
    size: tuple[float, float] = (7.2, 3.8)


Block = str | Table | Figure  # a str is a paragraph


@dataclass(frozen=True)
class Finding:
    """A claim of the paper, what was found here, and whether the claim holds here. None: nothing to compare with."""

    claim: str
    here: str
    holds: bool | None


@dataclass(frozen=True)
class Experiment:
    """`trials(scale)` lists every trial, including those that other experiments share. `claims` and `blocks` are made
    from the results; a function may return several."""

    name: str
    title: str
    paper: str  # "L2R", "FSR" or "reimplementation"
    shows: str  # which figure or table, or which open question
    data: str | None
    trials: Callable[[str], list[Trial]]
    claims: tuple[Callable[[Results], Finding | list[Finding]], ...]
    blocks: tuple[str | Callable[[Results], Block | list[Block]], ...]
    differs: dict[str, str] = field(default_factory=dict)  # by scale: how it differs from the paper's setting
    note: str = ""  # on the results at scale cpu, written after looking at them

    def findings(self, results: Results) -> list[Finding]:
        return [*_made(self.claims, results)]

    def section(self, results: Results) -> list[Block]:
        note = [self.note] if self.note and results.scale == "cpu" else []
        return [*note, *_made(self.blocks, results)]


def _made(parts: Sequence[Any], results: Results) -> Iterator[Any]:
    for part in parts:
        made = part(results) if callable(part) else part
        yield from made if isinstance(made, list) else [made]
