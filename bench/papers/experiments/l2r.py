"""Ren et al. 2018, section 4: few fours among nines (MNIST with LeNet), wrong labels on CIFAR-10."""

from __future__ import annotations

from dataclasses import replace

from bench.papers.drawing import COLOURS, confusions, curves, deferred, weights
from bench.papers.experiments.common import BACKGROUND, CIFAR_CPU, UNIFORM, grid
from bench.papers.experiments.experiment import Experiment, Figure, Finding
from bench.papers.experiments.parts import Axis, Row, beats, column, columns, picture
from bench.papers.methods import METHODS
from bench.papers.results import Results
from bench.papers.training import Training
from bench.papers.trial import Trial

SEEDS = {"cpu": 3, "paper": 5}
FEW_SEEDS = {"cpu": 2, "paper": 5}
LEVELS = {"cpu": (0.0, 0.2, 0.4, 0.5), "paper": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)}
CLEAN = {"cpu": (1, 10, 50), "paper": (1, 5, 10, 50, 100, 500)}  # of each class

ES = "ES: the model that did best on the held-out examples, whose labels are as wrong."
METHOD = {"baseline": "plain", "random": "random", "weighted": "oracle", "clean only": "clean_only", "L2R": "l2r"}
PATH = {"": "accuracy", "ES": "stopped.accuracy", "FT": "fine_tuned.accuracy", "ES + FT": "stopped_fine_tuned.accuracy"}


def row(label: str, paper: str | None = None) -> Row:
    """By the paper's names: a method, with early stopping (ES) or fine-tuning on the clean set (FT)."""
    method, _, after = label.partition(" + ")
    return Row(label, METHOD[method], PATH[after], paper, shade="clean_only" if after == "ES + FT" else "")


# The papers' numbers are per cent of the test images; ± is Ren et al.'s 95 % confidence interval
TABLE_1 = (
    row("baseline", "67.97 ± 0.62"), row("baseline + ES"), row("random", "86.06 ± 0.32"),
    row("clean only", "46.64 ± 3.90"), row("baseline + FT", "78.66 ± 0.44"), row("baseline + ES + FT"),
    row("random + FT", "86.55 ± 0.24"), row("L2R", "86.92 ± 0.19"),
)  # fmt: skip
TABLE_2 = (
    row("baseline", "59.54 ± 2.16"), row("baseline + ES", "64.96 ± 1.19"), row("random", "69.51 ± 1.36"),
    row("weighted", "79.17 ± 1.36"), row("clean only", "15.90 ± 3.32"), row("baseline + FT", "82.82 ± 0.93"),
    row("baseline + ES + FT", "85.19 ± 0.46"), row("weighted + FT", "85.98 ± 0.47"), row("L2R", "86.73 ± 0.48"),
)  # fmt: skip
BASELINE, TUNED, L2R = row("baseline"), row("baseline + FT"), row("L2R")
FLIP = Axis(("flip",), "{:.0%}".format, "share of labels flipped to one class")
SIZE = Axis(("clean",), "{} a class".format, "clean images of each class", str, log=True)


@deferred
def mechanism(results: Results, name: str) -> list[Figure]:
    """Confusion counts and training curves of the same runs."""
    chosen = {METHODS[m].name: (COLOURS[m], results.of(method=m)) for m in results.values("method")}
    pair = {METHODS[m].name: results.of(method=m) for m in ("plain", "l2r")}
    return [
        Figure(f"{name}-confusion", "Confusion on the test set at the end (Fig. 6).", confusions(pair), (8.4, 3.6)),
        Figure(f"{name}-curves", "Training curves (Fig. 7).", curves(chosen)),
    ]


# Fig. 2: momentum 0 (calm) decides; what momentum 0.9 does (hasty) is shown beside it

_IMBALANCE = Training(
    "mnist", pair=(4, 9), imbalance="pair", train=5000, clean=5, clean_in_training=True, model="lenet", n=100, m=10
)
PAPER = replace(_IMBALANCE, steps=8000, lr=1e-3, momentum=0.0, schedule="constant", points=20)
CALM = replace(_IMBALANCE, steps=600, lr=0.05, momentum=0.0, schedule="cosine", points=6)
HASTY = replace(_IMBALANCE, steps=300, lr=0.01, momentum=0.9, schedule="constant", points=6)
ERRORS = {m: Row(METHODS[m].name, m, "error")
          for m in ("plain", "proportion", "resample", "hard_mining", "random", "l2r")}  # fmt: skip
BARS = "bars reach from the best seed to the worst."
RATIO = Axis(("ratio",), "{:g}:1".format, "nines for each four in the training set", log=True)


def imbalance(scale: str) -> list[Trial]:
    if scale == "paper":
        return grid(PAPER, 10, ratio=(10, 20, 50, 100, 200), method=tuple(ERRORS))
    return grid(CALM, 3, ratio=(200,), method=tuple(ERRORS)) + grid(HASTY, 10, ratio=(20, 100, 200),
                                                                    method=tuple(ERRORS))  # fmt: skip


