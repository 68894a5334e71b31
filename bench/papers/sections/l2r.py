"""Ren et al. 2018: Fig. 2 to 7 and Tables 1 and 2, drawn again."""

from __future__ import annotations

from typing import Any

from bench.papers import paper_numbers
from bench.papers.drawing import COLOURS, confusions, curves, lines, points, weights
from bench.papers.methods import METHODS
from bench.papers.results import Results, Spread
from bench.papers.section import Figure, Finding, Section, Table
from bench.papers.sections.tables import above, grid, one_column, said


def imbalance(results: Results) -> Section:
    """The calm runs (no momentum) decide; what momentum does to them is told beside."""
    calm = results.values("ratio", momentum=0.0)
    worst = max(calm)
    methods = results.values("method")
    errors = {method: _error(results, method=method, ratio=worst, momentum=0.0) for method in methods}
    ours = errors["l2r"]
    best = min((method for method in methods if method != "l2r"), key=lambda method: errors[method].mean)
    section = Section(
        findings=[
            Finding(f"at {worst:g}:1 L2R's error is around 2 %", f"{ours.said()} %", ours.mean < 0.04),
            Finding("L2R is significantly better than every baseline there", f"the best of them, {METHODS[best].name}, "
                    f"{errors[best].said()} %", ours.mean < errors[best].mean),
            Finding("plain training and random weights fail there", ", ".join(
                        f"{METHODS[m].name} {errors[m].said()} %" for m in ("plain", "random")),
                    min(errors[m].mean for m in ("plain", "random")) > 0.1),
        ],
    )  # fmt: skip
    if len(calm) > 1:
        section.blocks += _by_ratio(results, calm, "", 0.0)
    else:
        rows = [[METHODS[method].name, errors[method].said()] for method in methods]
        section.blocks.append(Table("Test error without momentum. The paper draws a curve (Fig. 2) and gives no table.",
                                    ["", f"at {worst:g}:1, %"], rows))  # fmt: skip
    hasty = results.values("ratio", momentum=0.9)
    if hasty:
        low = _error(results, method="l2r", ratio=max(hasty), momentum=0.9)
        here = f"with momentum 0.9 at {max(hasty):g}:1 its error is {low.said()} %, without {ours.said()} %"
        section.findings.append(Finding("L2R needs no tuning of its own", here, low.mean < 0.04))
        section.blocks += _by_ratio(results, hasty, ", with momentum 0.9", 0.9)
    return section


def _by_ratio(results: Results, ratios: list[float], said_how: str, momentum: float) -> list[Table | Figure]:
    methods = results.values("method")
    found = {(method, ratio): _error(results, method=method, ratio=ratio, momentum=momentum)
             for method in methods for ratio in ratios}  # fmt: skip
    rows = [[METHODS[method].name, *(found[method, ratio].said() for ratio in ratios)] for method in methods]
    series = [(METHODS[method].name, COLOURS[method], [(ratio, found[method, ratio]) for ratio in ratios])
              for method in methods]  # fmt: skip
    ticks = {ratio: f"{ratio:g}:1" for ratio in ratios}
    name = "l2r-imbalance" + "-momentum" * (momentum > 0)
    caption = f"Test error against the imbalance{said_how}; bars reach from the best seed to the worst."
    xlabel = "nines for each four in the training set"
    return [
        Table(f"Test error, %{said_how}.", ["", *ticks.values()], rows),
        Figure(name, caption, lines(series, xlabel, "test error, %", log=True, ticks=ticks)),
    ]


def _error(results: Results, **settings: Any) -> Spread:
    return Spread(tuple(1 - value for value in results.spread("accuracy", **settings).values))


