"""The whole steps of a run as one picture: time over that of the plain step, a panel a model, a line a variant."""

import io
from pathlib import Path

from bench import record
from bench.gpu.stage import error_line, read

NAME = "steps.png"
FAR = 5.0  # a ratio beyond it is written at the edge
GOAL = {"marker": "d", "color": "0.2", "linestyle": "", "markersize": 6, "markerfacecolor": "none", "zorder": 4}
SETTINGS = {"defaults": {"marker": "o", "color": "C0"}, "bf16": {"marker": "s", "color": "C1"}}


def draw(out: Path) -> str | None:
    """Why there is no picture; None where there is one, or nothing to draw."""
    try:
        return _draw(out)
    except Exception:  # no matplotlib, or rows of a run that was cut off: the tables tell the same
        return error_line()


def _draw(out: Path) -> str | None:
    from matplotlib.figure import Figure

    from bench.goals import ON_GPU
    from bench.gpu.stages.steps import PLAIN, WHOLE, results
    from bench.gpu.variants import FORMS

    rows = results([row for row in read(out) if row["stage"] == "steps"])
    models = list(dict.fromkeys(row["model"] for row in rows))
    if not models:
        return None
    variants = [form for form in FORMS if form != "plain"]
    figure = Figure(figsize=(2 + 2.2 * len(models), 4.4), layout="constrained")
    for axis, model in zip(figure.subplots(1, len(models), squeeze=False, sharey=True)[0], models, strict=True):
        axis.axvline(1, color="grey", linewidth=0.8, zorder=0)
        for row in (row for row in rows if row["model"] == model and row["variant"] in variants):
            at = variants.index(row["variant"]) + (0.15 if row["setting"] == "bf16" else -0.15)
            near = min(row["ratio"], FAR)
            axis.plot(near, at, linestyle="", markersize=4.5, **SETTINGS[row["setting"]])
            side = (5, "left") if near < 0.8 * FAR else (-5, "right")
            axis.annotate(f"{row['ratio']:.2f}", (near, at), (side[0], 0), ha=side[1], va="center", fontsize=6.5,
                          textcoords="offset points")  # fmt: skip
            if row["variant"] in WHOLE and model in ON_GPU:
                here = [r for r in rows if (r["model"], r["setting"]) == (model, row["setting"])]
                best = min(r["ratio"] for r in here if r["variant"] in PLAIN)
                axis.plot(ON_GPU[model] * best, at, **GOAL)
        axis.set(xlim=(0, FAR + 0.2), ylim=(len(variants) - 0.5, -0.5), title=model)
        axis.set_yticks(range(len(variants)), variants, fontsize=8)
        axis.tick_params(axis="x", labelsize=7)
        axis.title.set_fontsize(9)
        axis.grid(axis="x", linewidth=0.3)
    marks = [axis.plot([], [], linestyle="", label=name, **mark)[0] for name, mark in SETTINGS.items()]
    marks.append(axis.plot([], [], label="goal, by the best plain step", **GOAL)[0])
    figure.legend(handles=marks, ncols=3, fontsize=8, loc="outside lower center")
    figure.suptitle("time ÷ the plain eager step of the same rounds", size=10)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    record.write_whole(out / NAME, image.getvalue())
    return None
