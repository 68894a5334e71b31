"""The rows so far, as tables in markdown: what is read first, and what a reply of limited length can hold."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from bench import record
from bench.gpu.stage import find, read

NAME = "summary.md"
SHOWN = 12  # failures of a stage


def write(out: Path) -> None:
    """Write it anew, whole."""
    record.write_whole(out / NAME, text(read(out)).encode())


def text(rows: list[dict]) -> str:
    """Everything that the rows tell, stage by stage."""
    begin = next((row for row in rows if row["stage"] == "run"), {})
    stages = begin.get("stages", [])
    lines = ["# fastrw on a GPU" + (": REHEARSAL on a CPU, no figure means anything" if begin.get("tiny") else ""), ""]
    lines += [f"{begin.get('date')}, commit {begin.get('commit')}, `{begin.get('command')}`", ""]
    if placed := begin.get("extension"):
        lines += [f"{placed['said'].splitlines()[-1][:300]} (status {placed['status']})", ""] if placed["said"] else []
    lines += table(("stage", "ended", "s", "rows", "failures"), [progress(name, rows) for name in stages])
    for name in stages:
        own = [row for row in rows if row["stage"] == name]
        if own:
            lines += ["", f"## {name.replace('_', ' ')}", "", *section(name, own)]
    return "\n".join(lines) + "\n"


def progress(name: str, rows: list[dict]) -> tuple:
    own = [row for row in rows if row["stage"] == name]
    end = next((row for row in own if row["kind"] == "end"), None)
    status = end["status"] if end else "not ended" if own else "not begun"
    failed = sum(row["kind"] == "failure" for row in own)
    return name, status, f"{end['seconds']:.0f}" if end else "", len(own) - bool(end), failed or ""


def section(name: str, rows: list[dict]) -> list[str]:
    """What the stage tells of its rows, and its failures; a summary that fails is told in its place."""
    try:
        told = find(name).summary(rows)
    except Exception as error:  # rows of a run that was cut off, or of another version
        told = [f"no summary: {type(error).__name__}: {error}"]
    failures = [row for row in rows if row["kind"] == "failure"]
    told += [""] * bool(failures)
    told += [f"- FAILED {' '.join(row.get('item', []))}: {row['error'][:300]}" for row in failures[:SHOWN]]
    if len(failures) > SHOWN:
        told.append(f"- and {len(failures) - SHOWN} more")
    for row in rows:
        if row["kind"] == "left out":
            told += ["", f"{row['why']}: {len(row['items'])} left out, from {' '.join(row['items'][0])} on"]
    return told


def table(headings: Sequence[str], lines: Iterable[Sequence]) -> list[str]:
    """A table in markdown; nothing where there are no lines."""
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
    if not cells:
        return []
    return ["| " + " | ".join(line) + " |" for line in (headings, ["---"] * len(headings), *cells)]


def number(value: float | None, form: str = ".2f") -> str:
    return "" if value is None else format(value, form)