def uniform(results: Results) -> Section:
    rows = [("baseline", "accuracy", {"method": "plain"}), ("baseline + ES", "stopped.accuracy", {"method": "plain"}),
            ("random", "accuracy", {"method": "random"}), ("clean only", "accuracy", {"method": "clean_only"}),
            ("baseline + FT", "fine_tuned.accuracy", {"method": "plain"}),
            ("baseline + ES + FT", "stopped_fine_tuned.accuracy", {"method": "plain"}),
            ("random + FT", "fine_tuned.accuracy", {"method": "random"}),
            ("L2R", "accuracy", {"method": "l2r"})]  # fmt: skip
    found = {label: results.spread(path, **settings) for label, path, settings in rows}
    return Section(
        findings=[
            _better("L2R beats the baseline", found, "L2R", "baseline"),
            _better("L2R beats the fine-tuned baseline", found, "L2R", "baseline + FT"),
            _better("random weights beat the baseline by far", found, "random", "baseline"),
            _better("L2R beats random weights, fine-tuned or not", found, "L2R", "random + FT"),
        ],
        blocks=[
            one_column("Test accuracy with 40 % of the labels flipped to any other class (Table 1). ES: the model "
                       "that did best on the held-out examples, whose labels are as wrong.", results, rows,
                       paper_numbers.L2R_UNIFORM),
            *_mechanism(results, "l2r-uniform"),
        ],
    )  # fmt: skip


def background(results: Results) -> Section:
    rows = [("baseline", "accuracy", {"method": "plain"}), ("baseline + ES", "stopped.accuracy", {"method": "plain"}),
            ("random", "accuracy", {"method": "random"}), ("weighted", "accuracy", {"method": "oracle"}),
            ("clean only", "accuracy", {"method": "clean_only"}),
            ("baseline + FT", "fine_tuned.accuracy", {"method": "plain"}),
            ("baseline + ES + FT", "stopped_fine_tuned.accuracy", {"method": "plain"}),
            ("weighted + FT", "fine_tuned.accuracy", {"method": "oracle"}),
            ("L2R", "accuracy", {"method": "l2r"})]  # fmt: skip
    found = {label: results.spread(path, **settings) for label, path, settings in rows}
    section = Section(
        findings=[
            _better("L2R beats the baseline", found, "L2R", "baseline"),
            _better("L2R beats weights from an oracle", found, "L2R", "weighted"),
            _better("L2R beats the fine-tuned baseline", found, "L2R", "baseline + FT"),
            _better("random weights help less than an oracle's", found, "weighted", "random"),
        ],
        blocks=[
            one_column("Test accuracy with 40 % of the other labels flipped to one class (Table 2). ES: the model that "
                       "did best on the held-out examples, whose labels are as wrong.", results, rows,
                       paper_numbers.L2R_BACKGROUND),
            *_mechanism(results, "l2r-background"),
        ],
    )  # fmt: skip
    probes = [result["probe"] for result in results.of(method="l2r") if "probe" in result]
    if probes:
        mixed = [probe["mixed"] for probe in probes]
        zero = {group: _zero_share([each[group] for each in mixed]) for group in ("right", "wrong")}
        section.findings.append(Finding(
            "most wrongly labelled images get weight 0 (Fig. 3 left)",
            f"{100 * zero['wrong']:.0f} % of the wrong labels, {100 * zero['right']:.0f} % of the right ones",
            zero["wrong"] > 0.5 and zero["wrong"] > zero["right"],
        ))  # fmt: skip
        panels = {"held-out batches, as they are": mixed}
        if all("single" in probe for probe in probes):
            panels["one class at a time, part of it flipped"] = [probe["single"] for probe in probes]
        caption = "The weights that a half-trained model gives to images that it never saw (Fig. 3)."
        section.blocks.append(Figure("l2r-background-weights", caption, weights(panels), (9.0, 3.6)))
    return section


def _mechanism(results: Results, name: str) -> list[Figure]:
    """Confusion counts and training curves of the same runs."""
    chosen = {METHODS[m].name: (results.of(method=m), COLOURS[m]) for m in results.values("method")}
    pair = {METHODS[method].name: results.of(method=method) for method in ("plain", "l2r")}
    return [
        Figure(f"{name}-confusion", "Confusion on the test set at the end (Fig. 6).", confusions(pair), (8.4, 3.6)),
        Figure(f"{name}-curves", "Training curves (Fig. 7).", curves(chosen)),
    ]


def _zero_share(histograms: list[dict]) -> float:
    zero, rest = sum(h["zero"] for h in histograms), sum(sum(h["counts"]) for h in histograms)
    return zero / max(1, zero + rest)


