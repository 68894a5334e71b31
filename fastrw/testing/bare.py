"""Parameters used without a module: matmul, einsum, scale, gather, a learned token, distances; and small modules."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from .batches import VOCAB, drawn, series, words
from .case import ANY, LAYERWISE, case, features, named
from .parts import Net, learned, linear, param, sequence


def hidden(name: str, op: Callable, *shape: int, expect: frozenset[str] = LAYERWISE) -> None:
    """A case with `op(x [n, 5], w) -> [n, ...]`, w a parameter of this shape, between two linear layers."""

    def rule(net, x):
        return net.head(op(net.enter(x).tanh(), net.w).flatten(1))

    def make():
        enter, w = nn.Linear(6, 5), param(*shape)
        width = op(torch.randn(2, 5), w).flatten(1).shape[1]
        return Net(rule, enter=enter, w=w, head=nn.Linear(width, 4))

    case(name, make, expect=expect)


hidden("bare_matmul", lambda x, w: x @ w, 5, 7)
hidden("bare_matmul_of_a_transpose", lambda x, w: x.matmul(w.t()), 7, 5)
hidden("bare_matmul_from_the_left", lambda x, w: (w @ x.t()).t(), 7, 5)
hidden("bare_matrix_vector", lambda x, w: (x @ w)[:, None], 5)
hidden("bare_mm", lambda x, w: torch.mm(x, w), 5, 7)
hidden("bare_addmm_of_slices", lambda x, w: torch.addmm(w[0], x, w[1:]), 6, 7)
hidden("bare_einsum", lambda x, w: torch.einsum("np,pq->nq", x, w), 5, 7)
hidden("bare_einsum_twice_in_x", lambda x, w: torch.einsum("np,pqs,ns->nq", x, w, x), 5, 4, 5, expect=ANY)
hidden("bare_tensordot", lambda x, w: torch.tensordot(x, w, 1), 5, 3, 2, expect=ANY)
hidden("bare_scale", lambda x, w: x * w, 5)
hidden("bare_scale_in_place", lambda x, w: x.cos().mul_(w), 5)
hidden("bare_scalar", lambda x, w: x * w, 1)
hidden("bare_scale_and_its_mean", lambda x, w: w * x + w.mean(), 5)
hidden("bare_shift", lambda x, w: x + w, 5)
hidden("bare_shift_broadcast", lambda x, w: x - w, 1, 5)
hidden("bare_temperature", lambda x, w: x / w.exp(), 5)
hidden("bare_exponent", lambda x, w: x.sigmoid() ** F.softplus(w), 5, expect=ANY)
hidden("bare_lerp", lambda x, w: torch.lerp(x, x.sin(), w.sigmoid()), 5, expect=ANY)
hidden("bare_addcmul", lambda x, w: torch.addcmul(x, x, w), 5)
hidden("bare_maximum", lambda x, w: torch.maximum(x, w), 5)
hidden("bare_where", lambda x, w: torch.where(x > 0, x, w), 5)
hidden("bare_cat_of_expand", lambda x, w: torch.cat([x, w.expand(len(x), -1)], 1), 1, 3)
hidden("bare_stack_of_expand", lambda x, w: torch.stack([x, w.expand_as(x)], 1), 5)
hidden("bare_cat_of_repeat", lambda x, w: torch.cat([x, w.repeat(len(x), 1)], 1), 1, 3)
hidden("bare_distances", lambda x, w: torch.cdist(x, w), 3, 5, expect=ANY)
hidden("bare_cosine", lambda x, w: F.cosine_similarity(x[:, None], w, dim=-1), 3, 5, expect=ANY)
hidden("bare_prototypes", lambda x, w: F.normalize(x, dim=1) @ F.normalize(w, dim=0), 5, 3, expect=ANY)
hidden("bare_bmm_of_expand", lambda x, w: torch.bmm(x[:, None], w.expand(len(x), -1, -1)), 5, 3)
hidden("bare_baddbmm", lambda x, w: torch.baddbmm(w[:1], x[:, None], w.expand(len(x), -1, -1)), 5, 3, expect=ANY)
hidden("bare_outer", lambda x, w: torch.outer(x[:, 0], w), 5)
hidden("bare_fft", lambda x, w: torch.fft.irfft(torch.fft.rfft(x) * torch.fft.rfft(w), 5), 5, expect=ANY)
hidden("prelu_one_parameter", lambda x, w: F.prelu(x, w), 1)
hidden("prelu_per_channel", lambda x, w: F.prelu(x, w), 5)
hidden("bare_conv1d", lambda x, w: F.conv1d(x[:, None], w), 2, 1, 3)
hidden("bare_unfold", lambda x, w: F.pad(x, (1, 1)).unfold(1, 3, 1) @ w, 3, 2)
hidden("bare_logsumexp", lambda x, w: (x[:, :, None] * w).logsumexp(1), 5, 3)
hidden("rows_reversed_and_back", lambda x, w: x.flip(0).flip(0) @ w, 5, 3, expect=ANY)
hidden("rows_feature_major", lambda x, w: (x.t().reshape(-1, 1) * w).view(5, len(x), 3).transpose(0, 1), 3, expect=ANY)


def pick(name: str, op: Callable) -> None:
    """A case with rows of a table [VOCAB, 5] picked by tokens [n, length], not by F.embedding: [n, length, 5]."""
    features(name, lambda net, x: op(net.table, x).tanh().mean(1), words, table=learned(VOCAB, 5))


pick("bare_gather", lambda table, x: table[x])
pick("bare_index_select", lambda table, x: table.index_select(0, x.flatten()).view(*x.shape, -1))
pick("bare_take_along_dim", lambda table, x: table.expand(len(x), -1, -1).gather(1, x[..., None].expand(-1, -1, 5)))
pick("bare_one_hot", lambda table, x: F.one_hot(x, VOCAB).to(table.dtype) @ table)

masked = drawn(8, lambda n: (torch.randn(n, 5, 6), torch.rand(n, 5) < 0.4))
pairs = drawn(9, lambda n: (torch.randn(n, 6), torch.randn(n, 3)))
enter = linear(6, 5)
# A learned token put where the batch says so.
features("mask_token", lambda net, x, absent: torch.where(absent[..., None], net.token, net.enter(x)).tanh().mean(1),
         masked, enter=enter, token=learned(5))  # fmt: skip
features("bilinear", lambda net, x, y: net.pair(net.enter(x).tanh(), y).tanh(),
         pairs, width=4, enter=enter, pair=partial(nn.Bilinear, 5, 3, 4))  # fmt: skip
# Attention pooling: the queries are a parameter, the keys come from the batch.
features("learned_queries",
         lambda net, x: F.scaled_dot_product_attention(net.queries.expand(len(x), -1, -1), net.k(x), x).flatten(1),
         series, width=12, queries=learned(1, 2, 6), k=linear(6, 6))  # fmt: skip


@named(features, series, width=6, bias=learned(9))
def relative_position_bias(net, x):
    """A parameter added to attention scores, gathered first by positions alone."""
    steps = torch.arange(x.shape[1], device=x.device)
    bias = net.bias[steps[:, None] - steps[None, :] + 4]
    return ((x @ x.transpose(1, 2) + bias).softmax(-1) @ x).mean(1)


@named(features, series, enter=enter, scale=learned(5))
def rms_norm_by_hand(net, x):
    z = net.enter(x)
    return (z * torch.rsqrt(z.pow(2).mean(-1, keepdim=True) + 1e-6) * net.scale).mean(1)


def norm(name: str, layer: type[nn.Module], *args, **options) -> None:
    """A case with this layer on [n, 5, 5], after a linear layer with tanh."""
    norm = partial(layer, *args, **options)
    case(name, sequence(linear(6, 5), nn.Tanh, norm, nn.Flatten, linear(25, 4)), series)


norm("rms_norm", nn.RMSNorm, 5)
norm("rms_norm_two_dims", nn.RMSNorm, (5, 5))
norm("layer_norm", nn.LayerNorm, 5)
norm("layer_norm_no_bias", nn.LayerNorm, 5, bias=False)
norm("layer_norm_two_dims", nn.LayerNorm, (5, 5))
norm("group_norm_on_sequences", nn.GroupNorm, 1, 5)
