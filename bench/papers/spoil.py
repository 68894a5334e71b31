"""How labels are made wrong and classes rare in the papers, as pure functions of a random generator."""

from __future__ import annotations

import numpy as np

from fastrw.demo.noise import flip as uniform

# truck -> automobile, bird -> airplane, cat <-> dog, deer -> horse: classes of CIFAR-10 that look alike
LOOK_ALIKE = {9: 1, 2: 0, 3: 5, 5: 3, 4: 7}
BACKGROUNDS = (0, 1, 3, 5, 7)  # of the five trials of Ren et al. 2018, section 4.2, on CIFAR-10


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
    if total is None:
        total = (available / shares).min()
    counts = shares * min(total, (available / shares).min())
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
        return uniform(rng, y, classes, share)
    targets = LOOK_ALIKE if kind == "asymmetric" else {k: background for k in range(classes) if k != background}
    flipped = y.copy()
    for source, target in targets.items():
        members = np.flatnonzero(y == source)
        flipped[rng.choice(members, round(share * len(members)), replace=False)] = target % classes
    return flipped
