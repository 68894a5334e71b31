"""Goals of the figures on two CPU cores, and of steps on a GPU: shown beside each, so that a miss is seen."""

from collections.abc import Iterable

from bench.compiled import REWEIGHTER as REWEIGHTER_COMPILED

REWEIGHTER = {"mlp": 1.00, "lenet": 1.08, "transformer": 1.12, "resnet32_gn": 1.20, "resnet32_bn": 1.65}
WITHOUT_EXTENSION = {"mlp": 1.10, "lenet": 1.45, "transformer": 1.30, "resnet32_gn": 1.45, "resnet32_bn": 1.95}
LAST = 1.06  # params="last", on any model
NOTHING_TO_SKIP = 0.08  # above the same run's Reweighter, where every weight is positive
COMPILED = 1.10  # times the FLOP floor: a compiled step over a compiled plain one
MEMORY = {"assembled": 1.35, "backward": 1.10}  # by the update that served

# On an H200: the best of Reweighter eager, captured and compiled over the best plain step; and Reweighter eager alone
ON_GPU = {"resnet32_gn": 1.35, "resnet32_bn": 2.0, "wrn28_10": 1.20, "vit_s": 1.25, "gpt2_small": 1.60}
EAGER_ON_GPU = 1.8

OVERHEAD = {  # of the Python side, in microseconds: by row and column of bench/overhead.py
    "walk and key": {"operation": 3.0, "functional": 3.0},
    "step - products, assembled": {"operation": 3.0, "functional": 3.0, "use": 20.0},
}


def set_goals(rows: Iterable[dict], extension: str, device: str) -> None:
    """Give the rows of one model their `goal` (of the ratio) and `memory_goal`, None where there is none."""
    ordinary = next((row["ratio"] for row in rows if row["method"] == "Reweighter"), None)
    for row in rows:
        row["goal"] = row["memory_goal"] = None
        if device.startswith("cuda"):
            continue
        name, method = row["model"], row["method"]
        if method == REWEIGHTER_COMPILED:
            row["goal"] = row["floor"] and COMPILED * row["floor"]
            continue
        if method.startswith("Reweighter"):
            row["goal"] = (REWEIGHTER if extension == "on" else WITHOUT_EXTENSION).get(name)
        elif method == "params=last" and extension == "on":
            row["goal"] = LAST
        elif method == "all weights positive" and ordinary:
            row["goal"] = ordinary + NOTHING_TO_SKIP
        if row["goal"] or method == "update=backward":
            row["memory_goal"] = MEMORY.get((row["served_by"] or "").rpartition(", ")[2])


def missed(figure: float | None, goal: float | None) -> bool:
    return figure is not None and goal is not None and figure > goal


def colour(figure: float | None, goal: float | None) -> str:
    """Green where the goal is met, red where it is missed."""
    return "" if figure is None or goal is None else "red" if figure > goal else "green"
