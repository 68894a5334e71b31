"""What a section of the report is made of: texts, tables, figures and findings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


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
    draw: Callable[[Any], None]
    size: tuple[float, float] = (7.2, 3.8)


@dataclass(frozen=True)
class Finding:
    """A claim of the paper, what was found here, and whether the claim holds here. None: nothing to compare with."""

    claim: str
    here: str
    holds: bool | None


@dataclass
class Section:
    findings: list[Finding] = field(default_factory=list)
    blocks: list[str | Table | Figure] = field(default_factory=list)  # a str is a paragraph
