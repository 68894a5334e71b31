"""Zhang & Pfister 2021, section 5: FSR, which does without clean data, on CIFAR-10."""

from __future__ import annotations

from dataclasses import replace

from bench.papers.experiments.common import CIFAR_CPU, LONG_TAIL, UNIFORM, grid
from bench.papers.experiments.experiment import Experiment
from bench.papers.training import Options, Training
from bench.papers.trial import Trial

# Table 4 of the paper; on two cores 4 epochs of warm-up of 25 (there 20 of 128), a dictionary of 200 of 2,000 images.
RAW = {"cpu": Options(capacity=200, q=100, warmup=4), "paper": Options()}
FULL = {scale: replace(raw, relabel=2.0, mixup=True) for scale, raw in RAW.items()}
TAIL = {
    "cpu": Options(capacity=200, q=100, warmup=2, normalize="shift", label_smoothing=0.1),
    "paper": Options(capacity=3000, q=800, normalize="shift", label_smoothing=0.1),
}
DEFERRED = {"cpu": replace(TAIL["cpu"], warmup=10), "paper": replace(TAIL["paper"], warmup=160)}  # of 12, of 200 epochs
SEEDS = {"cpu": 2, "paper": 3}
PUSHERS = ("meta_margin", "negative_loss", "max_margin", "area_under_margin", "forgetting_events")
SIZES = {"cpu": (20, 200, 1000), "paper": (100, 500, 1000, 2000, 5000)}
TOP = {  # ever more layers of each scale's network
    "cpu": ("last", ("6.*", "7.*", "10.*"), "all"),
    "paper": ("last", ("17.*", "20.*"), ("13.*", "14.*", "15.*", "16.*", "17.*", "20.*"), "all"),
}
PAPER_UNIFORM = replace(UNIFORM["paper"], schedule="cosine", fine_tune=0, steps=64_000)  # 128 epochs
NOISE = {"cpu": UNIFORM["cpu"], "paper": PAPER_UNIFORM}


def _fsr(trials: list[Training], *options: Options) -> list[Trial]:
    """Each trial by FSR with each of `options`; FSR has no clean set to tune itself on."""
    return [replace(each, method="fsr", fsr=fsr, fine_tune=0) for each in trials for fsr in options]


def uniform(scale: str) -> list[Trial]:
    flips = {"flip": (0.2, 0.4, 0.8)}
    others = grid(NOISE[scale], SEEDS[scale], **flips, method=("plain", "l2r"))
    return others + _fsr(grid(NOISE[scale], SEEDS[scale], **flips), RAW[scale], FULL[scale])


def asymmetric(scale: str) -> list[Trial]:
    base, flips = replace(NOISE[scale], noise="asymmetric"), {"flip": {"cpu": (0.4,), "paper": (0.2, 0.4)}[scale]}
    others = grid(base, SEEDS[scale], **flips, method=("plain", "l2r"))
    return others + _fsr(grid(base, SEEDS[scale], **flips), FULL[scale])


def long_tail(scale: str) -> list[Trial]:
    ratios = {"ratio": (10, 50, 200)}
    others = grid(LONG_TAIL[scale], SEEDS[scale], **ratios, method=("plain", "l2r"))
    return others + _fsr(grid(LONG_TAIL[scale], SEEDS[scale], **ratios), TAIL[scale], DEFERRED[scale])


def noisy_tail(scale: str) -> list[Trial]:
    flips = {"cpu": (0.4,), "paper": (0.2, 0.4)}[scale]
    base, axes = replace(LONG_TAIL[scale], noise="uniform"), {"flip": flips, "ratio": (10, 50, 200)}
    seeds = SEEDS[scale]
    return grid(base, seeds, **axes) + _fsr(grid(base, seeds, **axes), replace(FULL[scale], warmup=TAIL[scale].warmup))


def pushers(scale: str) -> list[Trial]:
    options = [replace(FULL[scale], pusher=pusher) for pusher in PUSHERS]
    return _fsr(grid(NOISE[scale], SEEDS[scale]), *options)


def dictionary(scale: str) -> list[Trial]:
    options = [replace(kind[scale], capacity=size) for kind in (RAW, FULL) for size in SIZES[scale]]
    return _fsr(grid(NOISE[scale], SEEDS[scale]), *options)


def layers(scale: str) -> list[Trial]:
    base = replace(NOISE[scale], model={"cpu": "convnet", "paper": "resnet32"}[scale])
    l2r = grid(base, SEEDS[scale], method=("l2r",), params=[None if each == "all" else each for each in TOP[scale]])
    return l2r + _fsr(grid(base, SEEDS[scale]), *(replace(RAW[scale], params=params) for params in TOP[scale]))


_TAIL = CIFAR_CPU.replace("2,000", "1,000 in the largest class, all in all 2,000 to 4,100")
EXPERIMENTS = (
    Experiment("fsr-uniform", "No clean data: labels flipped to any other", "FSR", "Table 1", "cifar10", uniform,
               differs={"cpu": CIFAR_CPU}),
    Experiment("fsr-asymmetric", "No clean data: labels flipped to what looks alike", "FSR", "Table 3", "cifar10",
               asymmetric, differs={"cpu": CIFAR_CPU}),
    Experiment("fsr-long-tail", "Long tails of 10, 50 and 200", "FSR", "Table 6", "cifar10", long_tail,
               differs={"cpu": _TAIL}),
    Experiment("fsr-noisy-tail", "Wrong labels on long tails", "FSR", "Table 7", "cifar10", noisy_tail,
               differs={"cpu": _TAIL}),
    Experiment("fsr-pushers", "Which examples should the dictionary hold?", "FSR", "Fig. 5 right", "cifar10", pushers,
               differs={"cpu": CIFAR_CPU + "; the paper's was CIFAR-100", "paper": "the paper's was CIFAR-100"}),
    Experiment("fsr-dictionary", "Size and purity of the dictionary", "FSR", "Fig. 5 middle, Fig. 7", "cifar10",
               dictionary, differs={"cpu": CIFAR_CPU}),
    Experiment("fsr-layers", "Which layers are looked at", "FSR", "Fig. 4 right", "cifar10", layers,
               differs={"cpu": CIFAR_CPU}),
)  # fmt: skip
