"""Embeddings: padded, sparse, scaled by frequency, bags; tables and layers used twice."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from .case import ANY, LAYERWISE, case, forward
from .parts import VOCAB, changed, embedding, labels, linear, net, sentences, words


def padded(n, rows, length):
    """Words with the first `rows` sentences cut to this length; token 0 is padding."""
    tokens, target = words(n)
    tokens[:rows, length:] = 0
    return tokens, target


mean_of_rows = net(lambda net, x: net.head(net.table(x).mean(1)), table=embedding(VOCAB, 5, 0), head=linear(5, 4))
case("embedding_with_padding", LAYERWISE, mean_of_rows, padded, train=(8, 8, 3), val=(4, 2, 2))


def reader(**options) -> Callable:
    """The mean over positions of tanh of an embedding, with these options, and a linear head."""
    table = embedding(VOCAB, 5, **options)
    return net(lambda net, x: net.head(net.table(x).tanh().mean(1)), table=table, head=linear(5, 4))


# Its gradient is divided by how often a token is in the batch, so that examples are coupled in the backward alone.
case("embedding_by_frequency", ANY, reader(scale_grad_by_freq=True), words)
case("embedding_sparse", ANY, reader(sparse=True), words)
# Training and validation sentences of different lengths.
case("batches_of_other_lengths", LAYERWISE, reader(), words, train=(8, 5), val=(4, 9))


def bag(mode: str) -> Callable:
    bag = partial(nn.EmbeddingBag, VOCAB, 5, mode=mode)
    return net(lambda net, *inputs: net.head(net.bag(*inputs)), bag=bag, head=linear(5, 4))


def bags_in_one_list(n=8):
    """Bags of different sizes in one flat list of tokens, with its offsets and weights."""
    sizes = torch.randint(1, 5, (n,))
    total = int(sizes.sum())
    return (torch.randint(0, VOCAB, (total,)), sizes.cumsum(0) - sizes, torch.rand(total)), labels(n)


case("embedding_bag_sum", LAYERWISE, bag("sum"), words)
case("embedding_bag_mean", LAYERWISE, bag("mean"), words)
case("embedding_bag_max", ANY, bag("max"), words)
case("embedding_bag_with_offsets", LAYERWISE, bag("sum"), bags_in_one_list)


@forward(LAYERWISE, sentences, table=embedding(VOCAB, 6), mix=linear(6, 6), norm=partial(nn.LayerNorm, 6))
def tied_embeddings(net, tokens):
    """One table, read at the input and multiplied by at the output."""
    return F.linear(net.norm(net.mix(net.table(tokens)).tanh()), net.table.weight)


untied = net(lambda net, x: net.head(net.table(x).tanh()), table=embedding(VOCAB, 6), head=linear(6, VOCAB))
# The same parameter under two names.
case("tied_modules", LAYERWISE, changed(untied, lambda net: setattr(net.head, "weight", net.table.weight)), sentences)


@forward(
    LAYERWISE, words, table=embedding(VOCAB, 6), mix=linear(6, 6), norm=partial(nn.LayerNorm, 6), head=linear(6, 4)
)
def layer_used_twice(net, tokens):
    x = net.table(tokens)
    return net.head(net.mix(net.norm(net.mix(x).relu())).mean(1))
