"""Inputs and outputs: several inputs, mappings, frozen, unused and selected parameters, smallest batches."""

from functools import partial
from types import SimpleNamespace

import torch
from torch import nn

from .case import LAYERWISE, case, forward, model
from .parts import VOCAB, changed, conv, dense, drawn, embedding, images, labels, learned, linear, net, three_layers

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


CHANGES = {
    "frozen_first_layer": lambda model: model[0].requires_grad_(False),
    "frozen_middle_layer": lambda model: model[2].requires_grad_(False),
    "only_a_bias_trains": lambda model: model.requires_grad_(False)[2].bias.requires_grad_(True),
}
for name, change in CHANGES.items():
    case(name, LAYERWISE, changed(three_layers, change))


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

case("one_feature", LAYERWISE, partial(dense, 1, 1, 2), lambda n=9: (torch.randn(n, 1), labels(n, 2)))
SIZES = {"n_is_1": (1, 4), "m_is_1": (9, 1), "n_and_m_are_1": (1, 1), "m_is_n": (6, 6), "m_above_n": (3, 11)}
for name, (n, m) in SIZES.items():
    case(f"linear_{name}", LAYERWISE, three_layers, train=(n,), val=(m,))


@model(LAYERWISE, images, train=(1,), val=(3,))
def conv_n_is_1():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4))
