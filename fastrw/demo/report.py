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
from fastrw.demo.data import Images
from fastrw.demo.settings import Settings
from fastrw.demo.timing import ALGORITHM_1
from fastrw.demo.train import METHODS

ACCURACY = "accuracy: test images classified rightly"
SPREAD = "mean ± standard deviation over the seeds"
AUC = (
    "AUC: the chance that a rightly labelled training example has more weight than a flipped one, by its mean weight "
    "over the second half of the steps"
)
NO_ONE_SEES = "none sees which labels are flipped. Settings were chosen on seed 0."
CAPTION = (
    "clean set: every method but one trains on the clean examples together with the spoilt ones, clean only on them "
    f"alone; fastrw also weighs by them. {ACCURACY}, {SPREAD}. {AUC} (1 = all found, 0.5 = guessing). step: median "
    "time of a whole training step, as a ratio to plain's and to that of the paper's Algorithm 1 by double backward, "
    "taken in turns in this process. All methods have the same network, optimizer and number of steps; " + NO_ONE_SEES
)
BALANCED = " balanced: the mean of the classes' accuracies, shown because it differs by a point or more."
FSR_CAPTION = (
    f"No label is known to be right. {ACCURACY} at the end, {SPREAD}; best: the highest on the way, which only a clean "
    "test set can tell. purity: rightly labelled examples in the dictionary that stands in for a clean set, at the "
    f"end. {AUC}. weights of 0: in the last epoch. step: median time of a whole training step over plain's, taken in "
    "turns in this process. All methods have the same network, optimizer and steps; " + NO_ONE_SEES
)
Results = list[dict[str, Any]]
Rows = list[dict[str, Any]]

# key in results and rows -> heading, factor and digits in the table
COLUMNS = {
    "accuracy": ("accuracy\n%", 100, 1), "balanced_accuracy": ("balanced\n%", 100, 1), "auc": ("AUC", 1, 2),
    "step_to_plain": ("step ÷\nplain", 1, 2), "step_to_algorithm_1": ("step ÷\nAlg. 1", 1, 2),
}  # fmt: skip
FSR_COLUMNS = {
    "accuracy": ("accuracy\n%", 100, 1), "best": ("best\n%", 100, 1), "purity": ("purity\n%", 100, 1),
    "auc": ("AUC", 1, 2), "zero_share": ("weights\nof 0, %", 100, 0), "step_to_plain": ("step ÷\nplain", 1, 2),
}  # fmt: skip


def summary(settings: Settings, results: Results, times: dict[str, float]) -> Rows:
    """One row per method: lists over the seeds, and its step time as a ratio to plain (and to Algorithm 1)."""
    rows = []
    for name, seconds in times.items():
        row = {"method": name}
        if not settings.fsr:
            row["use_of_clean"] = METHODS[name].use_of_clean if name in METHODS else "timed only"
        for key in FSR_COLUMNS if settings.fsr else COLUMNS:
            if not key.startswith("step"):
                row[key] = [r[key] for r in results if r["method"] == name and r[key] is not None]
        row |= {"step_seconds": seconds, "step_to_plain": seconds / times["plain"]}
        if not settings.fsr:
            row["step_to_algorithm_1"] = seconds / times[ALGORITHM_1]
        rows.append(row)
    return rows


def table(images: Images, settings: Settings, rows: Rows) -> Table:
    measured = [row for row in rows if row["accuracy"]]
    best = max(measured, key=lambda row: statistics.mean(row["accuracy"]))
    columns, caption = (FSR_COLUMNS, FSR_CAPTION) if settings.fsr else (dict(COLUMNS), CAPTION)
    if not settings.fsr:
        gaps = [abs(a - b) for row in measured for a, b in zip(row["accuracy"], row["balanced_accuracy"], strict=True)]
        if max(gaps) >= 0.01:
            caption += BALANCED
        else:
            del columns["balanced_accuracy"]
    made = Table(title=title(images, settings), caption=caption, title_justify="left", caption_justify="left",
                 box=box.SIMPLE_HEAD, pad_edge=False)  # fmt: skip
    made.add_column("method", no_wrap=True)
    if not settings.fsr:
        made.add_column("clean set", min_width=6)
    for heading, _, _ in columns.values():
        made.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        words = [row["method"]] if settings.fsr else [row["method"], row["use_of_clean"]]
        cells = [spread(row[key], factor, digits) for key, (_, factor, digits) in columns.items()]
        made.add_row(*words, *cells, style="bold" if row is best else None)
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


def spread(found: float | list[float], factor: float, digits: int) -> str:
    """factor × the mean of the values, ± their standard deviation."""
    values = found if isinstance(found, list) else [found]
    if not values:
        return "-"
    mean = f"{factor * statistics.mean(values):.{digits}f}"
    return f"{mean}±{factor * statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean
