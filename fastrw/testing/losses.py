"""Custom losses: of each example alone, and coupled across the batch; losses_fn as well as loss_fn."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from .batches import VOCAB, drawn, labelled, labels, sentences, tokens
from .case import ANY, COUPLED, case, named
from .parts import cross_entropy, dense, direct_losses, embedding, linear, net, sequence, three_layers, two_layers


def loss(name: str, f: Callable, make: Callable, *data: Callable, kind: str = "loss_fn", **options) -> None:
    """A case by its loss_fn(output, target) -> [n] or, if that is the kind, its losses_fn(model, batch) -> [n]."""
    case(name, make, *data, **{kind: f}, **options)


one_logit = sequence(linear(6, 5), nn.Tanh, linear(5, 1), partial(nn.Flatten, 0))
both_heads = net(
    lambda net, x: (net.a(net.enter(x).tanh()), net.b(x)), enter=linear(6, 5), a=linear(5, 4), b=linear(6, 1)
)
loss("regression_loss", lambda output, target: F.huber_loss(output.squeeze(1), target, reduction="none"),
     partial(dense, 6, 5, 1), labelled(9, 6, target=torch.randn))  # fmt: skip
loss("binary_loss", partial(F.binary_cross_entropy_with_logits, reduction="none"),
     one_logit, labelled(9, 6, target=lambda n: labels(n, 2).float()))  # fmt: skip


@named(loss, partial(dense, 6, 5, 5), labelled(8, 7, 6, target=lambda n: torch.randint(1, 5, (n, 2))))
def ctc_loss(output, target):
    """Connectionist temporal classification: output [n, length, classes]."""
    n, length = output.shape[:2]
    rows = output.log_softmax(-1).transpose(0, 1)
    return F.ctc_loss(rows, target, torch.full((n,), length), torch.full((n,), target.shape[1]), reduction="none")


@named(loss, both_heads, labelled(9, 6, target=lambda n: (labels(n), torch.randn(n))))
def several_outputs(output, target):
    logits, value = output
    label, goal = target
    return cross_entropy(logits, label) + F.mse_loss(value.squeeze(1), goal, reduction="none")


language_model = sequence(embedding(VOCAB, 6), linear(6, 6), nn.Tanh, linear(6, VOCAB))  # -> [n, length, VOCAB]
some_ignored = drawn(8, tokens, lambda n: tokens(n).masked_fill(torch.rand(n, 5) < 0.3, -100))
# The default loss on [n, length, classes]: labels of -100 are left out of the mean over an example.
case("ignored_positions", language_model, some_ignored)
# Divides by the number of positions in the whole batch: a number from the labels alone, no coupling.
loss("averaged_over_all_positions", lambda output, target:
     cross_entropy(output.transpose(1, 2), target).sum(1) / (target >= 0).sum() * len(target),
     language_model, some_ignored)  # fmt: skip


def zeros_ignored(n, length, empty):
    """Labels are 0, which the loss ignores, from position `length` on and wherever the example is among `empty`."""
    tokens, target = sentences(n)
    target[:, length:], target[empty] = 0, 0
    return tokens, target


@named(loss, language_model, zeros_ignored, train=(8, 3, [2]), val=(4, 5, []))
def ignored_by_own_loss(output, target):
    """Zero for an example with nothing left to predict."""
    losses = F.cross_entropy(output.transpose(1, 2), target, ignore_index=0, reduction="none")
    return losses.sum(1) / (target != 0).sum(1).clamp(min=1)


# The losses use the parameters outside the model.
loss("weight_decay_in_the_losses", lambda model, batch:
     direct_losses(model, batch) + 0.01 * sum(p.pow(2).sum() for p in model.parameters()),
     three_layers, kind="losses_fn", expect=ANY)  # fmt: skip
# Cross-entropy and a load-balancing term over the whole batch, as mixtures of experts have.
loss("load_balancing_loss", lambda model, batch:
     direct_losses(model, batch) + 0.1 * (model[0](batch[0]).softmax(-1).mean(0) ** 2).sum(),
     two_layers, kind="losses_fn", val=(9,), expect=COUPLED)  # fmt: skip


@named(loss, three_layers, kind="losses_fn")
def model_run_twice(model, batch):
    """Consistency between two views."""
    x, target = batch
    first, second = model(x), model(x + 0.1)
    return cross_entropy(first, target) + F.mse_loss(first, second, reduction="none").mean(1)


@named(loss, two_layers, val=(9,), expect=COUPLED)
def contrastive_loss(output, target):
    """Each example against every other of the batch."""
    z = F.normalize(output, dim=1)
    return cross_entropy(z @ z.t() / 0.5, target % len(z))


def reweighed(name: str, change: Callable, expect: frozenset[str], kind: str = "loss_fn") -> None:
    """A case with losses `change(cross-entropies [n]) -> [n]`."""
    loss = cross_entropy if kind == "loss_fn" else direct_losses
    case(name, two_layers, val=(9,), expect=expect, **{kind: lambda *args: change(loss(*args))})


# Losses compared with the mean over the batch.
reweighed("loss_centred_in_the_batch", lambda f: (f - f.mean()) ** 2 + f, COUPLED)
# Hard examples count more, and the weights pass gradients; then they are constants.
reweighed("loss_weighted_in_the_batch", lambda f: f * f.softmax(0), COUPLED)
reweighed("loss_weighted_by_values", lambda f: f * f.detach().softmax(0), ANY)
# The losses come back in another order than the examples went in.
reweighed("losses_in_another_order", lambda f: f.flip(0), ANY, "losses_fn")
