"""What the demo found: one row a method, as a table to read and as a document to keep."""

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
from fastrw.demo.methods import METHODS
from fastrw.demo.settings import Settings
from fastrw.demo.timing import ALGORITHM_1

CAPTION = (
    "clean set: every method but one trains on the clean examples together with the spoilt ones, clean only on them "
    "alone; fastrw also weighs by them. accuracy: test images classified rightly, mean ± standard deviation over the "
    "seeds. AUC: the chance that a rightly labelled training example has more weight than a flipped one, by its mean "
    "weight over the second half of the steps (1 = all found, 0.5 = guessing). step: median time of a whole training "
    "step, as a ratio to plain's and to that of the paper's Algorithm 1 by double backward, taken in turns in this "
    "process. All methods have the same network, optimizer and number of steps; none sees which labels are flipped. "
    "Settings were chosen on seed 0."
)
BALANCED = " balanced: the mean of the classes' accuracies, shown because it differs by a point or more."


def summary(results: list[dict[str, Any]], times: dict[str, float]) -> list[dict[str, Any]]:
    """One row for each method: lists over the seeds, and its step time as a ratio to plain and to Algorithm 1."""
    rows = []
    for name in (*METHODS, ALGORITHM_1):
        mine = [result for result in results if result["method"] == name]
        rows.append({
            "method": name,
            "use_of_clean": METHODS[name].use_of_clean if name in METHODS else "timed only",
            **{key: [r[key] for r in mine if r[key] is not None] for key in ("accuracy", "balanced_accuracy", "auc")},
            "step_seconds": times[name],
            "step_to_plain": times[name] / times["plain"],
            "step_to_algorithm_1": times[name] / times[ALGORITHM_1],
        })  # fmt: skip
    return rows


def table(rows: list[dict[str, Any]], title: str) -> Table:
    measured = [row for row in rows if row["accuracy"]]
    best = max(measured, key=lambda row: statistics.mean(row["accuracy"]))
    gaps = [abs(a - b) for row in measured for a, b in zip(row["accuracy"], row["balanced_accuracy"], strict=True)]
    balanced = max(gaps) >= 0.01
    columns = ["accuracy\n%", *(["balanced\n%"] if balanced else []), "AUC", "step ÷\nplain", "step ÷\nAlg. 1"]
    caption = CAPTION + BALANCED * balanced
    made = Table(title=title, caption=caption, title_justify="left", caption_justify="left",
                 box=box.SIMPLE_HEAD, pad_edge=False)  # fmt: skip
    made.add_column("method", no_wrap=True)
    made.add_column("clean set", min_width=6)
    for column in columns:
        made.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        cells = [spread(row["accuracy"], 100, 1)]
        cells += [spread(row["balanced_accuracy"], 100, 1)] if balanced else []
        cells += [spread(row["auc"], 1, 2), f"{row['step_to_plain']:.2f}", f"{row['step_to_algorithm_1']:.2f}"]
        made.add_row(row["method"], row["use_of_clean"], *cells, style="bold" if row is best else None)
    return made


def title(images: Images, settings: Settings) -> str:
    seeds = settings.all_seeds
    return (
        f"{images.name}: {settings.flip:.0%} of the labels flipped, rarest class thinned {settings.imbalance:g}-fold, "
        f"{settings.clean_per_class} clean examples a class; {settings.steps} steps of {settings.batch_size}, "
        + (f"seeds {seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"seed {seeds[0]}")
    )


def document(images: Images, settings: Settings, results: list[dict[str, Any]], rows: list[dict[str, Any]]) -> dict:
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


def spread(values: list[float], scale: float, digits: int) -> str:
    """scale × the mean of the values, ± their standard deviation."""
    if not values:
        return "-"
    mean = f"{scale * statistics.mean(values):.{digits}f}"
    return f"{mean}±{scale * statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean
