"""From scores to the weights of a batch, as the paper prints it and as its authors' code does."""

import torch
from torch import Tensor


def weights(s: Tensor, alpha: float, normalize: str, variant: str) -> Tensor:
    """ω* = ω₀ + α s with ω₀ = 1/b (Eq. 3), made non-negative, then normalised to sum to 1.

                    "rectify" (label noise)                    "shift" (long tail)
        "paper"     max(ω*, 0) / (Σ + δ)                       (ω* - min ω* + 1/b) / Σ
        "code"      max(ω* - ω₀, 0) / (Σ + 1e-5)               (ω* - min ω* + 1/b) / (Σ + 1e-5)

    Σ is the sum of the numerators; δ is 1 if Σ is 0, else 0. A score that is not finite gets weight 0 and does not
    affect the others.

    Args:
        s: [b] scores -∂L^R/∂ω_i, float32 or float64, any device.
    Returns:
        [b] weights of the same dtype and device.
    Source: Zhang & Pfister 2021, Algorithm 1, Eq. 3, section 5.2.
    """
    gone, start = ~s.isfinite(), 1 / len(s)
    moved = alpha * s.masked_fill(gone, 0)
    if normalize == "rectify":
        w = (moved + (start if variant == "paper" else 0)).clamp(min=0)
    else:
        w = moved - moved.masked_fill(gone, torch.inf).min() + start
    w = w.masked_fill(gone, 0)
    total = w.sum()
    return w / (total + 1e-5 if variant == "code" else total.masked_fill(total <= 0, 1))
