"""Pusher functions: which training examples deserve a place in the dictionary (Zhang & Pfister 2021, 4.1, 5.5).

A pusher keeps `columns` numbers for each example of the dataset, updates them each time the example is trained on, and
computes a score from them: examples with the highest scores enter the dictionary. The pusher itself is stateless.

    z = f(x; Θ) [n, C]: logits before the look-ahead;  ẑ = f(x; Θ̂) [n, C]: logits after it;  L: cross-entropy
"""

from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from fastrw.fsr import checks

_loss = partial(F.cross_entropy, reduction="none")  # L(z, y) [n]


@dataclass(frozen=True)
class Visit:
    """What is known about n examples after a training step on them."""

    y: Tensor  # [n] labels
    z: Tensor  # [n, C]
    ahead: Tensor | None = None  # [n, C] ẑ, for a pusher that looks ahead
    losses: Tensor | None = None  # [n] at Θ, where they differ from L(z, y): blended inputs or smoothed labels


class Pusher(Protocol):
    """The interface that `ProxyDictionary` expects of a pusher; write your own."""

    columns: int = 1  # numbers kept for each example; they start at 0
    looks_ahead: bool = False  # does `move` need the logits at Θ̂?

    def move(self, history: Tensor, visit: Visit) -> Tensor:
        """history [n, columns] of the visited examples -> their updated history."""

    def score(self, history: Tensor) -> Tensor:
        """history [N, columns] -> scores [N]."""


@dataclass(frozen=True)
class _Average(Pusher):
    """P̂ ← λ P̂ + (1 - λ) P, λ = momentum in [0, 1)."""

    momentum: float = 0.9

    def __post_init__(self):
        checks.arguments(type(self).__name__, momentum=self.momentum)

    def move(self, history: Tensor, visit: Visit) -> Tensor:
        pushed = self.push(visit).to(history.dtype)[:, None]
        return self.momentum * history + (1 - self.momentum) * pushed

    def score(self, history: Tensor) -> Tensor:
        return history[:, 0]

    def push(self, visit: Visit) -> Tensor:
        """P [n]."""


class MetaMargin(_Average):
    """P = L(z, y) - L(ẑ, y): how far the look-ahead lowers the loss (Eq. 5), by momentum. The paper's own choice."""

    looks_ahead = True

    def push(self, visit: Visit) -> Tensor:
        before = _loss(visit.z, visit.y) if visit.losses is None else visit.losses
        return before - _loss(visit.ahead, visit.y)


class NegativeLoss(_Average):
    """P = -L(z, y), by momentum: examples that the model recognises well."""

    def push(self, visit: Visit) -> Tensor:
        return -_loss(visit.z, visit.y)


class MaxMargin(_Average):
    """P = the highest probability minus the second, by momentum: the model's confidence, whatever the label."""

    def push(self, visit: Visit) -> Tensor:
        first, second = visit.z.softmax(1).topk(2, dim=1).values.unbind(1)
        return first - second


@dataclass(frozen=True)
class AreaUnderMargin(Pusher):
    """The mean over all visits of z_y - max_{c ≠ y} z_c (Pleiss et al. 2020)."""

    columns = 2  # the sum, the number of visits

    def move(self, history: Tensor, visit: Visit) -> Tensor:
        own = visit.z.gather(1, visit.y[:, None])
        other = visit.z.scatter(1, visit.y[:, None], -torch.inf).amax(1, keepdim=True)
        return history + torch.cat([own - other, torch.ones_like(own)], 1).to(history.dtype)

    def score(self, history: Tensor) -> Tensor:
        return history[:, 0] / history[:, 1].clamp(min=1)


@dataclass(frozen=True)
class ForgettingEvents(Pusher):
    """Minus the number of times that the example went from right to wrong (Toneva et al. 2019): Forget-event⁻¹.

    An example that was never right ranks below all that were.
    """

    columns = 3  # events; right at the last visit; ever right

    def move(self, history: Tensor, visit: Visit) -> Tensor:
        right = (visit.z.argmax(1) == visit.y).to(history.dtype)
        events, before, ever = history.unbind(1)
        return torch.stack([events + before * (1 - right), right, torch.maximum(ever, right)], 1)

    def score(self, history: Tensor) -> Tensor:
        return torch.where(history[:, 2] > 0, -history[:, 0], -torch.inf)


PUSHERS = {
    "meta_margin": MetaMargin,
    "negative_loss": NegativeLoss,
    "max_margin": MaxMargin,
    "area_under_margin": AreaUnderMargin,
    "forgetting_events": ForgettingEvents,
}
