"""The training rules that the papers compare: which examples make a batch, and what weight each of them gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from bench.papers.training import Run

POOL = 4  # hard mining looks through this many times the majority examples that it takes


def equal(run: Run, y: Tensor) -> Tensor:
    """w_i = 1/n."""
    return torch.full((len(y),), 1 / len(y), device=y.device)


def proportion(run: Run, y: Tensor) -> Tensor:
    """w_i = 1/count(y_i), made to sum to 1 (PROPORTION, Ren et al. 2018, section 4.1)."""
    w = 1 / run.label_counts[y].clamp(min=1)
    return w / w.sum()


def random(run: Run, y: Tensor) -> Tensor:
    """w_i = max(z_i, 0) / sum_k max(z_k, 0), z_i ~ N(0, 1) (RANDOM, Ren et al. 2018, Eq. 16)."""
    z = torch.randn(len(y)).clamp(min=0).to(y.device)
    return z / z.sum().clamp(min=torch.finfo(z.dtype).tiny)


def oracle(run: Run, y: Tensor) -> Tensor:
    """w_i = the share of right labels among those that read y_i, made to sum to 1 (WEIGHTED, Ren et al. 2018, 4.2)."""
    w = run.clean_share[y]
    return w / w.sum().clamp(min=torch.finfo(w.dtype).tiny)


def in_turn(run: Run) -> Tensor:
    """The next n examples of this epoch's order."""
    N, n = run.pool_size, run.batch_size
    epoch, place = divmod(run.done * n, N - N % n)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(run.trial.seed * 1_000_003 + epoch))
    return order[place : place + n].to(run.task.y.device)


def balanced(run: Run) -> Tensor:
    """n examples, each of a class drawn at random first (RESAMPLE; weighted sampling)."""
    n = run.batch_size
    w = 1 / run.label_counts[run.task.y]
    return torch.multinomial(w, n, replacement=True)


def hardest_of_majority(run: Run) -> Tensor:
    """Half of the batch from the other classes, half the majority's examples of highest loss among POOL as many drawn
    (HARD MINING, Ren et al. 2018, section 4.1, which leaves the shares open)."""
    majority = run.label_counts.argmax()
    rare, common = (run.task.y != majority).nonzero()[:, 0], (run.task.y == majority).nonzero()[:, 0]
    half = run.batch_size // 2
    few = rare[torch.randint(len(rare), (run.batch_size - half,)).to(rare.device)]
    many = common[torch.randperm(len(common))[: POOL * half].to(common.device)]
    with torch.no_grad():
        losses = F.cross_entropy(run.model(run.task.x[many]), run.task.y[many], reduction="none")
    return torch.cat([few, many[losses.topk(min(half, len(many))).indices]])


@dataclass(frozen=True)
class Method:
    """`weights` None: they come from fastrw, with the gradient. `said`: its name in tables."""

    said: str
    sample: Callable[[Run], Tensor] = in_turn
    weights: Callable[[Run, Tensor], Tensor] | None = equal
    only_clean: bool = False


METHODS = {
    "plain": Method("plain"),
    "proportion": Method("proportion", weights=proportion),
    "resample": Method("resample", sample=balanced),
    "hard_mining": Method("hard mining", sample=hardest_of_majority),
    "random": Method("random (Eq. 16)", weights=random),
    "oracle": Method("weighted (oracle)", weights=oracle),
    "clean_only": Method("clean only", only_clean=True),
    "l2r": Method("L2R (fastrw)", weights=None),
    "fsr": Method("FSR (fastrw)", weights=None),
}
