"""What both forms of the report say of one experiment."""

from __future__ import annotations

from dataclasses import dataclass

from bench.papers.experiments.experiment import Block, Experiment, Finding
from bench.papers.results import Results

VERDICTS = {True: "holds", False: "does not hold", None: "-"}


@dataclass(frozen=True)
class Chapter:
    experiment: Experiment
    findings: list[Finding]
    blocks: list[Block]
    conditions: str

    @classmethod
    def of(cls, experiment: Experiment, results: Results) -> Chapter:
        said = experiment.findings(results), experiment.section(results), conditions(experiment, results)
        return cls(experiment, *said)


def conditions(experiment: Experiment, results: Results) -> str:
    """Where the numbers come from and how they differ from the paper's."""
    machine, versions = results.header["machine"], results.header["versions"]
    where = machine.get("gpu") or f"{machine['cpu']}, {machine['threads']} thread(s)"
    differs = experiment.differs.get(results.scale, "")
    seeds = len({trial["seed"] for trial, _ in results.trials})
    text = f"Scale {results.scale}: {len(results.trials)} trials, {seeds} seed(s), {results.seconds / 60:.0f} minutes. "
    text += f"Images: {results.images}. " if experiment.data else ""
    text += f"Differs from the paper: {differs}. " if differs else ""
    return text + f"torch {versions['torch']}, {where}; {results.header['command']}"


def overview(chapters: list[Chapter]) -> tuple[list[str], list[list[str]]]:
    """Headers and rows of the table of all findings; the first cell is the experiment's name, once."""
    rows = [
        ["" if index else chapter.experiment.name, finding.claim, finding.here, VERDICTS[finding.holds]]
        for chapter in chapters
        for index, finding in enumerate(chapter.findings)
    ]
    return ["experiment", "the paper's claim", "found here", ""], rows
