"""What a case is: one call of an op at the size of a real layer, with the work that it needs counted on paper."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

LARGE = ("wrn", "vit", "gpt2", "64 of 256-256", "n 2^20")


class Draw:
    """Random tensors of one dtype on one device, the same in every run."""

    def __init__(self, dtype: torch.dtype, device: str = "cpu"):
        self.dtype, self.device = dtype, device
        self.source = torch.Generator(device).manual_seed(0)

    def __call__(self, *shape: int) -> Tensor:
        """Standard normal numbers."""
        return torch.randn(shape, generator=self.source, device=self.device).to(self.dtype)

    def weights(self, n: int) -> Tensor:
        """[n] with sum 1, every other one 0: Eq. 8 leaves about half of the examples without weight."""
        w = torch.rand(n, generator=self.source, device=self.device, dtype=wide(self.dtype))
        w[1::2] = 0
        return w / w.sum().clamp(min=1e-9)

    def indices(self, r: int, v: int) -> Tensor:
        """[r] integers from 0 to v - 1."""
        return torch.randint(v, (r,), generator=self.source, device=self.device)


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which sums over that dtype are accumulated."""
    return torch.promote_types(dtype, torch.float32)


@dataclass(frozen=True, kw_only=True)
class Case:
    """Bytes: every input that matters is read once, every result written once. A multiply and an add are two FLOPs."""

    sizes: str  # in the letters of the op's equation
    make: Callable[[Draw], tuple]  # the arguments of the op
    eager: dict[str, Callable]  # the same result as one would write it in torch; the fastest is the one to beat
    flops: int
    elements: int  # of inputs and results in the measured dtype
    results: int  # of results and weights in the dtype of sums: float32 for float32 and narrower ones
    indices: int = 0  # of int64
    terms: int  # of the sums that a result is made of, one inside another: K of fastrw/ops/tolerance.py
    spec: Callable | None = None  # what it computes, where it is no op of fastrw/ops/reference.py
    forms: dict[str, Callable] = field(default_factory=dict)  # and fastrw's forms of it: (*args, backend)

    def bytes(self, dtype: torch.dtype) -> int:
        return self.elements * dtype.itemsize + self.results * wide(dtype).itemsize + 8 * self.indices


def is_large(name: str) -> bool:
    """Is the case of that name meant for a GPU?"""
    return name.startswith(LARGE)


def alive(n: int) -> int:
    """How many of n weights are not 0: only their rows have to be read."""
    return (n + 1) // 2
