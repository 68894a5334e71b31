"""The report as Markdown; pictures are in plots/ beside it."""

from __future__ import annotations

from bench.papers.chapter import VERDICTS, Chapter, overview
from bench.papers.experiments.experiment import Block, Figure, Finding, Table


def page(opening: str, chapters: list[Chapter]) -> str:
    parts = ["# The papers' experiments", opening, "`python -m bench.papers report` writes this page.",
             "## All findings", table(*overview(chapters))]  # fmt: skip
    for chapter in chapters:
        about = chapter.experiment
        parts += [f"## {about.title}", f"**{about.name}** · {about.paper}, {about.shows}"]
        parts += [*map(finding, chapter.findings), *map(block, chapter.blocks), f"<sub>{chapter.conditions}</sub>"]
    return "\n\n".join(parts) + "\n"


def finding(found: Finding) -> str:
    verdict = f" **{VERDICTS[found.holds]}.**" if found.holds is not None else ""
    return f"- {found.claim}: {found.here}.{verdict}"


def block(part: Block) -> str:
    if isinstance(part, Table):
        return f"*{part.caption}*\n\n{table(part.headers, part.rows)}"
    if isinstance(part, Figure):
        return f"![{part.caption}](plots/{part.name}.png)\n\n*{part.caption}*"
    return part


def table(headers: list[str], rows: list[list[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