def _better(claim: str, found: dict[str, Spread | None], first: str, second: str) -> Finding:
    here = f"{said(found[first])} % against {said(found[second])} %"
    return Finding(claim, here, above(found[first], found[second]))


def noise_level(results: Results) -> Section:
    flips = sorted(results.values("flip"))
    low, high = flips[0], flips[-1]
    drop = {}
    for method in ("plain", "l2r"):
        ends = [results.spread("accuracy", method=method, flip=flip) for flip in (low, high)]
        drop[method] = 100 * (ends[0].mean - ends[1].mean)
    at_none = {method: results.spread("accuracy", method=method, flip=low) for method in ("plain", "l2r")}
    series = [("baseline", COLOURS["plain"], points(results, "flip", "accuracy", method="plain")),
              ("baseline + ES + FT", COLOURS["clean_only"],
               points(results, "flip", "stopped_fine_tuned.accuracy", method="plain")),
              ("L2R", COLOURS["l2r"], points(results, "flip", "accuracy", method="l2r"))]  # fmt: skip
    rows = [("baseline", "accuracy", {"method": "plain"}),
            ("baseline + FT", "fine_tuned.accuracy", {"method": "plain"}),
            ("baseline + ES + FT", "stopped_fine_tuned.accuracy", {"method": "plain"}),
            ("L2R", "accuracy", {"method": "l2r"})]  # fmt: skip
    return Section(
        findings=[
            Finding(f"from {low:.0%} to {high:.0%} noise L2R drops by 6 points, the baseline by over 40",
                    f"L2R by {drop['l2r']:.1f}, the baseline by {drop['plain']:.1f}", drop["l2r"] < drop["plain"]),
            Finding("without noise L2R loses only a little to the baseline",
                    f"{said(at_none['l2r'])} % against {said(at_none['plain'])} %",
                    at_none["l2r"].mean > at_none["plain"].mean - 0.03),
        ],
        blocks=[
            grid("Test accuracy by the share of the other labels that are flipped to one class (Fig. 5).", results,
                 rows, "flip", flips, "{:.0%}".format),
            Figure("l2r-noise-level", "Test accuracy against the noise level.",
                   lines(series, "share of labels flipped to one class", "test accuracy, %",
                         ticks={flip: f"{flip:.0%}" for flip in flips})),
        ],
    )  # fmt: skip


def clean_set(results: Results) -> Section:
    sizes = sorted(results.values("clean"))
    ours = {size: results.spread("accuracy", method="l2r", clean=size) for size in sizes}
    tuned = {size: results.spread("fine_tuned.accuracy", method="plain", clean=size) for size in sizes}
    best = max(value.mean for value in ours.values())
    few, many = sizes[0], sizes[-1]
    series = [("baseline + FT", COLOURS["plain"], [*tuned.items()]), ("L2R", COLOURS["l2r"], [*ours.items()])]
    rows = [("baseline + FT", "fine_tuned.accuracy", {"method": "plain"}), ("L2R", "accuracy", {"method": "l2r"})]
    return Section(
        findings=[
            Finding("L2R needs few clean images: 15 in all cost 2 points", f"{few} a class cost "
                    f"{100 * (best - ours[few].mean):.1f} points", best - ours[few].mean < 0.03),
            Finding("with few clean images fine-tuning is far behind L2R", f"at {few} a class "
                    f"{said(tuned[few])} % against {said(ours[few])} %", tuned[few].mean < ours[few].mean),
            Finding("with many, fine-tuning catches up", f"at {many} a class {said(tuned[many])} % against "
                    f"{said(ours[many])} %", tuned[many].mean > ours[many].mean - 0.02),
        ],
        blocks=[
            grid("Test accuracy by clean images of each class; 40 % of the labels flipped to class 3 (Fig. 4).",
                 results, rows, "clean", sizes, "{} a class".format),
            Figure("l2r-clean-set", "Test accuracy against the size of the clean set.",
                   lines(series, "clean images of each class", "test accuracy, %", log=True,
                         ticks={size: str(size) for size in sizes})),
        ],
    )  # fmt: skip


SECTIONS = {
    "l2r-imbalance": imbalance,
    "l2r-uniform": uniform,
    "l2r-background": background,
    "l2r-noise-level": noise_level,
    "l2r-clean-set": clean_set,
}
