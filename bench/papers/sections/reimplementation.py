"""The reimplementation's two results, its next checks and its open questions."""

from __future__ import annotations

from bench.papers import paper_numbers
from bench.papers.drawing import COLOURS, confusions, lines, points
from bench.papers.methods import METHODS
from bench.papers.results import Results
from bench.papers.section import Figure, Finding, Section
from bench.papers.sections.tables import above, grid, one_column, said


def bias(results: Results) -> Section:
    levels = sorted(results.values("ratio"))
    found = {level: {m: results.spread("accuracy", method=m, ratio=level) for m in ("plain", "l2r")}
             for level in levels}  # fmt: skip
    wins = [level for level in levels if above(found[level]["l2r"], found[level]["plain"])]
    series = [(METHODS[m].name, COLOURS[m], points(results, "ratio", "accuracy", method=m)) for m in ("plain", "l2r")]
    rows = [(METHODS[m].name, "accuracy", {"method": m}) for m in ("plain", "l2r")]
    top = levels[-1]
    return Section(
        findings=[
            Finding("reweighting beats SGD at every bias from 50 to 90 %",
                    f"at {len(wins)} of {len(levels)}; at {top:.0%}, {said(found[top]['l2r'])} % against "
                    f"{said(found[top]['plain'])} %", len(wins) == len(levels)),
        ],
        blocks=[
            "The text at hand does not tell what the bias is a share of. Here it is the share of the training images "
            "that are of class 0, the other nine being equally rare; the test set is balanced.",
            grid("Test accuracy by the share of one class.", results, rows, "ratio", levels, "{:.0%}".format),
            Figure("bias", "Test accuracy against the bias.",
                   lines(series, "share of class 0 in the training set", "test accuracy, %",
                         ticks={level: f"{level:.0%}" for level in levels})),
        ],
    )  # fmt: skip


def lesions(results: Results) -> Section:
    rows = [("plain", "balanced_accuracy", {"method": "plain"}),
            ("weighted sampling", "balanced_accuracy", {"method": "resample"}),
            ("L2R", "balanced_accuracy", {"method": "l2r"})]  # fmt: skip
    found = {label: results.spread(path, **settings) for label, path, settings in rows}
    return Section(
        findings=[
            Finding("L2R far exceeds unweighted training in balanced accuracy",
                    f"{said(found['L2R'])} % against {said(found['plain'])} %", above(found["L2R"], found["plain"])),
            Finding("L2R far exceeds weighted sampling",
                    f"{said(found['L2R'])} % against {said(found['weighted sampling'])} %",
                    above(found["L2R"], found["weighted sampling"])),
        ],
        blocks=[
            one_column("Balanced accuracy (the mean of the classes' recalls) on HAM10000, 3 clean images a class.",
                       results, rows, paper_numbers.LESIONS),
            one_column("Plain accuracy of the same runs: two thirds of the test images are of one class.", results,
                       [(label, "accuracy", settings) for label, _, settings in rows], {}),
            Figure("lesions-confusion", "Confusion on the test set; classes akiec, bcc, bkl, df, mel, nv, vasc.",
                   confusions({METHODS[m].name: results.of(method=m) for m in ("plain", "resample", "l2r")}),
                   (10.5, 3.4)),
        ],
    )  # fmt: skip


def validation_size(results: Results) -> Section:
    sizes = sorted(results.values("clean"))
    found = {size: results.spread("balanced_accuracy", clean=size) for size in sizes}
    best = max(sizes, key=lambda size: found[size].mean)
    series = [("L2R", COLOURS["l2r"], [*found.items()])]
    rows = [("L2R", "balanced_accuracy", {"method": "l2r"})]
    return Section(
        findings=[
            Finding("open: how many clean images does it take? The paper used 3 a class",
                    f"{said(found[sizes[0]])} % with {sizes[0]}, best {said(found[best])} % with {best}", None),
        ],
        blocks=[
            grid("Balanced accuracy on HAM10000 by clean images of each class.", results, rows, "clean", sizes,
                 "{} a class".format),
            Figure("validation-size", "Balanced accuracy against the size of the clean set.",
                   lines(series, "clean images of each class", "balanced accuracy, %", log=True,
                         ticks={size: str(size) for size in sizes})),
        ],
    )  # fmt: skip


def both(results: Results) -> Section:
    methods = results.values("method")
    found = {m: results.spread("accuracy", method=m) for m in methods}
    others = {m: value for m, value in found.items() if m != "l2r"}
    best = max(others, key=lambda m: others[m].mean)
    by_class = [m for m in ("proportion", "resample") if m in found]
    rows = [(METHODS[m].name, "accuracy", {"method": m}) for m in methods]
    return Section(
        findings=[
            Finding("open: does it help where labels are wrong and classes rare at once?",
                    f"L2R {said(found['l2r'])} %, the best other ({METHODS[best].name}) {said(found[best])} %, plain "
                    f"{said(found['plain'])} %", None),
            Finding("rules for imbalance alone (inverse frequency, resampling) fail on noise (L2R, introduction)",
                    ", ".join(f"{METHODS[m].name} {said(found[m])} %" for m in by_class),
                    all(found[m].mean < found["l2r"].mean for m in by_class)),
        ],
        blocks=[
            one_column("Test accuracy with a long tail of 10:1 and 40 % of the labels flipped to any other class.",
                       results, rows, {}),
        ],
    )  # fmt: skip


def every(results: Results) -> Section:
    steps = sorted(results.values("every"))
    found = {k: results.spread("accuracy", every=k) for k in steps}
    worst = min(steps, key=lambda k: found[k].mean)
    series = [("L2R", COLOURS["l2r"], [*found.items()])]
    return Section(
        findings=[
            Finding("open: can weights be found at one step in N only (the steps between are plain)?",
                    f"{said(found[steps[0]])} % at every step, {said(found[steps[1]])} % at one in {steps[1]}, "
                    f"{said(found[worst])} % at one in {worst}", None),
        ],
        blocks=[
            grid("Test accuracy with 40 % of the labels flipped to one class.", results,
                 [("L2R", "accuracy", {"method": "l2r"})], "every", steps, "one in {}".format),
            Figure("every", "Test accuracy against the steps between two reweighted ones.",
                   lines(series, "N: weights at one step in N", "test accuracy, %", log=True,
                         ticks={k: str(k) for k in steps})),
        ],
    )  # fmt: skip


SECTIONS = {
    "bias": bias,
    "lesions": lesions,
    "validation-size": validation_size,
    "noise-and-imbalance": both,
    "every": every,
}
