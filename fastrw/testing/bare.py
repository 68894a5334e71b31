"""Parameters used without a module: matmul, einsum, scale, gather, a learned token, distances; and small modules."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from .case import ANY, LAYERWISE, Net, case, labels, param, series, vectors, words


def hidden(op, *shape, expect=LAYERWISE, name):
    """A case whose bare parameter w of this shape meets x [n, 5] by `op(x, w) -> [n, ...]`, between two layers."""

    def rule(net, x):
        return net.head(op(net.enter(x).tanh(), net.w).flatten(1))

    def build():
        enter, w = nn.Linear(6, 5), param(*shape)
        width = op(torch.randn(2, 5), w).flatten(1).shape[1]
        return Net(rule, enter=enter, w=w, head=nn.Linear(width, 4)), vectors(9), vectors(4)

    case(expect, name=name)(build)


hidden(lambda x, w: x @ w, 5, 7, name="bare_matmul")
hidden(lambda x, w: x.matmul(w.t()), 7, 5, name="bare_matmul_of_a_transpose")
hidden(lambda x, w: (w @ x.t()).t(), 7, 5, name="bare_matmul_from_the_left")
hidden(lambda x, w: (x @ w)[:, None], 5, name="bare_matrix_vector")
hidden(lambda x, w: torch.mm(x, w), 5, 7, name="bare_mm")
hidden(lambda x, w: torch.addmm(w[0], x, w[1:]), 6, 7, name="bare_addmm_of_slices")
hidden(lambda x, w: torch.einsum("np,pq->nq", x, w), 5, 7, name="bare_einsum")
hidden(lambda x, w: torch.einsum("np,pqs,ns->nq", x, w, x), 5, 4, 5, name="bare_einsum_twice_in_x", expect=ANY)
hidden(lambda x, w: torch.tensordot(x, w, 1), 5, 3, 2, name="bare_tensordot", expect=ANY)
hidden(lambda x, w: x * w, 5, name="bare_scale")
hidden(lambda x, w: x.cos().mul_(w), 5, name="bare_scale_in_place")
hidden(lambda x, w: x * w, 1, name="bare_scalar")
hidden(lambda x, w: w * x + w.mean(), 5, name="bare_scale_and_its_mean")
hidden(lambda x, w: x + w, 5, name="bare_shift")
hidden(lambda x, w: x - w, 1, 5, name="bare_shift_broadcast")
hidden(lambda x, w: x / w.exp(), 5, name="bare_temperature")
hidden(lambda x, w: x.sigmoid() ** F.softplus(w), 5, name="bare_exponent", expect=ANY)
hidden(lambda x, w: torch.lerp(x, x.sin(), w.sigmoid()), 5, name="bare_lerp", expect=ANY)
hidden(lambda x, w: torch.addcmul(x, x, w), 5, name="bare_addcmul")
hidden(lambda x, w: torch.maximum(x, w), 5, name="bare_maximum")
hidden(lambda x, w: torch.where(x > 0, x, w), 5, name="bare_where")
hidden(lambda x, w: torch.cat([x, w.expand(len(x), -1)], 1), 1, 3, name="bare_cat_of_expand")
hidden(lambda x, w: torch.stack([x, w.expand_as(x)], 1), 5, name="bare_stack_of_expand")
hidden(lambda x, w: torch.cat([x, w.repeat(len(x), 1)], 1), 1, 3, name="bare_cat_of_repeat")
hidden(lambda x, w: torch.cdist(x, w), 3, 5, name="bare_distances", expect=ANY)
hidden(lambda x, w: F.cosine_similarity(x[:, None], w, dim=-1), 3, 5, name="bare_cosine", expect=ANY)
hidden(lambda x, w: F.normalize(x, dim=1) @ F.normalize(w, dim=0), 5, 3, name="bare_prototypes", expect=ANY)
hidden(lambda x, w: torch.bmm(x[:, None], w.expand(len(x), -1, -1)), 5, 3, name="bare_bmm_of_expand")
hidden(lambda x, w: torch.baddbmm(w[:1], x[:, None], w.expand(len(x), -1, -1)), 5, 3, name="bare_baddbmm", expect=ANY)
hidden(lambda x, w: torch.outer(x[:, 0], w), 5, name="bare_outer")
hidden(
    lambda x, w: torch.fft.irfft(torch.fft.rfft(x) * torch.fft.rfft(w), 5),
    5,
    name="bare_fft",
    expect=ANY,
)
hidden(lambda x, w: F.prelu(x, w), 1, name="prelu_one_parameter")
hidden(lambda x, w: F.prelu(x, w), 5, name="prelu_per_channel")
hidden(lambda x, w: F.conv1d(x[:, None], w), 2, 1, 3, name="bare_conv1d")
hidden(lambda x, w: F.pad(x, (1, 1)).unfold(1, 3, 1) @ w, 3, 2, name="bare_unfold")
hidden(lambda x, w: (x[:, :, None] * w).logsumexp(1), 5, 3, name="bare_logsumexp")
hidden(lambda x, w: x.flip(0).flip(0) @ w, 5, 3, name="rows_reversed_and_back", expect=ANY)
hidden(
    lambda x, w: (x.t().reshape(-1, 1) * w).view(5, len(x), 3).transpose(0, 1), 3, name="rows_feature_major", expect=ANY
)


@case(LAYERWISE)
def bare_gather():
    """Rows of a parameter picked by the batch with plain indexing, not by F.embedding."""
    return (
        Net(lambda net, x: net.head(net.table[x].tanh().mean(1)), table=param(11, 5), head=nn.Linear(5, 4)),
        words(8),
        words(4),
    )


@case(LAYERWISE)
def bare_index_select():
    def rule(net, x):
        rows = net.table.index_select(0, x.flatten()).view(*x.shape, -1)
        return net.head(rows.tanh().mean(1))

    return Net(rule, table=param(11, 5), head=nn.Linear(5, 4)), words(8), words(4)


@case(LAYERWISE)
def bare_take_along_dim():
    def rule(net, x):
        picked = net.table.expand(len(x), -1, -1).gather(1, x[..., None].expand(-1, -1, 5))
        return net.head(picked.tanh().mean(1))

    return Net(rule, table=param(11, 5), head=nn.Linear(5, 4)), words(8), words(4)


@case(LAYERWISE)
def bare_one_hot():
    def rule(net, x):
        return net.head((F.one_hot(x, 11).to(net.table.dtype) @ net.table).tanh().mean(1))

    return Net(rule, table=param(11, 5), head=nn.Linear(5, 4)), words(8), words(4)


@case(LAYERWISE)
def mask_token():
    """A learned token put where the batch says so."""

    def rule(net, x, hidden):
        return net.head(torch.where(hidden[..., None], net.token, net.enter(x)).tanh().mean(1))

    def batch(n):
        return (torch.randn(n, 5, 6), torch.rand(n, 5) < 0.4), labels(n)

    return Net(rule, enter=nn.Linear(6, 5), token=param(5), head=nn.Linear(5, 4)), batch(8), batch(4)


@case(LAYERWISE)
def relative_position_bias():
    """A parameter added to attention scores, gathered first by positions alone."""

    def rule(net, x):
        steps = torch.arange(x.shape[1], device=x.device)
        bias = net.bias[steps[:, None] - steps[None, :] + 4]
        return net.head(((x @ x.transpose(1, 2) + bias).softmax(-1) @ x).mean(1))

    return Net(rule, bias=param(9), head=nn.Linear(6, 4)), series(8), series(4)


@case(LAYERWISE)
def learned_queries():
    """Attention pooling: the queries are a parameter, the keys the batch."""

    def rule(net, x):
        q = net.queries.expand(len(x), -1, -1)
        return net.head(F.scaled_dot_product_attention(q, net.k(x), x).flatten(1))

    return Net(rule, queries=param(1, 2, 6), k=nn.Linear(6, 6), head=nn.Linear(12, 4)), series(8), series(4)


@case(LAYERWISE)
def bilinear():
    def rule(net, x, y):
        return net.head(net.pair(net.enter(x).tanh(), y).tanh())

    def batch(n):
        return (torch.randn(n, 6), torch.randn(n, 3)), labels(n)

    return Net(rule, enter=nn.Linear(6, 5), pair=nn.Bilinear(5, 3, 4), head=nn.Linear(4, 4)), batch(9), batch(4)


NORMS = {
    "rms_norm": partial(nn.RMSNorm, 5),
    "rms_norm_two_dims": partial(nn.RMSNorm, (5, 5)),
    "layer_norm": partial(nn.LayerNorm, 5),
    "layer_norm_no_bias": partial(nn.LayerNorm, 5, bias=False),
    "layer_norm_two_dims": partial(nn.LayerNorm, (5, 5)),
    "group_norm_on_sequences": partial(nn.GroupNorm, 1, 5),
}


def norm_net(norm):
    """x [n, 5, 6] -> linear -> [n, 5, 5] -> the norm -> head."""
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), norm(), nn.Flatten(), nn.Linear(25, 4)), series(8), series(4)


for label, norm in NORMS.items():
    case(LAYERWISE, name=label)(partial(norm_net, norm))


@case(LAYERWISE)
def rms_norm_by_hand():
    def rule(net, x):
        z = net.enter(x)
        return net.head((z * torch.rsqrt(z.pow(2).mean(-1, keepdim=True) + 1e-6) * net.scale).mean(1))

    return Net(rule, enter=nn.Linear(6, 5), scale=param(5), head=nn.Linear(5, 4)), series(8), series(4)
