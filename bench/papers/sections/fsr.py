"""Zhang & Pfister 2021: Tables 1, 3, 6 and 7, Fig. 4, 5 and 7, drawn again."""

from __future__ import annotations

from typing import Any

from bench.papers import paper_numbers
from bench.papers.drawing import COLOURS, bars, lines, points
from bench.papers.results import Results
from bench.papers.section import Figure, Finding, Section, Table
from bench.papers.sections.tables import above, grid, said

PLAIN, L2R = {"method": "plain"}, {"method": "l2r"}
RAW = {"method": "fsr", "fsr__mixup": False}
FULL = {"method": "fsr", "fsr__mixup": True}


def uniform(results: Results) -> Section:
    flips = sorted(results.values("flip"))
    rows = [("plain", "accuracy", PLAIN), ("L2R", "accuracy", L2R), ("FSR-Raw", "accuracy", RAW),
            ("FSR", "accuracy", FULL)]  # fmt: skip
    return Section(
        findings=[_beats(results, "FSR without clean data beats L2R with it", FULL, L2R, "flip", flips),
                  _beats(results, "FSR beats plain training", FULL, PLAIN, "flip", flips)],
        blocks=[
            grid("Test accuracy by the share of labels flipped to any other class (Table 1). FSR-Raw is without "
                 "re-labelling and MixUp.", results, rows, "flip", flips, "{:.0%}".format,
                 paper_numbers.FSR_UNIFORM),
            grid("Purity of the dictionary at the end: the share of its labels that are right.", results,
                 [("FSR-Raw", "purity", RAW), ("FSR", "purity", FULL)], "flip", flips, "{:.0%}".format),
            grid("Weights that are 0; the paper expects about the share of wrong labels.", results,
                 [("L2R", "zero_share", L2R), ("FSR-Raw", "zero_share", RAW), ("FSR", "zero_share", FULL)], "flip",
                 flips, "{:.0%}".format),
        ],
    )  # fmt: skip


def asymmetric(results: Results) -> Section:
    flips = sorted(results.values("flip"))
    rows = [("plain", "accuracy", PLAIN), ("L2R", "accuracy", L2R), ("FSR", "accuracy", FULL)]
    return Section(
        findings=[_beats(results, "FSR without clean data beats L2R with it", FULL, L2R, "flip", flips),
                  _beats(results, "FSR beats plain training", FULL, PLAIN, "flip", flips)],
        blocks=[
            grid("Test accuracy by the share of labels flipped to the class that looks alike (Table 3).", results, rows,
                 "flip", flips, "{:.0%}".format, paper_numbers.FSR_ASYMMETRIC),
        ],
    )  # fmt: skip


def long_tail(results: Results) -> Section:
    ratios = sorted(results.values("ratio"))
    warm, deferred = sorted(results.values("fsr__warmup", method="fsr"))
    now, later = ({"method": "fsr", "fsr__warmup": value} for value in (warm, deferred))
    rows = [("plain", "accuracy", PLAIN), ("L2R", "accuracy", L2R), ("FSR", "accuracy", now),
            ("FSR, deferred", "accuracy", later)]  # fmt: skip
    return Section(
        findings=[_beats(results, "FSR beats plain training on every tail", now, PLAIN, "ratio", ratios),
                  _beats(results, "FSR without clean data beats L2R with it", now, L2R, "ratio", ratios)],
        blocks=[
            grid("Test accuracy by imbalance (Table 6).", results, rows, "ratio", ratios, "{:g}:1".format,
                 paper_numbers.FSR_LONG_TAIL),
        ],
    )  # fmt: skip


def noisy_tail(results: Results) -> Section:
    flips, ratios = sorted(results.values("flip")), sorted(results.values("ratio"))
    names = {"plain": PLAIN, "FSR": FULL}
    rows, wins = [], 0
    for label, settings in names.items():
        cells = [said(results.spread("accuracy", **settings, flip=f, ratio=r)) for f in flips for r in ratios]
        rows.append([label, *cells])
    rows.append(["FSR, paper", *(paper_numbers.FSR_NOISY_TAIL.get((f, r), "-") for f in flips for r in ratios)])
    for f in flips:
        for r in ratios:
            pair = [results.spread("accuracy", **each, flip=f, ratio=r) for each in (FULL, PLAIN)]
            wins += above(*pair) is True
    total = len(flips) * len(ratios)
    headers = ["%", *(f"{f:.0%}, {r:g}:1" for f in flips for r in ratios)]
    return Section(
        findings=[Finding("FSR is robust where labels are wrong and classes rare at once",
                          f"above plain training at {wins} of {total} settings", wins == total)],
        blocks=[Table("Test accuracy by share of wrong labels and imbalance (Table 7).", headers, rows)],
    )  # fmt: skip


