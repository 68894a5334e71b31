"""Examples that meet: batch statistics, losses across the batch, leaks strong and weak; rows that only move."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from .case import ANY, COUPLED, LAYERWISE, TANGENT, Net, case, images, param, series, vectors


def batch_norm(**options):
    norm = nn.BatchNorm1d(5, **options)
    return nn.Sequential(nn.Linear(6, 5), norm, nn.ReLU(), nn.Linear(5, 4)), vectors(9), vectors(4)


case(TANGENT, name="batchnorm1d")(batch_norm)
case(TANGENT, name="batchnorm_cumulative")(partial(batch_norm, momentum=None))
case(TANGENT, name="batchnorm_not_affine")(partial(batch_norm, affine=False))


@case(TANGENT)
def batchnorm_untracked_eval():
    """In eval, but with no running statistics to use: the batch's own serve."""
    model, batch, val_batch = batch_norm(track_running_stats=False)
    return model.eval(), batch, val_batch


@case(TANGENT)
def batchnorm_partly_frozen():
    """One norm in training and one in eval, as in fine-tuning."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3),
        nn.BatchNorm2d(4),
        nn.Flatten(),
        nn.Linear(64, 4),
    )
    model[1].eval()
    return model, images(8), images(4)


@case(ANY)
def batchnorm_single_image():
    """n = m = 1: statistics over positions, nobody to be coupled to."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4))
    return model, images(1), images(1)


def between(op, expect=COUPLED, name=None, n=9, m=4, **parts):
    """A case with `op(net, hidden [n, 5]) -> [n, 5]` between two layers."""

    def build():
        modules = {key: make() for key, make in parts.items()}
        rule = lambda net, x: net.head(op(net, net.enter(x).tanh()).relu())  # noqa: E731
        return Net(rule, enter=nn.Linear(6, 5), head=nn.Linear(5, 4), **modules), vectors(n), vectors(m)

    case(expect, name=name)(build)


def late(net, h):
    """Only examples from the seventh on take from the first."""
    return torch.cat([h[:6], h[6:] + 0.5 * h[:1]])


def now_and_then(net, h):
    """Neighbours leak where the data says so."""
    return h + torch.where(h[:, :1] > 0.6, h.roll(1, 0), torch.zeros_like(h))


def statistics_network(net, h):
    """A weight computed from the batch as a whole."""
    return F.linear(h, net.make(h.mean(0)).view(5, 5))


def across_the_batch(net, h):
    rows = h[:, None]
    return net.attend(rows, rows, rows)[0][:, 0]


between(lambda net, h: h - h.mean(0), name="centred_by_hand")
between(
    lambda net, h: (h - h.mean(0)) / (h.var(0) + 1e-2).sqrt() * net.scale,
    name="standardised_by_hand",
    scale=partial(param, 5),
)
between(lambda net, h: h + 1e-3 * h.mean(0), name="coupled_weakly")
between(lambda net, h: h + 1e-5 * h.sum(0), name="coupled_very_weakly")
between(lambda net, h: torch.cat([h[:1] + h[1:2], h[1:]]), name="coupled_pair")
between(late, name="coupled_late")
between(now_and_then, name="coupled_by_data")
between(lambda net, h: 0.7 * h + 0.3 * h.flip(0), name="mixed_hidden_rows")
between(lambda net, h: h.softmax(0), name="softmax_over_the_batch")
between(lambda net, h: h.cumsum(0), name="cumsum_over_the_batch")
between(statistics_network, name="weight_from_the_batch", make=partial(nn.Linear, 5, 25))
between(across_the_batch, name="attention_across_the_batch", attend=partial(nn.MultiheadAttention, 5, 1))
between(lambda net, h: h + (h.detach() - h.detach().mean(0)), name="coupled_by_values_only", expect=ANY)
between(lambda net, h: h / h.detach().std(), name="scaled_by_detached_spread", expect=ANY)
between(lambda net, h: h.roll(1, 0), name="rows_rolled", expect=ANY)
between(lambda net, h: h.flip(0), name="rows_flipped", expect=ANY)
between(lambda net, h: h[h[:, 0].argsort()], name="rows_sorted_by_data", expect=ANY)
between(
    lambda net, h: net.mix(h.flip(0)).flip(0), name="rows_flipped_and_back", expect=ANY, mix=partial(nn.Linear, 5, 5)
)


