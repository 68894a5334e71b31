"""Custom losses: of each example alone, and coupled across the batch; losses_fn as well as loss_fn."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from .case import ANY, COUPLED, LAYERWISE, case
from .parts import VOCAB, cross_entropy, dense, direct_losses, labels, linear, net, sentences, three_layers, two_layers


def loss(expect: frozenset[str], make: Callable, *data: Callable, kind: str = "loss_fn", **batches) -> Callable:
    """Adds a case by its loss_fn(output, target) -> [n] or, if that is the kind, its losses_fn(model, batch) -> [n]."""
    return lambda f: case(f.__name__, expect, make, *data, **{kind: f}, **batches)


both_heads = net(
    lambda net, x: (net.a(net.enter(x).tanh()), net.b(x)), enter=linear(6, 5), a=linear(5, 4), b=linear(6, 1)
)


@loss(LAYERWISE, partial(dense, 6, 5, 1), lambda n=9: (torch.randn(n, 6), torch.randn(n)))
def regression_loss(output, target):
    return F.huber_loss(output.squeeze(1), target, reduction="none")


@loss(LAYERWISE, lambda: dense(6, 5, 1).append(nn.Flatten(0)), lambda n=9: (torch.randn(n, 6), labels(n, 2).float()))
def binary_loss(output, target):
    return F.binary_cross_entropy_with_logits(output, target, reduction="none")


@loss(LAYERWISE, partial(dense, 6, 5, 5), lambda n=8: (torch.randn(n, 7, 6), torch.randint(1, 5, (n, 2))))
def ctc_loss(output, target):
    """Connectionist temporal classification: output [n, length, classes]."""
    n, length = output.shape[:2]
    rows = output.log_softmax(-1).transpose(0, 1)
    return F.ctc_loss(rows, target, torch.full((n,), length), torch.full((n,), target.shape[1]), reduction="none")


@loss(LAYERWISE, both_heads, lambda n=9: (torch.randn(n, 6), (labels(n), torch.randn(n))))
def several_outputs(output, target):
    logits, value = output
    label, goal = target
    return cross_entropy(logits, label) + F.mse_loss(value.squeeze(1), goal, reduction="none")


def language_model() -> nn.Sequential:
    """Tokens [n, length] -> logits [n, length, VOCAB]."""
    return nn.Sequential(nn.Embedding(VOCAB, 6), *dense(6, 6, VOCAB))


def some_ignored(n=8):
    tokens, target = sentences(n)
    return tokens, target.masked_fill(torch.rand(n, 5) < 0.3, -100)


# The default loss on [n, length, classes]: labels of -100 are left out of the mean over an example.
case("ignored_positions", LAYERWISE, language_model, some_ignored)


def zeros_ignored(n, length, empty):
    """Labels are 0, which the loss ignores, from position `length` on and wherever the example is among `empty`."""
    tokens, target = sentences(n)
    target[:, length:], target[empty] = 0, 0
    return tokens, target


@loss(LAYERWISE, language_model, zeros_ignored, train=(8, 3, [2]), val=(4, 5, []))
def ignored_by_own_loss(output, target):
    """Zero for an example with nothing left to predict."""
    losses = F.cross_entropy(output.transpose(1, 2), target, ignore_index=0, reduction="none")
    return losses.sum(1) / (target != 0).sum(1).clamp(min=1)


@loss(LAYERWISE, language_model, some_ignored)
def averaged_over_all_positions(output, target):
    """Divides by the number of positions in the whole batch: a number from the labels alone, no coupling."""
    losses = cross_entropy(output.transpose(1, 2), target)
    return losses.sum(1) / (target >= 0).sum() * len(target)


@loss(ANY, three_layers, kind="losses_fn")
def weight_decay_in_the_losses(model, batch):
    """The losses use the parameters outside the model."""
    return direct_losses(model, batch) + 0.01 * sum(p.pow(2).sum() for p in model.parameters())


@loss(LAYERWISE, three_layers, kind="losses_fn")
def model_run_twice(model, batch):
    """Consistency between two views."""
    x, target = batch
    first, second = model(x), model(x + 0.1)
    return cross_entropy(first, target) + F.mse_loss(first, second, reduction="none").mean(1)


@loss(COUPLED, two_layers, val=(9,))
def contrastive_loss(output, target):
    """Each example against every other of the batch."""
    z = F.normalize(output, dim=1)
    return cross_entropy(z @ z.t() / 0.5, target % len(z))


@loss(COUPLED, two_layers, val=(9,))
def loss_centred_in_the_batch(output, target):
    """Losses compared with the mean over the batch."""
    losses = cross_entropy(output, target)
    return (losses - losses.mean()) ** 2 + losses


@loss(COUPLED, two_layers, val=(9,))
def loss_weighted_in_the_batch(output, target):
    """Hard examples count more, and the weights pass gradients."""
    losses = cross_entropy(output, target)
    return losses * losses.softmax(0)


@loss(ANY, two_layers, val=(9,))
def loss_weighted_by_values(output, target):
    """Hard examples count more, but the weights are constants."""
    losses = cross_entropy(output, target)
    return losses * losses.detach().softmax(0)


@loss(COUPLED, two_layers, kind="losses_fn", val=(9,))
def load_balancing_loss(model, batch):
    """Cross-entropy and a load-balancing term over the whole batch, as mixtures of experts have."""
    gates = model[0](batch[0]).softmax(-1)
    return direct_losses(model, batch) + 0.1 * (gates.mean(0) ** 2).sum()


@loss(ANY, two_layers, kind="losses_fn", val=(9,))
def losses_in_another_order(model, batch):
    """The losses come back in another order than the examples went in."""
    return direct_losses(model, batch).flip(0)
