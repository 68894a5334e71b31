"""Affine normalizations: per example, the gradients of scale and shift are the sums of g x_hat and of g over the
positions that share them. (InstanceNorm is a BatchNorm of repeated parameters: see `views` for the repetition.)"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

import torch
from torch import Tensor

from fastrw.nodes.base import NodeType, Part, Products, Use, total
from fastrw.nodes.instances import Instances, by_example
from fastrw.nodes.lazy import LazyBatchNormTangent, TangentWithSums, formed
from fastrw.nodes.owned import Owned
from fastrw.ops.call import served

INPUT, WEIGHT, BIAS = 0, 1, 2


def _instances(s, use: Use, x, g, mean, rstd, products: Products, owned: Owned) -> Part:
    """x, g [N, S, C]; mean, rstd [N, S, G]; owned: of the N rows."""
    below, shapes = use.below, use.memo.get("shapes")
    if shapes is None:
        shapes = use.memo["shapes"] = {j: s.shape(j) for j in below}
    (X, B), _ = served("norm_instance", products.backend, x, g, mean, rstd)
    found = ((j, by_example(sums, owned)) for j, sums in ((WEIGHT, X), (BIAS, B)) if j in below)
    return Instances({j: t if t.shape[1:] == shapes[j] else t.view(-1, *shapes[j]) for j, t in found}, owned.n)


def _layer_norm(s, use: Use, g: Tensor, products: Products) -> Part | None:
    if INPUT in use.below or not g.numel():
        return None
    known = use.memo.get("layer")
    if known is None:
        known = use.memo["layer"] = _layers(s.shape(use.below[0]).numel(), use.owned[0], g)
    size, owned = known
    x = s.input
    if owned is None or x.dtype != g.dtype:
        return None
    statistics = (t.reshape(*size[:2], 1) for t in (s.result1, s.result2))
    return _instances(s, use, x.reshape(size), g.reshape(size), *statistics, products, owned)


def _layers(C: int, owned: Owned, g: Tensor) -> tuple[tuple[int, int, int], Owned | None]:
    """The rows of g as [N, rows that share an owner, C], and the owners of the N. All follow from shapes."""
    N, rows, n = g.numel() // C, owned.rows(C), owned.n
    if rows is None:
        return (N, 1, C), None
    if rows.of is not None:
        return (N, 1, C), Owned(n, torch.Size((N,)), 0, rows.of, 0, True)
    if N % rows.each == 0:
        return (N // rows.each, rows.each, C), Owned(n, torch.Size((N // rows.each,)), 0, owned.of, 1, True)
    of = torch.arange(N, device=g.device).div(rows.each, rounding_mode="floor").clamp(max=n)
    return (N, 1, C), Owned(n, torch.Size((N,)), 0, of, 0, True)


def _channels(x: Tensor) -> Tensor:
    """[N, C, ...] as [N, S, C], a view if the layout allows it."""
    return x.flatten(2).mT if x.ndim > 2 else x.unsqueeze(1)


def _per_channel(s, use: Use, x: Tensor, g: Tensor, products: Products, statistics: Iterable[Tensor]) -> Part | None:
    """statistics: mean and rstd, [N or 1, 1, G]."""
    owned = use.owned[0]
    if INPUT in use.below or not owned.leading or x.dtype != g.dtype or x.ndim < 2 or not g.numel():
        return None
    x, g = _channels(x), _channels(g)
    N, S, _ = x.shape
    return _instances(s, use, x, g, *(t.expand(N, S, -1) for t in statistics), products, owned)


def _group_norm(s, use: Use, g: Tensor, products: Products) -> Part | None:
    x = s.input
    return _per_channel(s, use, x, g, products, (t.reshape(x.shape[0], 1, -1) for t in (s.result1, s.result2)))


def _batch_norm(s, use: Use, g: Tensor, products: Products) -> Part | None:
    """With running statistics: batch statistics mix the batch dimension."""
    return None if s.training else _per_channel(s, use, s.input, g, products, (t.view(1, 1, -1) for t in _running(s)))


def _running(s) -> tuple[Tensor, Tensor]:
    """Mean and 1 / sqrt(variance + eps) of the running statistics."""
    return s.running_mean, (s.running_var + s.eps).rsqrt()


def _normalized(x_hat: Tensor, rstd: Tensor, t: Tensor, over) -> Tensor:
    """The tangent of x_hat = (x - mean) rstd, statistics over the dimensions `over`."""
    return (t - t.mean(over, keepdim=True) - x_hat * (x_hat * t).mean(over, keepdim=True)) * rstd


def _layer_norm_jvp(s, ts, backend: str):
    x, mean, rstd, weight = s.input, s.result1, s.result2, s.weight
    lead = next(d for d in range(x.ndim, -1, -1) if prod(x.shape[:d]) == mean.numel())  # statistics are over the rest
    x_hat, t = (x - mean) * rstd, None
    if INPUT in ts:
        t = _normalized(x_hat, rstd, ts[INPUT], tuple(range(lead, x.ndim)))
        t = t if weight is None else t * weight
    found = total(t, x_hat * ts[WEIGHT] if WEIGHT in ts else None, ts.get(BIAS))
    return {0: found.to(s.output.dtype).expand(s.output.shape)}


def _group_norm_jvp(s, ts, backend: str):
    x, weight = s.input, s.weight
    N, C = x.shape[:2]

    def grouped(t: Tensor) -> Tensor:
        return t.reshape(N, s.group, -1)

    def scale(t: Tensor) -> Tensor:
        return t.view(1, C, *[1] * (x.ndim - 2))

    mean, rstd, t = grouped(s.result1), grouped(s.result2), None
    x_hat = (grouped(x) - mean) * rstd
    if INPUT in ts:
        t = _normalized(x_hat, rstd, grouped(ts[INPUT]), (-1,)).view(x.shape)
        t = t if weight is None else t * scale(weight)
    found = total(t, x_hat.view(x.shape) * scale(ts[WEIGHT]) if WEIGHT in ts else None,
                  scale(ts[BIAS]) if BIAS in ts else None)  # fmt: skip
    return {0: found.to(x.dtype).expand(x.shape)}


def _batch_norm_jvp(s, ts, backend: str):
    """Not formed yet: with an addition and a ReLU that may follow, it is one pass."""
    x = s.input
    if x.dtype not in (torch.float32, torch.float64):
        return None
    tx, (tw, tb) = ts.get(INPUT), [formed(ts[j]) if j in ts else None for j in (WEIGHT, BIAS)]
    weight, sums = s.weight, None
    if s.training:
        mean, rstd = s.result1, s.result2
        if isinstance(tx, TangentWithSums):
            tx, sums = tx.tangent, tx.sums
    else:
        mean, rstd = _running(s)
        sums = mean.new_zeros(2, len(mean))
    tx = None if tx is None else formed(tx)
    operands = (x, tx, mean, rstd, weight, tw, tb)
    if any(t is not None and t.dtype != x.dtype for t in operands):
        return None
    return {0: LazyBatchNormTangent(operands, sums, backend)}


TYPES = {
    "NativeLayerNormBackward0": NodeType("input weight result1 result2", _layer_norm, _layer_norm_jvp,
                                         stacked=("input result1 result2", "")),
    "NativeGroupNormBackward0": NodeType("input weight result1 result2 group", _group_norm, _group_norm_jvp,
                                         stacked=("input result1 result2", "")),
    **dict.fromkeys(
        ("NativeBatchNormBackward0", "CudnnBatchNormBackward0"),
        NodeType("input weight result1 result2 running_mean running_var training eps", _batch_norm, _batch_norm_jvp,
                 lazy=True),
    ),
}  # fmt: skip
