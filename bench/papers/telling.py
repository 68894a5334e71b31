"""What both forms of the report say in the same words."""

from __future__ import annotations

from bench.papers.experiments import Experiment
from bench.papers.results import Results
from bench.papers.section import Section

Chapter = tuple[Experiment, Results, Section]
VERDICTS = {True: "holds", False: "does not hold", None: "-"}
GROUPS = ("L2R", "reimplementation", "FSR")


def conditions(experiment: Experiment, results: Results) -> str:
    """Where the numbers come from and in what they are not the paper's."""
    machine, versions = results.header["machine"], results.header["versions"]
    where = machine.get("gpu") or f"{machine['cpu']}, {machine['threads']} thread(s)"
    differs = experiment.differs.get(results.scale, "")
    seeds = len({kept["trial"].get("seed", 0) for _, kept in results.trials})
    text = f"Scale {results.scale}: {len(results.trials)} trials, {seeds} seed(s), {results.seconds / 60:.0f} minutes. "
    text += f"Images: {results.images}. " if experiment.data else ""
    text += f"Differs from the paper: {differs}. " if differs else ""
    return text + f"torch {versions['torch']}, {where}; {results.header['command']}"


def overview(chapters: list[Chapter]) -> tuple[list[str], list[list[str]]]:
    """Headers and rows of the table of all findings; the first cell is the experiment's name, once."""
    rows = [
        ["" if index else experiment.name, finding.claim, finding.here, VERDICTS[finding.holds]]
        for experiment, _, section in chapters
        for index, finding in enumerate(section.findings)
    ]
    return ["experiment", "the paper's claim", "found here", ""], rows
