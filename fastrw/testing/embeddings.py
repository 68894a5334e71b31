"""Embeddings: padded, sparse, scaled by frequency, bags; tables and layers used twice."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from .batches import VOCAB, drawn, sentences, words
from .case import ANY, LAYERWISE, case, features, named
from .parts import embedding, headed, linear, net, tie_head


def padded(n, rows, length):
    """Words with the first `rows` sentences cut to this length; token 0 is padding."""
    tokens, target = words(n)
    tokens[:rows, length:] = 0
    return tokens, target


mean_of_rows = headed(lambda net, x: net.table(x).mean(1), table=embedding(VOCAB, 5, 0))
case("embedding_with_padding", mean_of_rows, padded, train=(8, 8, 3), val=(4, 2, 2))


def reader(**options) -> Callable:
    """The mean over positions of tanh of an embedding, with these options, and a linear head."""
    return headed(lambda net, x: net.table(x).tanh().mean(1), table=embedding(VOCAB, 5, **options))


# Its gradient is divided by how often a token is in the batch, so that examples are coupled in the backward alone.
case("embedding_by_frequency", reader(scale_grad_by_freq=True), words, expect=ANY)
case("embedding_sparse", reader(sparse=True), words, expect=ANY)
# Training and validation sentences of different lengths.
case("batches_of_other_lengths", reader(), words, train=(8, 5), val=(4, 9))


def bag(name: str, mode: str, data: Callable = words, expect: frozenset[str] = LAYERWISE) -> None:
    bag = partial(nn.EmbeddingBag, VOCAB, 5, mode=mode)
    features(name, lambda net, *inputs: net.bag(*inputs), data, bag=bag, expect=expect)


def bags_in_one_list(n):
    """Tokens of bags of different sizes in one flat list, the bags' offsets, and the tokens' weights."""
    sizes = torch.randint(1, 5, (n,))
    total = int(sizes.sum())
    return torch.randint(0, VOCAB, (total,)), sizes.cumsum(0) - sizes, torch.rand(total)


bag("embedding_bag_sum", "sum")
bag("embedding_bag_mean", "mean")
bag("embedding_bag_max", "max", expect=ANY)
bag("embedding_bag_with_offsets", "sum", drawn(8, bags_in_one_list))

table, mix, norm = embedding(VOCAB, 6), linear(6, 6), partial(nn.LayerNorm, 6)
mixed = net(
    lambda net, x: F.linear(net.norm(net.mix(net.table(x)).tanh()), net.table.weight), table=table, mix=mix, norm=norm
)
# One table, read at the input and multiplied by at the output.
case("tied_embeddings", mixed, sentences)
untied = net(lambda net, x: net.head(net.table(x).tanh()), table=table, head=linear(6, VOCAB))
# The same parameter under two names.
case("tied_modules", untied, sentences, change=tie_head)


@named(features, words, width=6, table=table, mix=mix, norm=norm)
def layer_used_twice(net, tokens):
    x = net.table(tokens)
    return net.mix(net.norm(net.mix(x).relu())).mean(1)
