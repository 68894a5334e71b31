"""A spoilt training set made from good images: some clean examples kept apart, classes thinned, labels flipped."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor

from fastrw.demo.data import Images
from fastrw.demo.settings import DemoError, Settings


@dataclass
class Task:
    """What every method trains on and is tested on. Images are [., C, H, W] float32 with mean 0 and standard deviation
    1 per channel over the training set; labels are int64."""

    x: Tensor  # [N, ...] training examples
    y: Tensor  # [N] their labels as the methods see them
    true: Tensor  # [N] their true labels: for measurements alone
    x_clean: Tensor  # [M, ...] balanced examples with right labels
    y_clean: Tensor  # [M]
    x_test: Tensor  # [T, ...]
    y_test: Tensor  # [T]
    classes: int

    @cached_property
    def label_counts(self) -> Tensor:
        """[K] float32: training examples by their label as it is seen."""
        return torch.bincount(self.y, minlength=self.classes).float()


def make_task(images: Images, settings: Settings, seed: int) -> Task:
    """Everything random (test split, clean examples, rare classes, flips) is drawn from `seed` alone.

    The N training examples are the spoilt ones, then the M clean ones."""
    rng = np.random.default_rng(seed)
    x, y, x_test, y_test = with_test_set(images, seed)
    clean, rest = clean_split(rng, y, images.classes, settings.clean_per_class)
    kept = thin(rng, y, rest, images.classes, settings.imbalance)
    labels = flip(rng, y[kept], images.classes, settings.flip)
    both = np.concatenate([kept, clean])
    standard = standardizer(x[both])
    inputs, seen = standard(x[both]), torch.from_numpy(np.concatenate([labels, y[clean]]))
    return Task(
        x=inputs, y=seen, true=torch.from_numpy(y[both]), x_clean=inputs[len(kept) :], y_clean=seen[len(kept) :],
        x_test=standard(x_test), y_test=torch.from_numpy(y_test), classes=images.classes,
    )  # fmt: skip


def with_test_set(images: Images, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x, y, x_test, y_test; where the images have no test set, a quarter of each class is held out."""
    if images.x_test is not None:
        return images.x, images.y, images.x_test, images.y_test
    x, x_test, y, y_test = train_test_split(images.x, images.y, test_size=0.25, stratify=images.y, random_state=seed)
    return x, y, x_test, y_test


def standardizer(train: np.ndarray) -> Callable[[np.ndarray], Tensor]:
    """(pixels - mean) / deviation, of each channel of `train`, as a function: [N, H, W, C] -> [N, C, H, W] float32."""
    deviation, mean = torch.std_mean(torch.tensor(train, dtype=torch.float32), (0, 1, 2))

    def standard(pixels: np.ndarray) -> Tensor:
        pixels = (torch.tensor(pixels, dtype=torch.float32) - mean) / (deviation + 1e-6)
        return pixels.permute(0, 3, 1, 2).contiguous()

    return standard


def clean_split(rng: np.random.Generator, y: np.ndarray, classes: int, per_class: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of `per_class` examples of each class, and of all others."""
    counts = np.bincount(y, minlength=classes)
    if counts.min() <= per_class:
        raise DemoError(
            f"fastrw.demo: every class needs more training examples than --clean-per-class = {per_class}, "
            f"got {counts.min()} of class {counts.argmin()}"
        )
    clean = np.concatenate([rng.choice(np.flatnonzero(y == c), per_class, replace=False) for c in range(classes)])
    return clean, np.setdiff1d(np.arange(len(y)), clean)


def thin(rng: np.random.Generator, y: np.ndarray, rest: np.ndarray, classes: int, imbalance: float) -> np.ndarray:
    """Classes in a random order keep shares falling geometrically from 1 to 1 / imbalance, and at least one example."""
    shares = imbalance ** -np.linspace(0, 1, classes)[rng.permutation(classes)]
    members = [rng.permutation(rest[y[rest] == c]) for c in range(classes)]
    return np.concatenate([m[: max(1, round(len(m) * share))] for m, share in zip(members, shares, strict=True)])


def flip(rng: np.random.Generator, y: np.ndarray, classes: int, share: float) -> np.ndarray:
    """Exactly round(share * N) labels become another class, each other class being equally likely (UNIFORMFLIP)."""
    flipped = np.zeros(len(y), bool)
    flipped[rng.choice(len(y), round(share * len(y)), replace=False)] = True
    shift = rng.integers(1, classes, len(y))
    return np.where(flipped, (y + shift) % classes, y)
