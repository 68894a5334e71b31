"""What the demo without clean examples found: one row a method, as a table to read and as a document to keep."""

import statistics
from typing import Any

from rich import box
from rich.table import Table

from fastrw.demo.data import Images
from fastrw.demo.fsr_run import FSR_METHODS
from fastrw.demo.report import spread
from fastrw.demo.settings import Settings

CAPTION = (
    "No label is known to be right. accuracy: test images classified rightly at the end, mean ± standard deviation "
    "over the seeds; best: the highest on the way, which only a clean test set can tell. purity: rightly labelled "
    "examples in the dictionary that stands in for a clean set, at the end. AUC: the chance that a rightly labelled "
    "training example has more weight than a flipped one, by its mean weight over the second half of the steps. "
    "weights of 0: in the last epoch. step: median time of a whole training step over plain's, taken in turns in this"
    " process. All methods have the same network, optimizer and steps; none sees which labels are flipped. Settings "
    "were chosen on seed 0."
)


def summary(results: list[dict[str, Any]], times: dict[str, float]) -> list[dict[str, Any]]:
    """One row for each method: lists over the seeds, and its step time as a ratio to plain."""
    rows = []
    for name, method in FSR_METHODS.items():
        mine = [result for result in results if result["method"] == name]
        ends = [result["dictionary"][-1] for result in mine if result["dictionary"]]
        rows.append({
            "method": name,
            "accuracy": [result["accuracy"] for result in mine],
            "best": [max(accuracy for _, accuracy in result["curve"]) for result in mine],
            "purity": [purity for _, purity, _ in ends],
            "auc": [result["auc"] for result in mine if method.weighs and result["auc"] is not None],
            "zero_share": [zeros for _, _, zeros in ends if zeros is not None],
            "step_seconds": times[name],
            "step_to_plain": times[name] / times["plain"],
        })  # fmt: skip
    return rows


def table(rows: list[dict[str, Any]], title: str) -> Table:
    best = max(rows, key=lambda row: statistics.mean(row["accuracy"]))
    made = Table(title=title, caption=CAPTION, title_justify="left", caption_justify="left",
                 box=box.SIMPLE_HEAD, pad_edge=False)  # fmt: skip
    made.add_column("method", no_wrap=True)
    for column in ("accuracy\n%", "best\n%", "purity\n%", "AUC", "weights\nof 0, %", "step ÷\nplain"):
        made.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        cells = [spread(row[key], 100, 1) for key in ("accuracy", "best", "purity")]
        cells += [spread(row["auc"], 1, 2), spread(row["zero_share"], 100, 0), f"{row['step_to_plain']:.2f}"]
        made.add_row(row["method"], *cells, style="bold" if row is best else None)
    return made


def title(images: Images, settings: Settings) -> str:
    seeds = settings.all_seeds
    thinned = f", rarest class thinned {settings.imbalance:g}-fold" if settings.imbalance > 1 else ""
    return (
        f"{images.name}: {settings.flip:.0%} of the labels flipped{thinned}, no clean set; {settings.steps} steps of "
        f"{settings.batch_size}, " + (f"seeds {seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"seed {seeds[0]}")
    )
