"""A number on a GPU that Python reads later: it waits for what the number is computed from, and for nothing that was
launched afterwards, so that the GPU does not run dry meanwhile."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def every(flags: Sequence[Tensor]) -> Tensor | None:
    """Are all of these 0-d flags true? None where there are none."""
    return torch.stack([*flags]).all() if flags else None


class Later:
    """The value of a 0-d tensor. It is under way to the host from now on; `value` waits until it is there."""

    def __init__(self, number: Tensor):
        self._number, self._arrived = number, None
        # a graph that is being captured computes nothing: there is no value, and asking for it raises
        if number.is_cuda and not torch.cuda.is_current_stream_capturing():
            self._number = number.to("cpu", non_blocking=True)  # into pinned memory
            self._arrived = torch.cuda.Event()
            self._arrived.record(torch.cuda.current_stream(number.device))

    def value(self) -> float:
        if self._arrived is not None:
            self._arrived.synchronize()
            self._arrived = None
        found: float = self._number.tolist()
        return found


class AllFinite:
    """Are all numbers of a tensor finite? (Where only their sum is not, it says no.)"""

    def __init__(self, numbers: Tensor):
        self._sum = Later(numbers.detach().sum())

    def __bool__(self) -> bool:
        return math.isfinite(self._sum.value())