def imbalance_claims(results: Results) -> list[Finding]:
    worst = max(results.values("ratio", momentum=0.0))
    found = {m: each.at(results, ratio=worst, momentum=0.0) for m, each in ERRORS.items()}
    ours = found["l2r"]
    best = min((m for m in found if m != "l2r"), key=lambda m: found[m].mean)
    fails = ("plain", "random")
    findings = [
        Finding(f"at {worst:g}:1 L2R's error is around 2 %", f"{ours} %", ours.mean < 0.04),
        Finding("L2R is significantly better than every baseline there",
                f"the best of them, {METHODS[best].name}, {found[best]} %", ours.mean < found[best].mean),
        Finding("plain training and random weights fail there",
                ", ".join(f"{METHODS[m].name} {found[m]} %" for m in fails),
                min(found[m].mean for m in fails) > 0.1),
    ]  # fmt: skip
    if hasty := results.values("ratio", momentum=0.9):
        low = ERRORS["l2r"].at(results, ratio=max(hasty), momentum=0.9)
        here = f"with momentum 0.9 at {max(hasty):g}:1 its error is {low} %, without {ours} %"
        findings.append(Finding("L2R needs no tuning of its own", here, low.mean < 0.04))
    return findings


# Fig. 3: the weights that a half-trained model gives to images that it never saw


def probed_claim(results: Results) -> list[Finding]:
    zero = {}
    for group in ("right", "wrong"):
        found = [probe["mixed"][group] for probe in _probes(results)]
        none, others = sum(h["zero"] for h in found), sum(sum(h["counts"]) for h in found)
        zero[group] = none / max(1, none + others)
    here = f"{100 * zero['wrong']:.0f} % of the wrong labels, {100 * zero['right']:.0f} % of the right ones"
    holds = zero["wrong"] > 0.5 and zero["wrong"] > zero["right"]
    return [Finding("most wrongly labelled images get weight 0 (Fig. 3 left)", here, holds)] * bool(_probes(results))


def probed_weights(results: Results) -> list[Figure]:
    probes = _probes(results)
    panels = {"held-out batches, as they are": [probe["mixed"] for probe in probes]}
    if all("single" in probe for probe in probes):
        panels["one class at a time, part of it flipped"] = [probe["single"] for probe in probes]
    caption = "The weights that a half-trained model gives to images that it never saw (Fig. 3)."
    return [Figure("l2r-background-weights", caption, weights(panels), (9.0, 3.6))] * bool(probes)


def _probes(results: Results) -> list[dict]:
    return [result["probe"] for result in results.of(method="l2r") if "probe" in result]


def level_claims(results: Results) -> list[Finding]:
    ours, plain = (row.along(results, FLIP) for row in (L2R, BASELINE))
    low, high = min(ours), max(ours)
    drops = [100 * (found[low].mean - found[high].mean) for found in (ours, plain)]
    return [
        Finding(f"from {low:.0%} to {high:.0%} noise L2R drops by 6 points, the baseline by over 40",
                f"L2R by {drops[0]:.1f}, the baseline by {drops[1]:.1f}", drops[0] < drops[1]),
        Finding("without noise L2R loses only a little to the baseline",
                f"{ours[low]} % against {plain[low]} %", ours[low].mean > plain[low].mean - 0.03),
    ]  # fmt: skip


def clean_set_claims(results: Results) -> list[Finding]:
    ours, tuned = (row.along(results, SIZE) for row in (L2R, TUNED))
    few, many = min(ours), max(ours)
    cost = max(each.mean for each in ours.values()) - ours[few].mean
    return [
        Finding("L2R needs few clean images: 15 in all cost 2 points",
                f"{few} a class cost {100 * cost:.1f} points", cost < 0.03),
        Finding("with few clean images fine-tuning is far behind L2R",
                f"at {few} a class {tuned[few]} % against {ours[few]} %", ours[few].mean > tuned[few].mean),
        Finding("with many, fine-tuning catches up",
                f"at {many} a class {tuned[many]} % against {ours[many]} %",
                tuned[many].mean > ours[many].mean - 0.02),
    ]  # fmt: skip