def pushers(results: Results) -> Section:
    names = results.values("fsr__pusher")
    found = {name: results.spread("accuracy", fsr__pusher=name) for name in names}
    purity = {name: results.spread("purity", fsr__pusher=name) for name in names}
    best, worst = (pick(names, key=lambda name: found[name].mean) for pick in (max, min))
    rows = [[name.replace("_", " "), said(found[name]), said(purity[name])] for name in names]
    return Section(
        findings=[
            Finding("the meta-margin is the best pusher",
                    f"best: {best.replace('_', ' ')} {said(found[best])} %; meta-margin {said(found['meta_margin'])} %",
                    best == "meta_margin"),
            Finding("forgetting events are the worst", f"worst: {worst.replace('_', ' ')} {said(found[worst])} %",
                    worst == "forgetting_events"),
            Finding("all of them mostly pick right labels",
                    f"purity from {100 * min(p.mean for p in purity.values()):.0f} to "
                    f"{100 * max(p.mean for p in purity.values()):.0f} %, where 60 % of the labels are right",
                    min(p.mean for p in purity.values()) > 0.7),
        ],
        blocks=[
            Table("FSR by pusher, 40 % of the labels flipped to any other class (Fig. 5 right).",
                  ["pusher", "test accuracy, %", "purity, %"], rows),
            Figure("fsr-pushers", "Accuracy, and purity of the dictionary, by pusher (Fig. 5 right).",
                   bars([name.replace("_", "\n") for name in names],
                        {"test accuracy": (COLOURS["fsr"], [*found.values()]),
                         "purity": (COLOURS["fsr_2"], [*purity.values()])}, "%")),
        ],
    )  # fmt: skip


def dictionary(results: Results) -> Section:
    sizes = sorted(results.values("fsr__capacity"))
    spans = {}
    for label, settings in (("FSR", FULL), ("FSR-Raw", RAW)):
        means = [found.mean for size in sizes if (found := results.spread("accuracy", **settings, fsr__capacity=size))]
        spans[label] = 100 * (max(means) - min(means))
    rows = [(f"{label}, {path}", path, settings) for label, settings in (("FSR", FULL), ("FSR-Raw", RAW))
            for path in ("accuracy", "purity")]  # fmt: skip
    colours = [COLOURS[name] for name in ("fsr", "fsr_2", "l2r", "hard_mining")]
    series = [(label, colour, points(results, "fsr__capacity", path, **settings))
              for (label, path, settings), colour in zip(rows, colours, strict=True)]  # fmt: skip
    return Section(
        findings=[Finding("FSR does not depend much on the dictionary's size, FSR-Raw somewhat more",
                          f"FSR within {spans['FSR']:.1f} points, FSR-Raw within {spans['FSR-Raw']:.1f}",
                          spans["FSR"] < 3 and spans["FSR"] <= spans["FSR-Raw"])],
        blocks=[
            grid("Test accuracy and purity by dictionary size, 40 % of the labels flipped (Fig. 5 middle, Fig. 7).",
                 results, rows, "fsr__capacity", sizes, "{}".format),
            Figure("fsr-dictionary", "Accuracy and purity against the size of the dictionary.",
                   lines(series, "examples in the dictionary", "%", log=True,
                         ticks={size: str(size) for size in sizes})),
        ],
    )  # fmt: skip


def layers(results: Results) -> Section:
    chosen = results.values("fsr__params", method="fsr")
    labels = {each: _layers(each) for each in chosen}
    ours = {each: results.spread("accuracy", method="fsr", fsr__params=each) for each in chosen}
    l2r = {each: results.spread("accuracy", method="l2r", params=None if each == "all" else each) for each in chosen}
    rows = [["FSR-Raw", *map(said, ours.values())], ["L2R", *map(said, l2r.values())]]
    spans = [100 * (max(v.mean for v in each.values()) - min(v.mean for v in each.values())) for each in (ours, l2r)]
    return Section(
        findings=[
            Finding("comparing the gradients of few layers costs no accuracy",
                    f"FSR within {spans[0]:.1f} points, L2R within {spans[1]:.1f}", max(spans) < 3),
            Finding("for FSR fewer layers are better", ", ".join(f"{labels[e]} {said(ours[e])} %" for e in chosen),
                    above(ours["last"], ours["all"])),
        ],
        blocks=[
            Table("Test accuracy by the layers in Θ^meta, 40 % of the labels flipped (Fig. 4 right).",
                  ["%", *labels.values()], rows),
            Figure("fsr-layers", "Test accuracy by the layers whose gradients are compared (Fig. 4 right).",
                   bars([*labels.values()], {"FSR-Raw": (COLOURS["fsr"], [*ours.values()]),
                                             "L2R": (COLOURS["l2r"], [*l2r.values()])}, "test accuracy, %")),
        ],
    )  # fmt: skip


def _layers(params: Any) -> str:
    if isinstance(params, str):
        return {"last": "last layer", "all": "all layers"}[params]
    return f"last layer and {len(params) - 1} below"


def _beats(results: Results, claim: str, first: dict, second: dict, setting: str, values: list) -> Finding:
    """At how many values of a setting the first is above the second."""
    pairs = [[results.spread("accuracy", **each, **{setting: value}) for each in (first, second)] for value in values]
    wins = [above(*pair) is True for pair in pairs]
    gaps = ", ".join(f"{100 * (a.mean - b.mean):+.1f}" for a, b in pairs if a and b)
    return Finding(claim, f"at {sum(wins)} of {len(values)} settings (points: {gaps})", all(wins))


SECTIONS = {
    "fsr-uniform": uniform,
    "fsr-asymmetric": asymmetric,
    "fsr-long-tail": long_tail,
    "fsr-noisy-tail": noisy_tail,
    "fsr-pushers": pushers,
    "fsr-dictionary": dictionary,
    "fsr-layers": layers,
}
