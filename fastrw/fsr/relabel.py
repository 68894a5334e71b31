"""Momentum re-labelling: an average of a model's own predictions as second labels (Zhang & Pfister 2021, Eq. 7)."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fastrw.fsr import checks


class Relabel:
    """ŷ ← β ŷ + (1 - β) f(x; Θ), and the second loss p · mean_i L(softmax(ŷ_i / T), f(x_i))          (Eq. 7)

    It works without FSR too; the loss of a step is taken against what earlier steps predicted, so `loss` comes first:

        logits = model(x)
        total = F.cross_entropy(logits, y) + relabel.loss(index, logits)
        relabel.update(index, logits)

    An example that was not seen before has no ŷ and adds no loss (the mean is still over the whole batch).

    Args:
        dataset_size, num_classes: N and C. N · C numbers are kept.
        beta: β in [0, 1). p: the loss's factor. temperature: T, above 0.
        dtype, device: of ŷ.
    """

    def __init__(self, dataset_size: int, num_classes: int, *, beta: float = 0.1, p: float = 2.0,
                 temperature: float = 1.0, dtype: torch.dtype = torch.float32, device: Any = "cpu"):  # fmt: skip
        checks.count("Relabel", "dataset_size", dataset_size)
        checks.count("Relabel", "num_classes", num_classes, 2)
        checks.number("Relabel", "beta", beta, 0, 1)
        checks.number("Relabel", "p", p, 0)
        checks.number("Relabel", "temperature", temperature, 0, open_low=True)
        self.beta, self.p, self.temperature = beta, p, temperature
        self.predictions = torch.zeros(dataset_size, num_classes, dtype=dtype, device=device)
        self.seen = torch.zeros(dataset_size, dtype=torch.bool, device=device)

    def loss(self, index: Tensor, logits: Tensor) -> Tensor:
        """p · mean_i L(softmax(ŷ_i / T), f(x_i)): 0-d, with the graph of logits [n, C]. index: [n]."""
        index = self._checked(index, logits)
        labels, seen = self.predictions[index], self.seen[index]
        labels = (labels / self.temperature).softmax(1).to(logits.device, logits.dtype)
        losses = F.cross_entropy(logits, labels, reduction="none")
        return self.p * torch.where(seen.to(logits.device), losses, 0).mean()

    @torch.no_grad()
    def update(self, index: Tensor, logits: Tensor) -> None:
        """Eq. 7 for the examples of a batch: index [n], logits f(x; Θ) [n, C]."""
        index = self._checked(index, logits)
        new = logits.detach().to(self.predictions.device, self.predictions.dtype)
        self.predictions[index] = self.beta * self.predictions[index] + (1 - self.beta) * new
        self.seen[index] = True

    def state_dict(self) -> dict[str, Tensor]:
        """All that a resumed run needs."""
        return {"predictions": self.predictions.clone(), "seen": self.seen.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from `state_dict()`, bit for bit. ValueError where it is of other data."""
        shape = tuple(self.predictions.shape)
        got = tuple(state["predictions"].shape) if isinstance(state, dict) and "predictions" in state else "nothing"
        if got != shape:
            raise ValueError(f"fastrw.Relabel: a state must hold predictions of shape {shape}, got {got}")
        self.predictions.copy_(state["predictions"])
        self.seen.copy_(state["seen"])

    def _checked(self, index: Tensor, logits: Tensor) -> Tensor:
        index = checks.indices("Relabel", index, len(self.predictions))
        wanted = (len(index), self.predictions.shape[1])
        if tuple(logits.shape) != wanted:
            raise ValueError(f"fastrw.Relabel: logits must be [n, C] = {wanted}, got {tuple(logits.shape)}")
        return index.to(self.predictions.device)
