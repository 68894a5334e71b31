"""The report: claims, what was found, tables and pictures; as Markdown with files and as one HTML page."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib
import matplotlib.figure

from bench.papers import html, markdown
from bench.papers.drawing import STYLE
from bench.papers.experiments import EXPERIMENTS
from bench.papers.experiments.experiment import Figure
from bench.papers.markdown import Chapter
from bench.papers.results import Results
from bench.papers.sources import PapersError
from bench.record import write_whole

DPI = 100

OPENING = """\
Every experiment of three papers, run again with fastrw: Ren et al. 2018 ("L2R"), Zhang & Pfister 2021 ("FSR") and a
reimplementation of the first (Patil et al., arXiv 2405.06859). Numbers of the papers stand beside ours. They are not
the same experiment: what differs is said under each title. A claim "holds" here or it does not at this scale;
where it does not, the note says why as far as it is known. Our ± is the standard deviation over seeds, which draw the
split, the spoilt labels and the first parameters; all methods of a seed share them, the network and the steps."""


def write_report(folder: Path, markdown_file: Path, html_file: Path) -> list[Path]:
    """Writes both reports and the plots (beside the Markdown, in plots/) from the results in `folder`, each whole or
    not at all; the files written.

    Raises:
        PapersError: `folder` holds no results, or a file in it is not what a run wrote.
    """
    found = {name: Results.load(file) for name in EXPERIMENTS if (file := folder / f"{name}.json").exists()}
    if not found:
        raise PapersError(f"fastrw.papers: --results must be a folder of results, got none in {folder}")
    experiments = [EXPERIMENTS[name] for name in found]
    chapters = [Chapter(each, results, each.findings(results), each.section(results))
                for each, results in zip(experiments, found.values(), strict=True)]  # fmt: skip
    with matplotlib.rc_context(STYLE):
        pictures = {block.name: picture(block) for each in chapters for block in each.blocks
                    if isinstance(block, Figure)}  # fmt: skip
    text = markdown.page(OPENING, chapters)
    files = {markdown_file: text.encode(), html_file: html.page(text, experiments, pictures).encode()}
    files |= {markdown_file.parent / "plots" / f"{name}.png": image for name, image in pictures.items()}
    for file, content in files.items():
        write_whole(file, content)
    return [*files]


def picture(figure: Figure) -> bytes:
    """The figure as PNG."""
    drawn = matplotlib.figure.Figure(figsize=figure.size, dpi=DPI, layout="constrained")
    figure.draw(drawn)
    image = io.BytesIO()
    drawn.savefig(image, format="png")
    return image.getvalue()
