"""What several experiments start from: the training of each set of images at each scale, and grids over settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from bench.papers.training import Training

# Small images, few, and many passes over them: what lets a small network learn wrong labels by heart in 500 steps.
_CPU = Training(model="convnet", train=2000, steps=500, n=100, m=50, optimizer="adam", lr=3e-3, points=10)
_PAPER = Training(n=100, m=100, lr=0.1, momentum=0.9, weight_decay=5e-4, augment=True, points=60)

UNIFORM = {  # Ren et al. 2018, Table 1
    "cpu": replace(_CPU, data="cifar10", held=500, clean=20, noise="uniform", flip=0.4, fine_tune=40,
                   fine_tune_lr=1e-3),
    "paper": replace(_PAPER, data="cifar10", held=5000, clean=100, noise="uniform", flip=0.4, model="wrn28_10",
                     steps=60_000, milestones=(2 / 3, 5 / 6), fine_tune=5000, fine_tune_lr=1e-3),
}  # fmt: skip
BACKGROUND = {  # Ren et al. 2018, Table 2
    "cpu": replace(UNIFORM["cpu"], clean=10, noise="background", probe=True),
    "paper": replace(UNIFORM["paper"], clean=10, noise="background", probe=True, model="resnet32", steps=80_000,
                     milestones=(0.5, 0.75)),
}  # fmt: skip
LONG_TAIL = {  # Zhang & Pfister 2021, Table 6: as Cui et al. 2019, 200 epochs, decays at 160 and 180
    "cpu": replace(_CPU, data="cifar10", clean=10, imbalance="long_tail", train=10_000),
    "paper": replace(_PAPER, data="cifar10", clean=10, imbalance="long_tail", weight_decay=2e-4, model="resnet32",
                     steps=40_000, milestones=(0.8, 0.9)),
}  # fmt: skip
BIAS = {  # the reimplementation's toy problem; its network and length are not reported
    "cpu": replace(_CPU, data="cifar10", clean=10, imbalance="bias"),
    "paper": replace(_PAPER, data="cifar10", clean=10, imbalance="bias", train=5000, model="resnet32", steps=20_000),
}
LESIONS = {  # the reimplementation's HAM10000, 3 clean images a class
    "cpu": replace(_CPU, data="ham10000", clean=3, train=None, steps=800),
    "paper": replace(_PAPER, data="ham10000", clean=3, model="resnet32", steps=40_000),
}

CIFAR_CPU = (
    "CIFAR-10 (JPEG re-encoded); 2,000 training images of 50,000, 500 steps of Adam at 0.003 without augmentation, a "
    "network of three strided convolutions with GroupNorm (34 thousand parameters)"
)


def grid(base: Training, seeds: int, **axes: Sequence[Any]) -> list[Training]:
    """`base` at every combination of the values of `axes`, for each of the first `seeds` seeds; seeds vary slowest."""
    return [
        replace(base, seed=seed, **dict(zip(axes, values, strict=True)))
        for seed in range(seeds)
        for values in product(*axes.values())
    ]
