"""Fused attention, whose backward has no derivative: its tangent written out."""

from __future__ import annotations

import math

import torch

from fastrw.graph.saved import names, saved
from fastrw.nodes.base import NodeType, total


def _tangent(node, ts, backend: str):
    """o = p v, p = softmax(scale q kᵀ + mask): p' = p (s' - Σ p s'), o' = p' v + p v'."""
    if saved(node, "dropout_p") if "dropout_p" in names(type(node)) else 0.0:
        return None
    q, k, v = (saved(node, name) for name in ("query", "key", "value"))
    mask = next((saved(node, name) for name in ("attn_mask", "attn_bias") if name in names(type(node))), None)
    scale = saved(node, "scale")
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    heads = q.shape[1] // k.shape[1]
    if heads > 1:  # grouped queries
        k, v = (t.repeat_interleave(heads, 1) for t in (k, v))
        ts = {j: t if j == 0 else t.repeat_interleave(heads, 1) for j, t in ts.items()}
    s = (q @ k.mT) * scale
    if mask is not None:
        s = s + mask
    if saved(node, "is_causal"):
        s = s.masked_fill(torch.ones(s.shape[-2:], dtype=torch.bool, device=s.device).triu(1), -torch.inf)
    p = s.softmax(-1).nan_to_num()
    ds = total(ts[0] @ k.mT if 0 in ts else None, q @ ts[1].mT if 1 in ts else None)
    dp = None
    if ds is not None:
        ds = ds * scale
        dp = (p * (ds - (p * ds).sum(-1, keepdim=True))) @ v
    dm = ts.get(3)
    if dm is not None:
        dp = total(dp, (p * (dm - (p * dm).sum(-1, keepdim=True))) @ v)
    return {0: total(dp, p @ ts[2] if 2 in ts else None).to(q.dtype)}


TYPES = {
    f"ScaledDotProduct{kind}Backward0": NodeType(None, _tangent)
    for kind in ("FlashAttentionForCpu", "FlashAttention", "EfficientAttention", "CudnnAttention")
}
