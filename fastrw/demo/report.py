"""What the demo found: one row per method, as a table to read and as a document to keep."""

import platform
import statistics
from dataclasses import asdict
from typing import Any

import numpy as np
import sklearn
import torch
from rich import box
from rich.table import Table

import fastrw
from fastrw.demo.columns import COLUMNS, FSR_COLUMNS, meanings
from fastrw.demo.data import Images
from fastrw.demo.settings import Settings
from fastrw.demo.timing import ALGORITHM_1
from fastrw.demo.train import METHODS

ALIKE = (
    "All methods have the same network, optimizer and number of steps; none sees which labels are flipped. Settings "
    "were chosen on seed 0."
)
Results = list[dict[str, Any]]
Rows = list[dict[str, Any]]


def summary(settings: Settings, results: Results, times: dict[str, float]) -> Rows:
    """One row per method: lists over the seeds, and its step time as a ratio to plain (and to Algorithm 1)."""
    rows = []
    for name, seconds in times.items():
        row = {"method": name}
        for key in FSR_COLUMNS if settings.fsr else COLUMNS:
            if key == "use_of_clean":
                row[key] = METHODS[name].use_of_clean if name in METHODS else "timed only"
            elif key.startswith("step"):
                row[key] = seconds / times["plain" if key == "step_to_plain" else ALGORITHM_1]
            else:
                row[key] = [r[key] for r in results if r["method"] == name and r[key] is not None]
        rows.append(row | {"step_seconds": seconds})
    return rows


def table(images: Images, settings: Settings, rows: Rows) -> Table:
    measured = [row for row in rows if row["accuracy"]]
    best = max(measured, key=lambda row: statistics.mean(row["accuracy"]))
    columns = dict(FSR_COLUMNS if settings.fsr else COLUMNS)
    if not settings.fsr:
        gaps = [abs(a - b) for row in measured for a, b in zip(row["accuracy"], row["balanced_accuracy"], strict=True)]
        if max(gaps) < 0.01:
            del columns["balanced_accuracy"]
    notes = ["No label is known to be right."] * settings.fsr
    notes += [f"{heading}: {meaning}." for heading, meaning in meanings(columns).items()]
    made = Table(title=title(images, settings), caption=" ".join([*notes, ALIKE]), title_justify="left",
                 caption_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)  # fmt: skip
    made.add_column("method", no_wrap=True)
    for key, (heading, *_) in columns.items():
        look = {"min_width": 6} if key == "use_of_clean" else {"justify": "right", "no_wrap": True}
        made.add_column(heading, **look)
    for row in rows:
        cells = [spread(row[key], factor, digits) for key, (_, factor, digits, _) in columns.items()]
        made.add_row(row["method"], *cells, style="bold" if row is best else None)
    return made


def title(images: Images, settings: Settings) -> str:
    thinned = f", rarest class thinned {settings.imbalance:g}-fold" * (settings.imbalance > 1 or not settings.fsr)
    clean = "no clean set" if settings.fsr else f"{settings.clean_per_class} clean examples a class"
    seeds = settings.all_seeds
    return (
        f"{images.name}: {settings.flip:.0%} of the labels flipped{thinned}, {clean}; {settings.steps} steps of "
        f"{settings.batch_size}, " + (f"seeds {seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"seed {seeds[0]}")
    )


def document(images: Images, settings: Settings, results: Results, rows: Rows) -> dict[str, Any]:
    """What result.json holds: the command, what it ran on, the rows, and every run's curve."""
    return {
        "command": settings.command,
        "settings": asdict(settings),
        "images": images.name,
        "versions": {
            "fastrw": fastrw.__version__,
            "torch": torch.__version__,
            "scikit-learn": sklearn.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "threads": torch.get_num_threads(),
        "rows": rows,
        "curves": [{key: result[key] for key in ("method", "seed", "curve")} for result in results],
    }


def spread(found: str | float | list[float], factor: float, digits: int) -> str:
    """A text as it is; of numbers factor × their mean, ± their standard deviation."""
    if isinstance(found, str) or not found:
        return found or "-"
    values = [factor * value for value in (found if isinstance(found, list) else [found])]
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean}±{statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean
