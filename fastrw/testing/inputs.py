"""Inputs and outputs: several inputs, mappings, frozen, unused and selected parameters, smallest batches."""

from functools import partial
from types import SimpleNamespace

import torch
from torch import nn

from .batches import VOCAB, drawn, images, labelled, labels, tokens
from .case import case, features, named
from .parts import conv, dense, embedding, learned, linear, net, sequence, three_layers

enter = linear(6, 5)
numbers_and_tokens = drawn(9, lambda n: (torch.randn(n, 6), tokens(n, 3)))
pair_in_a_list = drawn(9, lambda n: [torch.randn(n, 6), torch.randn(n, 3)])
features("several_inputs", lambda net, x, tokens: torch.cat([net.left(x).tanh(), net.table(tokens).sum(1)], 1),
         numbers_and_tokens, width=8, left=enter, table=embedding(VOCAB, 3))  # fmt: skip
features("inputs_as_a_list", lambda net, x, y: net.enter(x).tanh() * (y @ net.w),
         pair_in_a_list, enter=enter, w=learned(3, 5))  # fmt: skip

mapping = drawn(8, lambda n: {"image": torch.randn(n, 3, 6, 6), "numbers": torch.randn(n, 6)})


def with_labels(n=8):
    inputs, target = mapping(n)
    return {**inputs, "labels": target}


def two_branches(wrap, net, *, image, numbers):
    branches = [net.conv(image).relu().mean((2, 3)), net.left(numbers).tanh()]
    return wrap(logits=net.head(torch.cat(branches, 1)), other=numbers)


for name, data, wrap in (
    ("mapping_inputs", mapping, lambda logits, other: logits),
    ("mapping_with_labels", with_labels, lambda logits, other: logits),
    ("mapping_outputs", mapping, dict),
    ("attribute_outputs", mapping, SimpleNamespace),
):
    make = net(partial(two_branches, wrap), conv=conv(3, 4, 3), left=enter, head=linear(9, 4))
    case(name, make, data)

CHANGES = {
    "frozen_first_layer": lambda model: model[0].requires_grad_(False),
    "frozen_middle_layer": lambda model: model[2].requires_grad_(False),
    "only_a_bias_trains": lambda model: model.requires_grad_(False)[2].bias.requires_grad_(True),
}
for name, change in CHANGES.items():
    case(name, three_layers, change=change)

# A layer that never runs, and one that runs but does not reach the losses.
idle = net(lambda net, x: (net.aside(x), net.body(x))[1], body=three_layers, aside=enter, unused=linear(3, 3))
case("parameters_without_gradient", idle)


@named(features, enter=enter, extra=linear(5, 5))
def used_in_training_only(net, x):
    """A branch for some batches only: the two batches reach different parameters."""
    h = net.enter(x).tanh()
    return net.extra(h) if len(x) > 5 else h


SELECTIONS = {"last": "last", "pattern": ["2.*"], "name": ["0.weight", "4.bias"], "biases": ["*.bias"]}
for name, params in SELECTIONS.items():
    case(f"params_{name}", three_layers, params=params)

case("one_feature", partial(dense, 1, 1, 2), labelled(9, 1, target=lambda n: labels(n, 2)))
SIZES = {"n_is_1": (1, 4), "m_is_1": (9, 1), "n_and_m_are_1": (1, 1), "m_is_n": (6, 6), "m_above_n": (3, 11)}
for name, (n, m) in SIZES.items():
    case(f"linear_{name}", three_layers, train=(n,), val=(m,))
conv_net = sequence(conv(3, 4, 3), nn.ReLU, nn.Flatten, linear(144, 4))
case("conv_n_is_1", conv_net, images, train=(1,), val=(3,))
