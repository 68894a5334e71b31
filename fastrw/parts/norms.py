"""The part of an affine norm: its per-example gradients, sum of g x_hat and of g, in one pass over x and g."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fastrw.ops.function import value
from fastrw.parts.part import Instances, Owned, Part, Products
from fastrw.tape import Use

NAMES = {
    F.layer_norm: ("input", "normalized_shape", "weight", "bias", "eps"),
    F.rms_norm: ("input", "normalized_shape", "weight", "eps"),
    F.group_norm: ("input", "num_groups", "weight", "bias", "eps"),
    F.batch_norm: ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
}


def norm(use: Use, g: Tensor, owned: Owned, products: Products) -> Part | None:
    given = dict(zip(NAMES[use.function], use.call.args, strict=False)) | use.call.kwargs
    x = given["input"].detach()
    if owned.outer != 1 or len(x) != owned.n + owned.m or x.ndim < 2 or x.dtype != g.dtype:
        return None
    if any(id(v) in use.directed and k not in ("weight", "bias") for k, v in given.items()):
        return None
    found = STATISTICS[use.function](use, x, g, given, owned)
    if found is None:
        return None
    x_rows, g_rows, mean, rstd = found
    X, B = value("norm_instance", products.backend, x_rows, g_rows, mean, rstd)
    G = {}
    for name, sums in (("weight", X), ("bias", B)):
        parameter = given.get(name)
        if parameter is not None and id(parameter) in use.directed:
            G[id(parameter)] = sums.view(-1, *parameter.shape)
    return Instances(owned, G)


def _saved(use: Use, *names: str) -> list[Tensor] | None:
    """The statistics that the operation left on its node; None where the backward has freed them."""
    try:
        # detached: what a node saved holds the node
        return [getattr(use.edges[0].node, name).detach() for name in names]
    except (AttributeError, RuntimeError):
        return None


def _layer_norm(use, x, g, given, owned):
    shape = tuple(given["normalized_shape"])
    saved = _saved(use, "_saved_result1", "_saved_result2")
    if saved is None:
        saved = torch.native_layer_norm(x, shape, None, None, given.get("eps", 1e-5))[1:]
    return (*_last(x, g, owned, shape), *(t.reshape(len(x), -1, 1) for t in saved))


def _rms_norm(use, x, g, given, owned):
    shape, eps = tuple(given["normalized_shape"]), given.get("eps")
    rows = x.reshape(len(x), -1, shape.numel() if isinstance(shape, torch.Size) else torch.Size(shape).numel())
    wide = rows if rows.dtype == torch.float64 else rows.float()
    rstd = (wide.square().mean(2, keepdim=True) + (torch.finfo(x.dtype).eps if eps is None else eps)).rsqrt()
    return (*_last(x, g, owned, shape), None, rstd)


def _last(x, g, owned, shape):
    """Channels are the last dimensions."""
    width = torch.Size(shape).numel()
    return x.reshape(len(x), -1, width), g.reshape(len(x), -1, width)


def _channels(x: Tensor) -> Tensor:
    """[n, C, ...] as [n, S, C], in place where the layout allows it."""
    return x.flatten(2).mT if x.ndim > 2 else x.unsqueeze(1)


def _group_norm(use, x, g, given, owned):
    groups = given["num_groups"]
    saved = _saved(use, "_saved_result1", "_saved_result2")
    if saved is None:
        flat = x.reshape(len(x), groups, -1)
        wide = flat if flat.dtype == torch.float64 else flat.float()
        var, mean = torch.var_mean(wide, 2, correction=0)
        saved = mean, (var + given.get("eps", 1e-5)).rsqrt()
    x, g = _channels(x), _channels(g)
    return (x, g, *(t.reshape(len(x), 1, groups).expand(-1, x.shape[1], -1) for t in saved))


def _batch_norm(use, x, g, given, owned):
    if given.get("training"):
        return None
    rstd = (given["running_var"].detach() + given.get("eps", 1e-5)).rsqrt()
    x, g = _channels(x), _channels(g)
    return (x, g, *(t.view(1, 1, -1).expand(len(x), x.shape[1], -1) for t in (given["running_mean"].detach(), rstd)))


STATISTICS = {F.layer_norm: _layer_norm, F.rms_norm: _rms_norm, F.group_norm: _group_norm, F.batch_norm: _batch_norm}
