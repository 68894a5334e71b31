"""Fused attention, whose backward has no derivative: its tangent written out."""

from __future__ import annotations

import math

import torch

from fastrw.nodes.base import ByInput, NodeType, by_calls, total


def _jvp(mask_name: str):
    """mask_name: the name that the mask is saved under; empty if the kernel has none."""

    def jvp(s, ts: ByInput, backend: str) -> ByInput | None:
        """o = p v, p = softmax(scale q kᵀ + mask): p' = p (s' - Σ p s'), o' = p' v + p v'."""
        if s.dropout_p:
            return None
        q, k, v, mask = s.query, s.key, s.value, getattr(s, mask_name) if mask_name else None
        scale = 1 / math.sqrt(q.shape[-1]) if s.scale is None else s.scale
        heads = q.shape[1] // k.shape[1]
        if heads > 1:  # grouped queries
            k, v = (t.repeat_interleave(heads, 1) for t in (k, v))
            ts = {j: t if j in (0, 3) else t.repeat_interleave(heads, 1) for j, t in ts.items()}
        logits = (q @ k.mT) * scale
        logits = logits if mask is None else logits + mask
        if s.is_causal:
            causal = torch.ones(logits.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
            logits = logits.masked_fill(causal, -torch.inf)
        p = logits.softmax(-1).nan_to_num()
        ds = total(ts[0] @ k.mT if 0 in ts else None, q @ ts[1].mT if 1 in ts else None)
        ds = total(None if ds is None else ds * scale, ts.get(3))
        do = None if ds is None else (p * (ds - (p * ds).sum(-1, keepdim=True))) @ v
        return {0: total(do, p @ ts[2] if 2 in ts else None).to(q.dtype)}

    return jvp


TYPES = {
    f"ScaledDotProduct{kind}Backward0": NodeType(
        f"query key value {mask} is_causal scale dropout_p", by_calls, _jvp(mask)
    )
    for kind, mask in (("FlashAttentionForCpu", "attn_mask"), ("FlashAttention", ""),
                       ("EfficientAttention", "attn_bias"), ("CudnnAttention", "attn_bias"))
}  # fmt: skip
