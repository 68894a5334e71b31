"""Losses of pytorch_metric_learning, with a small network below. They return a loss of each example, pair or triplet;
the loss of an example is the sum of those in which it is the anchor."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pytorch_metric_learning import distances, losses, miners
from pytorch_metric_learning.reducers import DoNothingReducer
from pytorch_metric_learning.regularizers import LpRegularizer
from torch import Tensor, nn

from ..case import LAYERWISE, TANGENT, Case

CASES: list[Case] = []
CLASSES, WIDTH = 3, 6


class Metric(nn.Module):
    """A network of embeddings, and a loss, which may have parameters of its own."""

    def __init__(self, loss: nn.Module, miner: nn.Module | None = None):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, WIDTH))
        self.loss, self.miner = loss, miner

    def forward(self, x: Tensor, y: Tensor) -> dict:
        h = self.net(x)
        return self.loss(h, y) if self.miner is None else self.loss(h, y, self.miner(h, y))


def pairs(n: int = 8) -> tuple[Tensor, Tensor]:
    """At least two examples of each class."""
    return torch.randn(n, 5), torch.arange(n) % (3 if n > 4 else 2)


def by_anchor(model: Metric, batch: tuple[Tensor, Tensor]) -> Tensor:
    total = batch[0].new_zeros(len(batch[1]))
    for found in model(*batch).values():
        each, indices = found["losses"], found["indices"]
        if torch.is_tensor(each):
            anchor = indices[0] if isinstance(indices, tuple) else indices
            total = total.index_add(0, anchor, each.flatten()) if each.ndim else total + each
    return total


def add(kind: type[nn.Module], name: str = "", expect=TANGENT, miner: Callable = lambda: None, **options) -> None:
    def make() -> nn.Module:
        return Metric(kind(reducer=DoNothingReducer(), **options), miner())

    CASES.append(Case(name or kind.__name__, make, pairs, expect, kwargs={"losses_fn": by_anchor}))


def with_proxies(kind: type[nn.Module], name: str = "", **options) -> None:
    """Examples are compared with parameters of their classes, not with each other."""
    add(kind, name, LAYERWISE, num_classes=CLASSES, embedding_size=WIDTH, **options)


with_proxies(losses.ArcFaceLoss, scale=8)
with_proxies(losses.SubCenterArcFaceLoss, sub_centers=2, scale=8)
with_proxies(losses.CosFaceLoss, scale=8)
with_proxies(losses.SphereFaceLoss)
with_proxies(losses.LargeMarginSoftmaxLoss)
with_proxies(losses.NormalizedSoftmaxLoss, temperature=0.2)
with_proxies(losses.ProxyNCALoss)
with_proxies(losses.SoftTripleLoss, centers_per_class=2)
with_proxies(losses.ArcFaceLoss, "ArcFaceLoss_regularised", scale=8, weight_regularizer=LpRegularizer(),
             weight_reg_weight=0.1)  # fmt: skip

# these compare the examples of a batch, so a gradient that reaches the network belongs to several of them
add(losses.ContrastiveLoss)
add(losses.SupConLoss)
add(losses.NTXentLoss, temperature=0.3)
add(losses.TripletMarginLoss, margin=0.5)
add(losses.TripletMarginLoss, "TripletMarginLoss_mined", margin=1.0, miner=miners.BatchHardMiner)
add(losses.TripletMarginLoss, "TripletMarginLoss_smooth", smooth_loss=True, distance=distances.CosineSimilarity())
add(losses.MultiSimilarityLoss, miner=miners.MultiSimilarityMiner)
add(losses.CircleLoss)
add(losses.NCALoss)
add(losses.FastAPLoss)
add(losses.IntraPairVarianceLoss)
add(losses.LiftedStructureLoss)
add(losses.GeneralizedLiftedStructureLoss)
add(losses.SignalToNoiseRatioContrastiveLoss)
add(losses.TupletMarginLoss)
add(losses.AngularLoss)
add(losses.MarginLoss, num_classes=CLASSES, learn_beta=True)


def memory() -> nn.Module:
    """The pairs are those of the batch with what earlier batches left, which has no graph."""
    return losses.CrossBatchMemory(losses.ContrastiveLoss(reducer=DoNothingReducer()), WIDTH, memory_size=20)


CASES.append(Case("CrossBatchMemory", lambda: Metric(memory()), pairs, LAYERWISE, kwargs={"losses_fn": by_anchor}))
