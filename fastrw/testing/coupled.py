"""Coupled examples: batch statistics, weak and strong leaks; and rows that only move.

Coupled means that the loss of one example depends on the others, so that a method by layers would be wrong.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from .case import ANY, COUPLED, LAYERWISE, TANGENT, case, forward, model
from .parts import between, images, learned, linear, series


def batch_norm(**options) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5, **options), nn.ReLU(), nn.Linear(5, 4))


case("batchnorm1d", TANGENT, batch_norm)
case("batchnorm_cumulative", TANGENT, partial(batch_norm, momentum=None))
case("batchnorm_not_affine", TANGENT, partial(batch_norm, affine=False))
# In eval, but without running statistics, so that it takes those of the batch.
case("batchnorm_untracked_eval", TANGENT, lambda: batch_norm(track_running_stats=False).eval())


@model(TANGENT, images)
def batchnorm_partly_frozen():
    """One norm in training and one in eval, as in fine-tuning."""
    frozen = nn.BatchNorm2d(4).eval()
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), frozen, nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 4)
    )


@model(ANY, images, train=(1,), val=(1,))
def batchnorm_single_image():
    """n = m = 1: the statistics are over positions alone, and there is no other example to be coupled to."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4))


def rows(name: str, rule: Callable, expect: frozenset[str] = COUPLED, **parts: Callable) -> None:
    """A case with `rule(net, hidden [n, 5]) -> [n, 5]` and a ReLU between two linear layers."""
    case(name, expect, between(lambda net, h: rule(net, h).relu(), **parts))


def across_the_batch(net, h):
    positions = h[:, None]
    return net.attend(positions, positions, positions)[0][:, 0]


def standardised(net, h):
    return (h - h.mean(0)) / (h.var(0) + 1e-2).sqrt() * net.scale


rows("centred_by_hand", lambda net, h: h - h.mean(0))
rows("standardised_by_hand", standardised, scale=learned(5))
rows("coupled_weakly", lambda net, h: h + 1e-3 * h.mean(0))
rows("coupled_very_weakly", lambda net, h: h + 1e-5 * h.sum(0))
rows("coupled_pair", lambda net, h: torch.cat([h[:1] + h[1:2], h[1:]]))
# Only examples from the seventh on take from the first.
rows("coupled_late", lambda net, h: torch.cat([h[:6], h[6:] + 0.5 * h[:1]]))
# Neighbours leak where the data says so.
rows("coupled_by_data", lambda net, h: h + torch.where(h[:, :1] > 0.6, h.roll(1, 0), torch.zeros_like(h)))
rows("mixed_hidden_rows", lambda net, h: 0.7 * h + 0.3 * h.flip(0))
rows("softmax_over_the_batch", lambda net, h: h.softmax(0))
rows("cumsum_over_the_batch", lambda net, h: h.cumsum(0))
# A weight computed from the batch as a whole.
rows("weight_from_the_batch", lambda net, h: F.linear(h, net.make(h.mean(0)).view(5, 5)), make=linear(5, 25))
rows("attention_across_the_batch", across_the_batch, attend=partial(nn.MultiheadAttention, 5, 1))
# From here on other examples enter as constants, or rows only change places, so that layerwise may be exact.
rows("coupled_by_values_only", lambda net, h: h + (h.detach() - h.detach().mean(0)), ANY)
rows("scaled_by_detached_spread", lambda net, h: h / h.detach().std(), ANY)
rows("rows_rolled", lambda net, h: h.roll(1, 0), ANY)
rows("rows_flipped", lambda net, h: h.flip(0), ANY)
rows("rows_sorted_by_data", lambda net, h: h[h[:, 0].argsort()], ANY)
rows("rows_flipped_and_back", lambda net, h: net.mix(h.flip(0)).flip(0), ANY, mix=linear(5, 5))


@forward(ANY, enter=linear(6, 5), mix=linear(5, 5), head=linear(5, 4))
def rows_sorted_and_back(net, x):
    """A layer applied to rows in an order that the data gives."""
    h = net.enter(x).tanh()
    order = h[:, 0].argsort()
    return net.head(net.mix(h[order])[order.argsort()].relu())


@forward(ANY, enter=linear(6, 5), head=linear(5, 4))
def rows_repeated(net, x):
    """Every example runs three times, as noisy views averaged at the end: row r belongs to example r mod n."""
    views = torch.cat([x, x * 0.5, x.cos()])
    return net.head(net.enter(views).tanh().view(3, len(x), 5).mean(0))


@forward(ANY, series, enter=linear(6, 5), head=linear(5, 4))
def rows_of_different_counts(net, x):
    """Padding rows are dropped before the layer: examples own different numbers of rows."""
    keep = x[..., 0] > 0
    h = torch.zeros(*x.shape[:2], 5, dtype=x.dtype, device=x.device)
    h[keep] = net.enter(x[keep]).tanh()
    return net.head(h.sum(1))


@forward(LAYERWISE, series, enter=linear(6, 5), head=linear(5, 4))
def instance_statistics_by_hand(net, x):
    """Statistics of each example alone: nothing is coupled."""
    h = net.enter(x)
    return net.head(((h - h.mean(1, keepdim=True)) / (h.var(1, keepdim=True) + 1e-2).sqrt()).mean(1))
