"""The training rules that the papers compare: which examples make a batch, and what weight each of them gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.papers.task import SpoiltTask
from fastrw.demo.learners import Rule, equal, inverse_frequency, random_weights

POOL = 4  # hard mining looks through this many times the majority examples that it takes

# (model, x [N, C, H, W], y [N], n, seed, step) -> index [n] of a batch
Sampler = Callable[[nn.Module, Tensor, Tensor, int, int, int], Tensor]


def oracle(y: Tensor, task: SpoiltTask, generator: torch.Generator | None = None) -> Tensor:
    """w_i = the share of right labels among those that read y_i, normalized to sum 1 (WEIGHTED, Ren et al. 4.2)."""
    w = task.clean_share[y]
    return w / w.sum().clamp(min=torch.finfo(w.dtype).tiny)


def in_turn(model: nn.Module, x: Tensor, y: Tensor, n: int, seed: int, step: int) -> Tensor:
    """The next n examples of this epoch's order."""
    N = len(y)
    epoch, place = divmod(step * n, N - N % n)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
    return order[place : place + n].to(y.device)


def balanced(model: nn.Module, x: Tensor, y: Tensor, n: int, seed: int, step: int) -> Tensor:
    """n examples, each of a class drawn at random first (RESAMPLE; weighted sampling)."""
    return torch.multinomial(1 / torch.bincount(y).float()[y], n, replacement=True)


def hardest_of_majority(model: nn.Module, x: Tensor, y: Tensor, n: int, seed: int, step: int) -> Tensor:
    """Half of the batch from the other classes, half the majority's examples of highest loss among POOL as many drawn
    (HARD MINING, Ren et al. 2018, section 4.1, which leaves the shares open)."""
    majority = torch.bincount(y).argmax()
    rare, common = (y != majority).nonzero()[:, 0], (y == majority).nonzero()[:, 0]
    half = n // 2
    few = rare[torch.randint(len(rare), (n - half,)).to(rare.device)]
    many = common[torch.randperm(len(common))[: POOL * half].to(common.device)]
    with torch.no_grad():
        losses = F.cross_entropy(model(x[many]), y[many], reduction="none")
    return torch.cat([few, many[losses.topk(min(half, len(many))).indices]])


@dataclass(frozen=True)
class Method:
    name: str  # in tables
    sample: Sampler = in_turn
    rule: Rule | None = equal  # None: weights by gradients
    only_clean: bool = False


METHODS = {
    "plain": Method("plain"),
    "proportion": Method("proportion", rule=inverse_frequency),
    "resample": Method("resample", sample=balanced),
    "hard_mining": Method("hard mining", sample=hardest_of_majority),
    "random": Method("random (Eq. 16)", rule=random_weights),
    "oracle": Method("weighted (oracle)", rule=oracle),
    "clean_only": Method("clean only", only_clean=True),
    "l2r": Method("L2R (fastrw)", rule=None),
    "fsr": Method("FSR (fastrw)", rule=None),
}