EXPERIMENTS = (
    Experiment(
        "l2r-imbalance", "MNIST 4 against 9, ever fewer fours", "L2R", "Fig. 2", "mnist", imbalance,
        claims=(imbalance_claims,),
        blocks=(
            columns("Test error without momentum. The paper draws a curve (Fig. 2) and gives no table.",
                    [*ERRORS.values()], RATIO, momentum=0.0),
            picture("l2r-imbalance", f"Test error against the imbalance; {BARS}", [*ERRORS.values()], RATIO,
                    "test error, %", least=2, momentum=0.0),
            columns("Test error with momentum 0.9.", [*ERRORS.values()], RATIO, momentum=0.9),
            picture("l2r-imbalance-momentum", f"Test error against the imbalance, with momentum 0.9; {BARS}",
                    [*ERRORS.values()], RATIO, "test error, %", momentum=0.9),
        ),
        differs={"cpu": "600 steps without momentum at 0.05 falling along a cosine, 3 splits (calm), and 300 steps at "
                        "0.01 with momentum 0.9, 10 splits (hasty); in the paper 8,000 steps at 0.001, 10 splits"},
        note="600 steps at a falling rate are about twice the learning of the paper's 8,000 at 0.001 (sum of the "
             "learning rates), yet too few for its 2 %: L2R's first steps go to finding a balance, and its error still "
             "falls at the end. With momentum the weights of a step answer to gradients that the next ten steps still "
             "carry on: the network swings from one class to the other, and where it stands at the end is chance (bars "
             "from the best seed to the worst). The paper trains without momentum.",
    ),
    Experiment(
        "l2r-uniform", "CIFAR-10, 40 % of the labels flipped to any other", "L2R", "Table 1, Fig. 6", "cifar10",
        lambda scale: grid(UNIFORM[scale], SEEDS[scale], method=("plain", "random", "clean_only", "l2r")),
        claims=(
            beats("L2R beats the baseline", L2R, BASELINE),
            beats("L2R beats the fine-tuned baseline", L2R, TUNED),
            beats("random weights beat the baseline by far", row("random"), BASELINE),
            beats("L2R beats random weights, fine-tuned or not", L2R, row("random + FT")),
        ),
        blocks=(
            column(f"Test accuracy with 40 % of the labels flipped to any other class (Table 1). {ES}", TABLE_1),
            mechanism("l2r-uniform"),
        ),
        differs={"cpu": CIFAR_CPU + "; 200 clean images of 1,000"},
        note="The level is far below the paper's: a small network on 2,000 images. The clean set is a tenth as large "
             "as the training set, in the paper a fiftieth. What carries over is the order: plain training learns "
             "every wrong label by heart (dotted line), L2R does not, and random weights help a third as much.",
    ),
    Experiment(
        "l2r-background", "CIFAR-10, 40 % of the labels flipped to one class", "L2R", "Table 2, Fig. 3, 6, 7",
        "cifar10",
        lambda scale: grid(BACKGROUND[scale], SEEDS[scale], method=("plain", "random", "oracle", "clean_only", "l2r")),
        claims=(
            beats("L2R beats the baseline", L2R, BASELINE),
            beats("L2R beats weights from an oracle", L2R, row("weighted")),
            beats("L2R beats the fine-tuned baseline", L2R, TUNED),
            beats("random weights help less than an oracle's", row("weighted"), row("random")),
            probed_claim,
        ),
        blocks=(
            column(f"Test accuracy with 40 % of the other labels flipped to one class (Table 2). {ES}", TABLE_2),
            mechanism("l2r-background"),
            probed_weights,
        ),
        differs={"cpu": CIFAR_CPU},
        note="L2R gains most where noise is one-sided: its weights tell right labels from wrong ones much better here "
             "(AUC 0.88) than under uniform flips (0.57). Early stopping on held-out examples as noisy as the training "
             "set picks models that answer the background class, so that ES alone is worse than the end of training; "
             "in the paper it helped. The oracle's weights hardly help against memorising before fine-tuning; there "
             "they did.",
    ),
    Experiment(
        "l2r-noise-level", "CIFAR-10, more and more labels flipped to one class", "L2R", "Fig. 5", "cifar10",
        lambda scale: grid(BACKGROUND[scale], FEW_SEEDS[scale], flip=LEVELS[scale], method=("plain", "l2r")),
        claims=(level_claims,),
        blocks=(
            columns("Test accuracy by the share of the other labels that are flipped to one class (Fig. 5).",
                    (BASELINE, TUNED, row("baseline + ES + FT"), L2R), FLIP),
            picture("l2r-noise-level", "Test accuracy against the noise level.",
                  (BASELINE, row("baseline + ES + FT"), L2R), FLIP),
        ),
        differs={"cpu": CIFAR_CPU},
    ),
    Experiment(
        "l2r-clean-set", "How many clean images are needed", "L2R", "Fig. 4", "cifar10",
        lambda scale: grid(replace(BACKGROUND[scale], background=3, probe=False), FEW_SEEDS[scale], clean=CLEAN[scale],
                           method=("plain", "l2r")),
        claims=(clean_set_claims,),
        blocks=(
            columns("Test accuracy by clean images of each class; 40 % of the labels flipped to class 3 (Fig. 4).",
                    (TUNED, L2R), SIZE),
            picture("l2r-clean-set", "Test accuracy against the size of the clean set.", (TUNED, L2R), SIZE),
        ),
        differs={"cpu": CIFAR_CPU},
    ),
)  # fmt: skip
