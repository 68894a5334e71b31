"""Affine norms: the sums of g x_hat and of g over what one scale serves are the per-example gradients."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from fastrw.graph.saved import names, saved
from fastrw.graph.walk import shape_of
from fastrw.nodes.base import Instances, NodeType, Part, Products, Use, by_example, total
from fastrw.nodes.owned import Owned
from fastrw.nodes.waiting import Normed, Summed, formed
from fastrw.ops.function import value

INPUT, WEIGHT, BIAS = 0, 1, 2


def _instances(below, x, g, mean, rstd, shape: torch.Size, products: Products, owned: Owned | None) -> Part:
    """x, g [N, S, C], statistics [N, S, G]. owned: of N rows; None: of each example, training first."""
    X, B = value("norm_instance", products.backend, x, g, mean, rstd)
    G = {}
    for j, sums in ((WEIGHT, X), (BIAS, B)):
        if j in below:
            mine, rest = by_example(sums, owned)
            G[j] = mine.view(-1, *shape), None if rest is None else rest.view(shape)
    return Instances(G)


def _shape(node, below) -> torch.Size:
    child, k = node.next_functions[below[0]]
    return shape_of(child, k)


def _layer_norm(node, use: Use, g: Tensor, products: Products) -> Part | None:
    below, owned = use.below, use.owned[0]
    if INPUT in below:
        return None
    shape = _shape(node, below)
    rows, C = owned.rows(shape.numel()), shape.numel()
    x = saved(node, "input")
    if rows is None or x.dtype != g.dtype or not g.numel():
        return None
    mean, rstd = saved(node, "result1"), saved(node, "result2")
    n = owned.n
    if rows.of is None and len(g.reshape(-1, C)) % rows.each == 0:
        N, each = g.numel() // C // rows.each, rows.each
        own = Owned(n, torch.Size((N,)), 0, owned.of, 1, True)
    else:
        N, each = g.numel() // C, 1
        of = (
            rows.of
            if rows.of is not None
            else torch.arange(N, device=g.device).div(rows.each, rounding_mode="floor").clamp(max=n)
        )
        own = Owned(n, torch.Size((N,)), 0, of, 0, True)
    x, g = (t.reshape(N, each, C) for t in (x, g))
    return _instances(below, x, g, *(t.reshape(N, each, 1) for t in (mean, rstd)), shape, products, own)


def _channels(x: Tensor) -> Tensor:
    """[N, C, ...] as [N, S, C], in place where the layout allows it."""
    return x.flatten(2).mT if x.ndim > 2 else x.unsqueeze(1)


def _group_norm(node, use: Use, g: Tensor, products: Products) -> Part | None:
    below, owned = use.below, use.owned[0]
    x = saved(node, "input")
    if INPUT in below or not owned.leading or x.dtype != g.dtype or x.ndim < 2 or not g.numel():
        return None
    statistics = (saved(node, name).reshape(len(x), 1, -1) for name in ("result1", "result2"))
    x, g = _channels(x), _channels(g)
    shape = _shape(node, below)
    return _instances(below, x, g, *(t.expand(-1, x.shape[1], -1) for t in statistics), shape, products, owned)


def _batch_norm(node, use: Use, g: Tensor, products: Products) -> Part | None:
    """With running statistics; with those of the batch it mixes examples."""
    below, owned = use.below, use.owned[0]
    x = saved(node, "input")
    if INPUT in below or saved(node, "training") or not owned.leading or x.dtype != g.dtype or not g.numel():
        return None
    mean, rstd = saved(node, "running_mean"), (saved(node, "running_var") + _eps(node)).rsqrt()
    x, g = _channels(x), _channels(g)
    statistics = (t.view(1, 1, -1).expand(len(x), x.shape[1], -1) for t in (mean, rstd))
    return _instances(below, x, g, *statistics, _shape(node, below), products, owned)


def _eps(node) -> float:
    return saved(node, "eps") if "eps" in names(type(node)) else saved(node, "epsilon")


def _normalized_tangent(x_hat: Tensor, rstd: Tensor, t: Tensor, over) -> Tensor:
    """The tangent of x_hat = (x - mean) rstd, statistics over the dimensions `over`."""
    return (t - t.mean(over, keepdim=True) - x_hat * (x_hat * t).mean(over, keepdim=True)) * rstd


def _layer_norm_tangent(node, ts, backend: str):
    x, mean, rstd, weight = (saved(node, name) for name in ("input", "result1", "result2", "weight"))
    over = tuple(range(-(x.ndim - _statistics(mean, x)), 0))
    x_hat = (x - mean) * rstd
    t = None
    if INPUT in ts:
        t = _normalized_tangent(x_hat, rstd, ts[INPUT], over)
        t = t if weight is None else t * weight
    return {0: total(t, x_hat * ts[WEIGHT] if WEIGHT in ts else None, ts.get(BIAS)).to(node._input_metadata[0].dtype)
            .expand(shape_of(node))}  # fmt: skip


def _statistics(mean: Tensor, x: Tensor) -> int:
    """How many leading dimensions have statistics of their own."""
    lead = x.ndim
    while lead and prod(x.shape[:lead]) != mean.numel():
        lead -= 1
    return lead


def _group_norm_tangent(node, ts, backend: str):
    x, mean, rstd, weight = (saved(node, name) for name in ("input", "result1", "result2", "weight"))
    N, C = x.shape[:2]
    groups = saved(node, "group")
    grouped = lambda t: t.reshape(N, groups, -1)  # noqa: E731
    scale = lambda t: t.view(1, C, *[1] * (x.ndim - 2))  # noqa: E731
    mean, rstd = (t.reshape(N, groups, 1) for t in (mean, rstd))
    x_hat = (grouped(x) - mean) * rstd
    t = None
    if INPUT in ts:
        t = _normalized_tangent(x_hat, rstd, grouped(ts[INPUT]), (-1,)).view(x.shape)
        t = t if weight is None else t * scale(weight)
    parts = (
        t,
        x_hat.view(x.shape) * scale(ts[WEIGHT]) if WEIGHT in ts else None,
        scale(ts[BIAS]) if BIAS in ts else None,
    )
    return {0: total(*parts).to(x.dtype).expand(x.shape)}


def _batch_norm_tangent(node, ts, backend: str):
    """Waits for the addition and the ReLU that may follow: all three are one pass."""
    x = saved(node, "input")
    if x.dtype not in (torch.float32, torch.float64):
        return None
    tx, tw, tb = ts.get(INPUT), *(None if (t := ts.get(j)) is None else formed(t) for j in (WEIGHT, BIAS))
    weight, sums = saved(node, "weight"), None
    if saved(node, "training"):
        mean, rstd = saved(node, "result1"), saved(node, "result2")
        if isinstance(tx, Summed):
            tx, sums = tx.tangent, tx.sums
    else:
        mean, rstd = saved(node, "running_mean"), (saved(node, "running_var") + _eps(node)).rsqrt()
        sums = mean.new_zeros(2, len(mean))
    tx = None if tx is None else formed(tx)
    own = [t for t in (x, tx, mean, rstd, weight, tw, tb) if t is not None]
    if any(t.dtype != x.dtype for t in own):
        return None
    return {0: Normed((x, tx, mean, rstd, weight, tw, tb), sums, backend)}


TYPES = {
    "NativeLayerNormBackward0": NodeType(_layer_norm, _layer_norm_tangent),
    "NativeGroupNormBackward0": NodeType(_group_norm, _group_norm_tangent),
    "NativeBatchNormBackward0": NodeType(_batch_norm, _batch_norm_tangent, waits=True),
    "CudnnBatchNormBackward0": NodeType(_batch_norm, _batch_norm_tangent, waits=True),
}
