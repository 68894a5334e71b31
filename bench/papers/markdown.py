"""The report as Markdown; pictures lie in plots/ beside it."""

from __future__ import annotations

from bench.papers.section import Figure, Table
from bench.papers.telling import VERDICTS, Chapter, conditions, overview


def page(opening: str, chapters: list[Chapter]) -> str:
    parts = ["# The papers' experiments", opening, "`python -m bench.papers report` writes this page.",
             "## All findings", table(*overview(chapters))]  # fmt: skip
    for experiment, results, section in chapters:
        parts += [f"## {experiment.title}", f"**{experiment.name}** · {experiment.paper}, {experiment.shows}"]
        for finding in section.findings:
            verdict = f" **{VERDICTS[finding.holds]}.**" if finding.holds is not None else ""
            parts.append(f"- {finding.claim}: {finding.here}.{verdict}")
        for block in section.blocks:
            if isinstance(block, Table):
                parts += [f"*{block.caption}*", table(block.headers, block.rows)]
            elif isinstance(block, Figure):
                parts.append(f"![{block.caption}](plots/{block.name}.png)\n\n*{block.caption}*")
            else:
                parts.append(block)
        parts.append(f"<sub>{conditions(experiment, results)}</sub>")
    return "\n\n".join(parts) + "\n"


def table(headers: list[str], rows: list[list[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
