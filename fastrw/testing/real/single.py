"""Models that compute in float32 whatever they are given."""

from __future__ import annotations

from torch import Tensor, nn


class Single(nn.Module):
    """Its parameters stay in float32, as its code expects."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def to(self, device, dtype):
        return super().to(device)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x.float())
