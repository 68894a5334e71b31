"""The examples of one trial: a spoilt training set, a clean balanced set, a held-out spoilt set, the test set."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from bench.papers.sources import PapersError
from bench.papers.trial import Trial
from fastrw.demo.data import Images
from fastrw.demo.noise import Task, flip, standardizer, with_test_set

# truck -> automobile, bird -> airplane, cat <-> dog, deer -> horse: classes of CIFAR-10 that look alike
LOOK_ALIKE = {9: 1, 2: 0, 3: 5, 5: 3, 4: 7}
BACKGROUNDS = (0, 1, 3, 5, 7)  # of the five trials of Ren et al. 2018, section 4.2, on CIFAR-10
LEAST = 3  # examples of a class, however rare it is made: flips must leave it some


@dataclass(frozen=True)
class Data(Trial):
    """The settings that decide the examples."""

    pair: tuple[int, int] | None = None  # these two classes alone, as classes 0 and 1
    imbalance: str = "none"  # as class_counts
    ratio: float = 1.0
    train: int | None = None  # training examples; None: all there are
    noise: str = "none"  # as flip_labels
    flip: float = 0.0
    background: int | None = None  # None: by seed, as the paper's five trials
    held: int = 0  # examples held out, spoilt as the training set
    clean: int = 10  # clean examples of each class
    clean_in_training: bool = False


@dataclass
class SpoiltTask(Task):
    """The M clean examples are part of the training set only with `clean_in_training`."""

    x_held: Tensor  # [H, C, H, W] spoilt as the training set, never trained on
    y_held: Tensor  # [H]
    true_held: Tensor  # [H]
    background: int

    @cached_property
    def clean_share(self) -> Tensor:
        """[K] the share of right labels among those that say each class."""
        right = torch.bincount(self.y[self.y == self.true], minlength=self.classes).float()
        return right / self.label_counts.clamp(min=1)


def make_task(images: Images, trial: Data, device: str = "cpu") -> SpoiltTask:
    """Everything random (test split, held-out and clean examples, subsets, flips) comes from `trial.seed` alone, so
    that all methods of a seed train on the same examples."""
    rng = np.random.default_rng(trial.seed)
    x, y, x_test, y_test = with_test_set(images, trial.seed)
    classes = images.classes
    if trial.pair:
        (x, y), (x_test, y_test) = (_only(*part, trial.pair) for part in ((x, y), (x_test, y_test)))
        classes = 2
    order = rng.permutation(len(y))
    held, rest = np.split(order, [min(trial.held, len(order) // 5)])
    clean, rest = (rest[:0], rest) if trial.clean_in_training else _balanced(y, rest, classes, trial.clean)
    available = np.bincount(y[rest], minlength=classes)
    least = trial.clean if trial.clean_in_training else LEAST
    counts = class_counts(trial.imbalance, trial.ratio, available, trial.train, least)
    train = np.concatenate([rest[y[rest] == k][: counts[k]] for k in range(classes)])
    if trial.clean_in_training:
        clean, _ = _balanced(y, rng.permutation(train), classes, trial.clean)
    own = BACKGROUNDS[trial.seed % len(BACKGROUNDS)]
    background = (own if trial.background is None else trial.background) % classes
    seen, seen_held = (
        flip_labels(rng, y[part], classes, trial.noise, trial.flip, background) for part in (train, held)
    )
    standard = standardizer(x[train])
    images_of = {"x": x[train], "x_clean": x[clean], "x_held": x[held], "x_test": x_test}
    labels = {"y": seen, "true": y[train], "y_clean": y[clean], "y_held": seen_held, "true_held": y[held],
              "y_test": y_test}  # fmt: skip
    return SpoiltTask(
        **{name: standard(part).to(device) for name, part in images_of.items()},
        **{name: torch.from_numpy(part).to(device) for name, part in labels.items()},
        classes=classes, background=background,
    )  # fmt: skip


def _only(x: np.ndarray, y: np.ndarray, pair: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    kept = np.isin(y, pair)
    return x[kept], (y[kept] == pair[1]).astype(np.int64)


def _balanced(y: np.ndarray, among: np.ndarray, classes: int, each: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `each` indices of every class in `among`, and all others; fewer where a class has few."""
    counts = np.bincount(y[among], minlength=classes)
    if counts.min() < 1:
        raise PapersError(f"fastrw.papers: every class needs an example, got none of class {counts.argmin()}")
    taken = np.concatenate([among[y[among] == k][: min(each, max(1, counts[k] // 2))] for k in range(classes)])
    return taken, among[~np.isin(among, taken)]


def class_counts(kind: str, ratio: float, available: np.ndarray, total: int | None, least: int = 1) -> np.ndarray:
    """How many examples of each class stay. [K] int64, never more than `available` [K], shares kept where it binds.

    kind: "none" (balanced as far as the data are; all where `total` is None), "pair" (class 1 has `ratio` times as many
    as class 0), "bias" (class 0 makes up the share `ratio` of all), "long_tail" (falling geometrically from class 0 to
    K - 1, the last with 1/ratio of the first; `total` / K in the first).
    """
    K = len(available)
    if kind == "none":
        if total is None:
            return available.copy()
        shares = available / available.sum()
    elif kind == "pair":
        shares = np.array([1, ratio]) / (1 + ratio)
    elif kind == "bias":
        shares = np.array([ratio, *[(1 - ratio) / (K - 1)] * (K - 1)])
    else:
        shares = ratio ** -np.linspace(0, 1, K) / K
    most = (available / shares).min()
    counts = shares * (most if total is None else min(total, most))
    return np.maximum(np.floor(counts + 1e-9).astype(np.int64), np.minimum(least, available))


def flip_labels(
    rng: np.random.Generator, y: np.ndarray, classes: int, kind: str, share: float, background: int = 0
) -> np.ndarray:
    """Labels [N] of which `share` are wrong. kind: "none", "uniform" (to any other class, exactly round(share N) of
    them), "background" (round(share N_k) of each other class become `background`), "asymmetric" (round(share N_k) of a
    class become the class that looks like it)."""
    if kind == "none" or share == 0:
        return y.copy()
    if kind == "uniform":
        return flip(rng, y, classes, share)
    targets = LOOK_ALIKE if kind == "asymmetric" else {k: background for k in range(classes) if k != background}
    flipped = y.copy()
    for source, target in targets.items():
        members = np.flatnonzero(y == source)
        flipped[rng.choice(members, round(share * len(members)), replace=False)] = target % classes
    return flipped
