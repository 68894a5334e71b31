"""The sizes gram_dot is measured on, taken from real layers, with the work each one needs counted on paper."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class GramCase:
    """s_r = sum_k (a_r . a_k + 1)(g_r . g_k) for r train rows, k validation rows, p in-features, q out-features."""

    r: int
    k: int
    p: int
    q: int
    large: bool = False  # meant for a GPU

    @property
    def flops(self) -> int:
        """Two products of r x k, then add the bias, multiply and sum."""
        return 2 * self.r * self.k * (self.p + self.q) + 3 * self.r * self.k

    def bytes(self, dtype: torch.dtype) -> int:
        """Each input read once, the float32 result written once."""
        return (self.r + self.k) * (self.p + self.q) * dtype.itemsize + 4 * self.r

    def make(self, dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """a [r, p], g [r, q], a_val [k, p], g_val [k, q], random, the same at every call."""
        source = torch.Generator().manual_seed(0)
        shapes = ((self.r, self.p), (self.r, self.q), (self.k, self.p), (self.k, self.q))
        return tuple(torch.randn(shape, generator=source).to(device, dtype) for shape in shapes)


GRAM_CASES = {
    # n = 100, m = 10, one row an example
    "mlp 784-1024": GramCase(100, 10, 784, 1024),
    "mlp 1024-1024": GramCase(100, 10, 1024, 1024),
    "mlp 1024-10": GramCase(100, 10, 1024, 10),
    "lenet 400-120": GramCase(100, 10, 400, 120),
    "lenet 120-84": GramCase(100, 10, 120, 84),
    "lenet 84-10": GramCase(100, 10, 84, 10),
    # n = 64, m = 8, 64 positions: the head sees one row an example, qkv sees all positions
    "transformer head": GramCase(64, 8, 128, 2),
    "transformer qkv": GramCase(64 * 64, 8 * 64, 128, 384),
    # WRN-28-10, n = 128, m = 16: the head, and the 1x1 shortcut into the 16 x 16 stage
    "wrn head": GramCase(128, 16, 640, 10, large=True),
    "wrn shortcut": GramCase(128 * 256, 16 * 256, 160, 320, large=True),
    # ViT-S, 197 tokens, n = 64, m = 8
    "vit qkv": GramCase(64 * 197, 8 * 197, 384, 1152, large=True),
    "vit mlp": GramCase(64 * 197, 8 * 197, 384, 1536, large=True),
    # GPT-2 small, 1024 tokens, n = 16, m = 2
    "gpt2 qkv": GramCase(16 * 1024, 2 * 1024, 768, 2304, large=True),
    "gpt2 mlp": GramCase(16 * 1024, 2 * 1024, 768, 3072, large=True),
}
