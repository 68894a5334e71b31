"""Coupled examples: batch statistics, weak and strong leaks; and rows that only move.

Coupled means that the loss of one example depends on the others, so that the layerwise method would be wrong.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from .batches import images, series
from .case import ANY, COUPLED, TANGENT, between, case, features, named
from .parts import conv, learned, linear, sequence

enter, mix = linear(6, 5), linear(5, 5)


def batch_norm(**options) -> Callable[[], nn.Sequential]:
    return sequence(enter, partial(nn.BatchNorm1d, 5, **options), nn.ReLU, linear(5, 4))


case("batchnorm1d", batch_norm(), expect=TANGENT)
case("batchnorm_cumulative", batch_norm(momentum=None), expect=TANGENT)
case("batchnorm_not_affine", batch_norm(affine=False), expect=TANGENT)
# In eval, but without running statistics, so that it takes those of the batch.
case("batchnorm_untracked_eval", batch_norm(track_running_stats=False), change=nn.Module.eval, expect=TANGENT)

enter_images, norm = conv(3, 4, 3), partial(nn.BatchNorm2d, 4)
two_norms = sequence(enter_images, norm, nn.ReLU, conv(4, 4, 3), norm, nn.Flatten, linear(64, 4))
one_norm = sequence(enter_images, norm, nn.ReLU, nn.Flatten, linear(144, 4))
# One norm in training and one in eval, as in fine-tuning.
case("batchnorm_partly_frozen", two_norms, images, change=lambda model: model[1].eval(), expect=TANGENT)
# n = m = 1: the statistics are over positions alone, and there is no other example to be coupled to.
case("batchnorm_single_image", one_norm, images, train=(1,), val=(1,), expect=ANY)


def rows(name: str, rule: Callable, expect: frozenset[str] = COUPLED, **parts: Callable) -> None:
    """A case with `rule(net, hidden [n, 5]) -> [n, 5]` and a ReLU between two linear layers."""
    between(name, lambda net, h: rule(net, h).relu(), **parts, expect=expect)


rows("centred_by_hand", lambda net, h: h - h.mean(0))
rows("standardised_by_hand", lambda net, h: (h - h.mean(0)) / (h.var(0) + 1e-2).sqrt() * net.scale, scale=learned(5))
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
attention = partial(nn.MultiheadAttention, 5, 1)
rows("attention_across_the_batch", lambda net, h: net.attend(*3 * [h[:, None]])[0][:, 0], attend=attention)
# From here on other examples enter as constants, or rows only change places, so that layerwise may be exact.
rows("coupled_by_values_only", lambda net, h: h + (h.detach() - h.detach().mean(0)), expect=ANY)
rows("scaled_by_detached_spread", lambda net, h: h / h.detach().std(), expect=ANY)
rows("rows_rolled", lambda net, h: h.roll(1, 0), expect=ANY)
rows("rows_flipped", lambda net, h: h.flip(0), expect=ANY)
rows("rows_sorted_by_data", lambda net, h: h[h[:, 0].argsort()], expect=ANY)
rows("rows_flipped_and_back", lambda net, h: net.mix(h.flip(0)).flip(0), expect=ANY, mix=mix)
# Every example runs three times, as noisy views averaged at the end: row r belongs to example r mod n.
features("rows_repeated", lambda net, x: net.enter(torch.cat([x, x * 0.5, x.cos()])).tanh().view(3, len(x), 5).mean(0),
         enter=enter, expect=ANY)  # fmt: skip


@named(features, enter=enter, mix=mix, expect=ANY)
def rows_sorted_and_back(net, x):
    """A layer applied to rows in an order that the data gives."""
    h = net.enter(x).tanh()
    order = h[:, 0].argsort()
    return net.mix(h[order])[order.argsort()].relu()


@named(features, series, enter=enter, expect=ANY)
def rows_of_different_counts(net, x):
    """Padding rows are dropped before the layer: examples own different numbers of rows."""
    keep = x[..., 0] > 0
    h = torch.zeros(*x.shape[:2], 5, dtype=x.dtype, device=x.device)
    h[keep] = net.enter(x[keep]).tanh()
    return h.sum(1)


@named(features, series, enter=enter)
def instance_statistics_by_hand(net, x):
    """Statistics of each example alone: nothing is coupled."""
    h = net.enter(x)
    return ((h - h.mean(1, keepdim=True)) / (h.var(1, keepdim=True) + 1e-2).sqrt()).mean(1)
