"""A spoilt training set made from good images: some clean examples kept apart, classes thinned, labels flipped."""

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor

from fastrw.demo.data import Images
from fastrw.demo.settings import DemoError, Settings


@dataclass
class Task:
    """The N examples that every method trains on: first the spoilt ones, then the clean ones (right and balanced)."""

    x: Tensor  # [N, C, H, W] float32, mean 0 and deviation 1 per channel
    y: Tensor  # [N] int64, as the methods see them
    flipped: Tensor  # [N - clean] bool: whose label is wrong; only the report looks at it
    true_labels: Tensor  # [N] int64; only the report looks at them
    clean: slice  # where in x and y the clean examples are
    x_test: Tensor  # [T, C, H, W] float32
    y_test: Tensor  # [T] int64
    classes: int


def make_task(images: Images, settings: Settings, seed: int) -> Task:
    """Everything random (test split, clean examples, rare classes, flips) is drawn from `seed` alone."""
    rng = np.random.default_rng(seed)
    x, y, x_test, y_test = images.x, images.y, images.x_test, images.y_test
    if x_test is None:
        x, x_test, y, y_test = train_test_split(x, y, test_size=0.25, stratify=y, random_state=seed)
    clean, rest = clean_split(rng, y, images.classes, settings.clean_per_class)
    kept = thin(rng, y, rest, images.classes, settings.imbalance)
    labels, flipped = flip(rng, y[kept], images.classes, settings.flip)

    both = np.concatenate([kept, clean])
    pixels = torch.tensor(x[both], dtype=torch.float32)
    deviation, mean = torch.std_mean(pixels, (0, 1, 2))
    return Task(
        x=standard(pixels, mean, deviation),
        y=torch.from_numpy(np.concatenate([labels, y[clean]])),
        flipped=torch.from_numpy(flipped),
        true_labels=torch.from_numpy(y[both]),
        clean=slice(len(kept), len(both)),
        x_test=standard(torch.tensor(x_test, dtype=torch.float32), mean, deviation),
        y_test=torch.from_numpy(y_test),
        classes=images.classes,
    )


def standard(pixels: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """(pixels - mean) / deviation per channel: [N, H, W, C] -> [N, C, H, W]; mean and deviation [C]."""
    return ((pixels - mean) / (deviation + 1e-6)).permute(0, 3, 1, 2).contiguous()


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


def flip(rng: np.random.Generator, y: np.ndarray, classes: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Exactly round(share * N) labels become another class, each other class being equally likely (UNIFORMFLIP)."""
    flipped = np.zeros(len(y), bool)
    flipped[rng.choice(len(y), round(share * len(y)), replace=False)] = True
    shift = rng.integers(1, classes, len(y))
    return np.where(flipped, (y + shift) % classes, y), flipped
