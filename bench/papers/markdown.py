"""The report as Markdown; pictures are in plots/ beside it."""

from __future__ import annotations

from dataclasses import dataclass

from bench.papers.experiments.experiment import Block, Experiment, Figure, Finding, Table
from bench.papers.results import Results

VERDICTS = {True: "holds", False: "does not hold", None: "-"}


@dataclass(frozen=True)
class Chapter:
    """What the report says about one experiment."""

    experiment: Experiment
    results: Results
    findings: list[Finding]
    blocks: list[Block]


def page(opening: str, chapters: list[Chapter]) -> str:
    headers = ["experiment", "the paper's claim", "found here", ""]
    overview = [
        ["" if index else chapter.experiment.name, finding.claim, finding.here, VERDICTS[finding.holds]]
        for chapter in chapters
        for index, finding in enumerate(chapter.findings)
    ]
    parts = ["# The papers' experiments", opening, "`python -m bench.papers report` writes this page.",
             "## All findings", table(headers, overview)]  # fmt: skip
    for chapter in chapters:
        about = chapter.experiment
        parts += [f"## {about.title}", f"**{about.name}** · {about.paper}, {about.shows}"]
        parts += [*map(item, chapter.findings), *map(block, chapter.blocks), f"<sub>{conditions(chapter)}</sub>"]
    return "\n\n".join(parts) + "\n"


def item(finding: Finding) -> str:
    verdict = f" **{VERDICTS[finding.holds]}.**" if finding.holds is not None else ""
    return f"- {finding.claim}: {finding.here}.{verdict}"


def block(part: Block) -> str:
    if isinstance(part, Table):
        return f"*{part.caption}*\n\n{table(part.headers, part.rows)}"
    if isinstance(part, Figure):
        return f"![{part.caption}](plots/{part.name}.png)\n\n*{part.caption}*"
    return part


def table(headers: list[str], rows: list[list[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def conditions(chapter: Chapter) -> str:
    """Where the numbers come from and how the setting differs from the paper's."""
    experiment, results = chapter.experiment, chapter.results
    machine, versions = results.header["machine"], results.header["versions"]
    where = machine.get("gpu") or f"{machine['cpu']}, {machine['threads']} thread(s)"
    differs = experiment.differs.get(results.scale, "")
    seeds = len({trial["seed"] for trial, _ in results.trials})
    minutes = sum(kept["seconds"] for _, kept in results.trials) / 60
    images = ", ".join(dict.fromkeys(kept["images"] for _, kept in results.trials if kept["images"])) or "none"
    text = f"Scale {results.scale}: {len(results.trials)} trials, {seeds} seed(s), {minutes:.0f} minutes. "
    text += f"Images: {images}. " if experiment.data else ""
    text += f"Differs from the paper: {differs}. " if differs else ""
    return text + f"torch {versions['torch']}, {where}; {results.header['command']}"
