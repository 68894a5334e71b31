"""Inputs and outputs: several inputs, mappings, frozen and unused parameters, custom losses, smallest batches."""

from functools import partial
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

from .case import ANY, LAYERWISE, case, forward, model
from .parts import (
    VOCAB,
    conv,
    cross_entropy,
    dense,
    direct_losses,
    drawn,
    embedding,
    images,
    labels,
    learned,
    linear,
    net,
    sentences,
)

numbers_and_tokens = drawn(9, lambda n: (torch.randn(n, 6), torch.randint(0, VOCAB, (n, 3))))
pair_in_a_list = drawn(9, lambda n: [torch.randn(n, 6), torch.randn(n, 3)])
named = drawn(8, lambda n: {"image": torch.randn(n, 3, 6, 6), "numbers": torch.randn(n, 6)})


@forward(LAYERWISE, numbers_and_tokens, left=linear(6, 5), table=embedding(VOCAB, 3), head=linear(8, 4))
def several_inputs(net, x, tokens):
    return net.head(torch.cat([net.left(x).tanh(), net.table(tokens).sum(1)], 1))


@forward(LAYERWISE, pair_in_a_list, enter=linear(6, 5), w=learned(3, 5), head=linear(5, 4))
def inputs_as_a_list(net, x, y):
    return net.head(net.enter(x).tanh() * (y @ net.w))


def named_with_labels(n=8):
    inputs, target = named(n)
    return {**inputs, "labels": target}


def two_branches(wrap, net, *, image, numbers):
    branches = [net.conv(image).relu().mean((2, 3)), net.left(numbers).tanh()]
    return wrap(logits=net.head(torch.cat(branches, 1)), other=numbers)


for name, data, wrap in (
    ("mapping_inputs", named, lambda logits, other: logits),
    ("mapping_with_labels", named_with_labels, lambda logits, other: logits),
    ("mapping_outputs", named, dict),
    ("attribute_outputs", named, SimpleNamespace),
):
    parts = {"conv": conv(3, 4, 3), "left": linear(6, 5), "head": linear(9, 4)}
    case(name, LAYERWISE, net(partial(two_branches, wrap), **parts), data)


def losses_of_both(output, target):
    logits, value = output
    label, goal = target
    return cross_entropy(logits, label) + F.mse_loss(value.squeeze(1), goal, reduction="none")


case(
    "several_outputs",
    LAYERWISE,
    net(lambda net, x: (net.a(net.enter(x).tanh()), net.b(x)), enter=linear(6, 5), a=linear(5, 4), b=linear(6, 1)),
    lambda n=9: (torch.randn(n, 6), (labels(n), torch.randn(n))),
    loss_fn=losses_of_both,
)


three_layers = partial(dense, 6, 5, 5, 4)


def frozen(layer: int) -> nn.Sequential:
    model = three_layers()
    model[layer].requires_grad_(False)
    return model


case("frozen_first_layer", LAYERWISE, partial(frozen, 0))
case("frozen_middle_layer", LAYERWISE, partial(frozen, 2))


@model(LAYERWISE)
def only_a_bias_trains():
    model = three_layers().requires_grad_(False)
    model[2].bias.requires_grad_(True)
    return model


@forward(LAYERWISE, body=three_layers, aside=linear(6, 5), unused=linear(3, 3))
def parameters_without_gradient(net, x):
    """A layer that never runs, and one that runs but does not reach the losses."""
    net.aside(x)
    return net.body(x)


@forward(LAYERWISE, enter=linear(6, 5), extra=linear(5, 5), head=linear(5, 4))
def used_in_training_only(net, x):
    """A branch for some batches only: the two batches reach different parameters."""
    h = net.enter(x).tanh()
    return net.head(net.extra(h) if len(x) > 5 else h)


SELECTIONS = {"last": "last", "pattern": ["2.*"], "name": ["0.weight", "4.bias"], "biases": ["*.bias"]}
for name, params in SELECTIONS.items():
    case(f"params_{name}", LAYERWISE, three_layers, params=params)


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


def mean_over_valid(output, target):
    """Zero for an example with nothing left to predict."""
    losses = F.cross_entropy(output.transpose(1, 2), target, ignore_index=0, reduction="none")
    return losses.sum(1) / (target != 0).sum(1).clamp(min=1)


batches = {"train": (8, 3, [2]), "val": (4, 5, [])}
case("ignored_by_own_loss", LAYERWISE, language_model, zeros_ignored, **batches, loss_fn=mean_over_valid)


def sum_over_count(output, target):
    """Divides by the number of positions in the whole batch: a number from the labels alone, no coupling."""
    losses = F.cross_entropy(output.transpose(1, 2), target, reduction="none")
    return losses.sum(1) / (target >= 0).sum() * len(target)


case("averaged_over_all_positions", LAYERWISE, language_model, some_ignored, loss_fn=sum_over_count)


def decayed(model, batch):
    """Every loss carries the weight decay: the losses use the parameters outside the model."""
    return direct_losses(model, batch) + 0.01 * sum(p.pow(2).sum() for p in model.parameters())


def two_passes(model, batch):
    """Consistency between two views: the model runs twice."""
    x, target = batch
    first, second = model(x), model(x + 0.1)
    return cross_entropy(first, target) + F.mse_loss(first, second, reduction="none").mean(1)


case("weight_decay_in_the_losses", ANY, three_layers, losses_fn=decayed)
case("model_run_twice", LAYERWISE, three_layers, losses_fn=two_passes)


def regression(output, target):
    return F.huber_loss(output.squeeze(1), target, reduction="none")


def connectionist(output, target):
    """Connectionist temporal classification: output [n, length, classes]."""
    n, length = output.shape[:2]
    rows = output.log_softmax(-1).transpose(0, 1)
    return F.ctc_loss(rows, target, torch.full((n,), length), torch.full((n,), target.shape[1]), reduction="none")


case(
    "regression_loss",
    LAYERWISE,
    partial(dense, 6, 5, 1),
    lambda n=9: (torch.randn(n, 6), torch.randn(n)),
    loss_fn=regression,
)
case(
    "binary_loss",
    LAYERWISE,
    lambda: dense(6, 5, 1).append(nn.Flatten(0)),
    lambda n=9: (torch.randn(n, 6), labels(n, 2).float()),
    loss_fn=partial(F.binary_cross_entropy_with_logits, reduction="none"),
)
case(
    "ctc_loss",
    LAYERWISE,
    partial(dense, 6, 5, 5),
    lambda n=8: (torch.randn(n, 7, 6), torch.randint(1, 5, (n, 2))),
    loss_fn=connectionist,
)


SIZES = {"n_is_1": (1, 4), "m_is_1": (9, 1), "n_and_m_are_1": (1, 1), "m_is_n": (6, 6), "m_above_n": (3, 11)}
for name, (n, m) in SIZES.items():
    case(f"linear_{name}", LAYERWISE, three_layers, train=(n,), val=(m,))

one_conv = lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4))  # noqa: E731
case("conv_n_is_1", LAYERWISE, one_conv, images, train=(1,), val=(3,))
case("one_feature", LAYERWISE, partial(dense, 1, 1, 2), lambda n=9: (torch.randn(n, 1), labels(n, 2)))