@case(ANY)
def rows_sorted_and_back():
    """A layer applied to rows in an order the data gives."""

    def rule(net, x):
        h = net.enter(x).tanh()
        order = h[:, 0].argsort()
        return net.head(net.mix(h[order])[order.argsort()].relu())

    return Net(rule, enter=nn.Linear(6, 5), mix=nn.Linear(5, 5), head=nn.Linear(5, 4)), vectors(9), vectors(4)


@case(ANY)
def rows_repeated():
    """Every example runs three times, noisy views averaged at the end: owner is r mod n."""

    def rule(net, x):
        views = torch.cat([x, x * 0.5, x.cos()])
        return net.head(net.enter(views).tanh().view(3, len(x), 5).mean(0))

    return Net(rule, enter=nn.Linear(6, 5), head=nn.Linear(5, 4)), vectors(9), vectors(4)


@case(ANY)
def rows_of_different_counts():
    """Rows that are padding are dropped before the layer: examples own different numbers of rows."""

    def rule(net, x):
        keep = x[..., 0] > 0
        h = torch.zeros(*x.shape[:2], 5, dtype=x.dtype, device=x.device)
        h[keep] = net.enter(x[keep]).tanh()
        return net.head(h.sum(1))

    return Net(rule, enter=nn.Linear(6, 5), head=nn.Linear(5, 4)), series(8), series(4)


def contrastive(output, target):
    """Each example against every other of the batch."""
    z = F.normalize(output, dim=1)
    return F.cross_entropy(z @ z.t() / 0.5, target % len(z), reduction="none")


def centred_loss(output, target):
    """Losses compared with the batch's mean."""
    losses = F.cross_entropy(output, target, reduction="none")
    return (losses - losses.mean()) ** 2 + losses


def weighted_by_softmax(output, target):
    """Hard examples count more, and the weights pass gradients."""
    losses = F.cross_entropy(output, target, reduction="none")
    return losses * losses.softmax(0)


def weighted_by_detached_softmax(output, target):
    losses = F.cross_entropy(output, target, reduction="none")
    return losses * losses.detach().softmax(0)


def plain_model():
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)), vectors(9), vectors(9)


case(COUPLED, name="contrastive_loss", loss_fn=contrastive)(plain_model)
case(COUPLED, name="loss_centred_in_the_batch", loss_fn=centred_loss)(plain_model)
case(COUPLED, name="loss_weighted_in_the_batch", loss_fn=weighted_by_softmax)(plain_model)
case(ANY, name="loss_weighted_by_values", loss_fn=weighted_by_detached_softmax)(plain_model)


def balanced(model, batch):
    """Cross-entropy and a load-balancing term of the whole batch, as mixtures of experts have."""
    x, target = batch
    gates = model[0](x).softmax(-1)
    load = (gates.mean(0) ** 2).sum()
    return F.cross_entropy(model(x), target, reduction="none") + 0.1 * load


case(COUPLED, name="load_balancing_loss", losses_fn=balanced)(plain_model)


def permuted_losses(model, batch):
    """The losses come back in another order than the examples went in."""
    x, target = batch
    return F.cross_entropy(model(x), target, reduction="none").flip(0)


case(ANY, name="losses_in_another_order", losses_fn=permuted_losses)(plain_model)


@case(LAYERWISE)
def instance_statistics_by_hand():
    """Statistics of each example alone: nothing is coupled."""

    def rule(net, x):
        h = net.enter(x)
        return net.head(((h - h.mean(1, keepdim=True)) / (h.var(1, keepdim=True) + 1e-2).sqrt()).mean(1))

    return Net(rule, enter=nn.Linear(6, 5), head=nn.Linear(5, 4)), series(8), series(4)
