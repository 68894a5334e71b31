"""Numbers for the self-tests."""

from itertools import cycle

import torch
from torch import Tensor


class Whole:
    """Draws whole numbers from -2 to 2, another sequence at every call, without a random number generator. Every
    product and sum of them is exact in every dtype, in whatever order."""

    def __init__(self, device: torch.device, dtype: torch.dtype):
        self.device, self.dtype = device, dtype
        self._primes = cycle((3, 7, 11, 13, 17, 19, 23, 5, 29))

    def __call__(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        i = torch.arange(torch.Size(shape).numel(), device=self.device)
        return (i * i * next(self._primes) % 31 % 5 - 2).view(shape).to(dtype or self.dtype)
