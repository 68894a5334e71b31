"""From scores to example weights: Ren et al. 2018, Eq. 8-9, and the long-tail rule of Zhang & Pfister 2021."""

import torch
from torch import Tensor

from fastrw.ops import rectify_normalize


def rectify(s: Tensor) -> Tensor:
    """w_i = max(s_i, 0) / (sum_k max(s_k, 0) + delta), with delta = 1 where the sum is 0 and 0 elsewhere.

    A score that is not finite gets weight 0 and does not affect the others.

    Args:
        s: [n] scores, float32 or float64, any device.
    Returns:
        [n] weights of the same dtype and device: they sum to 1, or all are 0.
    Source: Ren et al. 2018, Eq. 8 and Eq. 9.
    """
    return rectify_normalize(s)


def shift(s: Tensor) -> Tensor:
    """w_i = (s_i - min_k s_k + 1/n) / sum_k (s_k - min_k s_k + 1/n): the rule for long tails.

    A score that is not finite gets weight 0 and is excluded from the minimum.

    Args:
        s: [n] scores, float32 or float64, any device.
    Returns:
        [n] weights of the same dtype and device, summing to 1 (all 0 where no score is finite).
    Source: Zhang & Pfister 2021, section 4 (their long-tail experiments).
    """
    gone = ~torch.isfinite(s)
    w = (s - s.masked_fill(gone, torch.inf).min() + 1 / len(s)).masked_fill_(gone, 0)
    total = w.sum()
    return w / total.masked_fill(total <= 0, 1)


NORMALIZERS = {"rectify": rectify, "shift": shift, None: lambda s: s}
