"""MixUp: each example blended with another one of the batch, its label with that one's (Zhang et al. 2018)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from fastrw.fsr import checks


class MixUp:
    """x̃_i = λ_i x_i + (1 - λ_i) x_k,  t̃_i = λ_i onehot(y_i) + (1 - λ_i) onehot(y_k),  k = π(i)

    λ_i ~ Beta(a, a), the larger of λ_i and 1 - λ_i being taken: x̃_i is mostly example i, to which its weight belongs.
    It works without FSR too. λ and the permutation π are drawn from torch's own generator of the CPU, like dropout.

    Args:
        num_classes: C.
        alpha: a, above 0.
    """

    def __init__(self, num_classes: int, *, alpha: float = 0.5):
        checks.count("MixUp", "num_classes", num_classes, 2)
        checks.number("MixUp", "alpha", alpha, 0, open_low=True)
        self.num_classes, self.alpha = num_classes, alpha
        self._beta = torch.distributions.Beta(
            torch.tensor(alpha, dtype=torch.float64), torch.tensor(alpha, dtype=torch.float64)
        )

    def __call__(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """x [n, ...] float, y [n] whole numbers -> x̃ [n, ...], t̃ [n, C], dtype and device of x."""
        if not isinstance(x, Tensor) or not x.is_floating_point():
            got = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"fastrw.MixUp: x must be a floating point tensor [n, ...], got {got}")
        y = checks.labels("MixUp", y, self.num_classes)
        if len(x) != len(y):
            raise ValueError(f"fastrw.MixUp: x and y must have one length, got {len(x)} and {len(y)}")
        share = self._beta.sample((len(y),))
        share = torch.maximum(share, 1 - share).to(x.device, x.dtype)
        other = torch.randperm(len(y)).to(x.device)
        t = F.one_hot(y.to(x.device), self.num_classes).to(x.dtype)
        wide = share.reshape(-1, *[1] * (x.ndim - 1))
        return wide * x + (1 - wide) * x[other], share[:, None] * t + (1 - share[:, None]) * t[other]
