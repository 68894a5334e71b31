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
from fastrw.demo.train import FSR_METHODS, METHODS

AUC = (
    "AUC: the chance that a rightly labelled training example has more weight than a flipped one, by its mean weight "
    "over the second half of the steps"
)
CAPTION = (
    "clean set: every method but one trains on the clean examples together with the spoilt ones, clean only on them "
    "alone; fastrw also weighs by them. accuracy: test images classified rightly, mean ± standard deviation over the "
    f"seeds. {AUC} (1 = all found, 0.5 = guessing). step: median time of a whole training "
    "step, as a ratio to plain's and to that of the paper's Algorithm 1 by double backward, taken in turns in this "
    "process. All methods have the same network, optimizer and number of steps; none sees which labels are flipped. "
    "Settings were chosen on seed 0."
)
BALANCED = " balanced: the mean of the classes' accuracies, shown because it differs by a point or more."
FSR_CAPTION = (
    "No label is known to be right. accuracy: test images classified rightly at the end, mean ± standard deviation "
    "over the seeds; best: the highest on the way, which only a clean test set can tell. purity: rightly labelled "
    f"examples in the dictionary that stands in for a clean set, at the end. {AUC}. "
    "weights of 0: in the last epoch. step: median time of a whole training step over plain's, taken in turns in this"
    " process. All methods have the same network, optimizer and steps; none sees which labels are flipped. Settings "
    "were chosen on seed 0."
)
Results = list[dict[str, Any]]
Rows = list[dict[str, Any]]
Column = tuple[str, str, float, int]  # heading, key of a row, factor and digits of the number shown
STEP = ("step ÷\nplain", "step_to_plain", 1, 2)


def summary(settings: Settings, results: Results, times: dict[str, float]) -> Rows:
    """One row per method: lists over the seeds, and its step time as a ratio to plain (and to Algorithm 1)."""
    rows = []
    for name, seconds in times.items():
        mine = [result for result in results if result["method"] == name]
        cost = {"step_seconds": seconds, "step_to_plain": seconds / times["plain"]}
        found = _without_clean(name, mine) | cost if settings.fsr else _with_clean(name, mine) | cost
        if not settings.fsr:
            found["step_to_algorithm_1"] = seconds / times[ALGORITHM_1]
        rows.append({"method": name, **found})
    return rows


def _with_clean(name: str, mine: Results) -> dict[str, Any]:
    return {
        "use_of_clean": METHODS[name].use_of_clean if name in METHODS else "timed only",
        **{key: [r[key] for r in mine if r[key] is not None] for key in ("accuracy", "balanced_accuracy", "auc")},
    }


def _without_clean(name: str, mine: Results) -> dict[str, Any]:
    ends = [result["dictionary"][-1] for result in mine if result["dictionary"]]
    weighs = FSR_METHODS[name].rule is None
    return {
        "accuracy": [result["accuracy"] for result in mine],
        "best": [max(accuracy for _, accuracy in result["curve"]) for result in mine],
        "purity": [end[1] for end in ends],
        "auc": [result["auc"] for result in mine if weighs and result["auc"] is not None],
        "zero_share": [end[2] for end in ends if end[2] is not None],
    }


def table(images: Images, settings: Settings, rows: Rows) -> Table:
    measured = [row for row in rows if row["accuracy"]]
    best = max(measured, key=lambda row: statistics.mean(row["accuracy"]))
    columns: list[Column] = [("accuracy\n%", "accuracy", 100, 1)]
    caption = FSR_CAPTION
    if settings.fsr:
        columns += [("best\n%", "best", 100, 1), ("purity\n%", "purity", 100, 1), ("AUC", "auc", 1, 2),
                    ("weights\nof 0, %", "zero_share", 100, 0), STEP]  # fmt: skip
    else:
        gaps = [abs(a - b) for row in measured for a, b in zip(row["accuracy"], row["balanced_accuracy"], strict=True)]
        balanced = max(gaps) >= 0.01
        caption = CAPTION + BALANCED * balanced
        columns += [("balanced\n%", "balanced_accuracy", 100, 1)] * balanced
        columns += [("AUC", "auc", 1, 2), STEP, ("step ÷\nAlg. 1", "step_to_algorithm_1", 1, 2)]
    made = Table(title=title(images, settings), caption=caption, title_justify="left", caption_justify="left",
                 box=box.SIMPLE_HEAD, pad_edge=False)  # fmt: skip
    made.add_column("method", no_wrap=True)
    if not settings.fsr:
        made.add_column("clean set", min_width=6)
    for heading, *_ in columns:
        made.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        words = [row["method"]] if settings.fsr else [row["method"], row["use_of_clean"]]
        cells = [spread(row[key], factor, digits) for _, key, factor, digits in columns]
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
