"""The examples of one trial: a spoilt training set, a clean balanced set, a held-out spoilt set, the test set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor

from bench.papers.sources import PapersError
from bench.papers.spoil import BACKGROUNDS, class_counts, flip_labels
from fastrw.demo.data import Images
from fastrw.demo.noise import standard

if TYPE_CHECKING:
    from bench.papers.training import Training


LEAST = 3  # examples of a class, however rare it is made: flips shall leave it some


@dataclass
class Task:
    """Images are [., C, H, W] float32 with mean 0 and deviation 1 per channel; labels int64."""

    x: Tensor  # [N, ...] training examples
    y: Tensor  # [N] as the methods see them
    true: Tensor  # [N] what they really are: for the oracle and the report
    x_clean: Tensor  # [M, ...] balanced, right labels
    y_clean: Tensor
    x_held: Tensor  # [H, ...] spoilt as the training set, never trained on
    y_held: Tensor
    true_held: Tensor
    x_test: Tensor
    y_test: Tensor
    classes: int
    background: int


def make_task(images: Images, trial: Training, device: str = "cpu") -> Task:
    """Everything random (test split, held-out and clean examples, subsets, flips) comes from `trial.seed` alone, so
    that all methods of a seed train on the same examples."""
    rng = np.random.default_rng(trial.seed)
    x, y, x_test, y_test = images.x, images.y, images.x_test, images.y_test
    if x_test is None:
        x, x_test, y, y_test = train_test_split(x, y, test_size=0.25, stratify=y, random_state=trial.seed)
    classes = images.classes
    if trial.pair:
        x, y = _only(x, y, trial.pair)
        x_test, y_test = _only(x_test, y_test, trial.pair)
        classes = 2
    order = rng.permutation(len(y))
    held_count = min(trial.held, len(order) // 5)
    held, rest = order[:held_count], order[held_count:]
    clean, rest = (rest[:0], rest) if trial.clean_in_training else _balanced(y, rest, classes, trial.clean)
    available = np.bincount(y[rest], minlength=classes)
    least = trial.clean if trial.clean_in_training else LEAST
    counts = class_counts(trial.imbalance, trial.ratio, available, trial.train, least)
    train = np.concatenate([rest[y[rest] == k][: counts[k]] for k in range(classes)])
    if trial.clean_in_training:
        clean, _ = _balanced(y, rng.permutation(train), classes, trial.clean)
    background = BACKGROUNDS[trial.seed % len(BACKGROUNDS)] if trial.background is None else trial.background
    background %= classes
    seen, seen_held = (
        flip_labels(rng, y[part], classes, trial.noise, trial.flip, background) for part in (train, held)
    )
    pixels = torch.tensor(x[train], dtype=torch.float32)
    deviation, mean = torch.std_mean(pixels, (0, 1, 2))

    def ready(part: np.ndarray) -> Tensor:
        return standard(torch.tensor(part, dtype=torch.float32), mean, deviation).to(device)

    def labels(part: np.ndarray) -> Tensor:
        return torch.from_numpy(part).to(device)

    return Task(
        x=standard(pixels, mean, deviation).to(device), y=labels(seen), true=labels(y[train]),
        x_clean=ready(x[clean]), y_clean=labels(y[clean]),
        x_held=ready(x[held]), y_held=labels(seen_held), true_held=labels(y[held]),
        x_test=ready(x_test), y_test=labels(y_test), classes=classes, background=background,
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
