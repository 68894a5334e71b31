"""Soft labels, with or without FSR: MixUp's blends, and averages of the model's own predictions."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fastrw.fsr import checks


class MixUp:
    """x̃_i = λ_i x_i + (1 - λ_i) x_k,  t̃_i = λ_i onehot(y_i) + (1 - λ_i) onehot(y_k),  k = π(i)   (Zhang et al. 2018)

    λ_i ~ Beta(a, a), replaced by 1 - λ_i where that is larger: x̃_i is mostly example i, which its weight belongs to.
    Works without FSR too. λ and the permutation π are drawn from torch's global CPU generator, as dropout does.

    Args:
        num_classes: C.
        alpha: a, above 0.
    """

    def __init__(self, num_classes: int, *, alpha: float = 0.5):
        checks.arguments("MixUp", num_classes=num_classes, alpha=alpha)
        self.num_classes, self.alpha = num_classes, alpha
        a = torch.tensor(alpha, dtype=torch.float64)
        self._beta = torch.distributions.Beta(a, a)

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


class Relabel:
    """Momentum re-labelling: ŷ ← β ŷ + (1 - β) f(x; Θ), and the second loss p · mean_i L(softmax(ŷ_i / T), f(x_i)).

    Works without FSR too. A step's loss compares with the predictions of earlier steps, so call `loss` first:

        logits = model(x)
        total = F.cross_entropy(logits, y) + relabel.loss(index, logits)
        relabel.update(index, logits)

    An example that was not seen before has no ŷ and adds no loss (the mean is still over the whole batch).

    Args:
        dataset_size, num_classes: N and C. N · C numbers are kept.
        beta: β in [0, 1).
        p: factor of the second loss.
        temperature: T, above 0.
        dtype, device: of ŷ.
    Source: Zhang & Pfister 2021, Eq. 7.
    """

    def __init__(self, dataset_size: int, num_classes: int, *, beta: float = 0.1, p: float = 2.0,
                 temperature: float = 1.0, dtype: torch.dtype = torch.float32, device: Any = "cpu"):  # fmt: skip
        checks.arguments("Relabel", dataset_size=dataset_size, num_classes=num_classes, beta=beta, p=p,
                         temperature=temperature)  # fmt: skip
        self.beta, self.p, self.temperature = beta, p, temperature
        self.predictions = torch.zeros(dataset_size, num_classes, dtype=dtype, device=device)
        self.seen = torch.zeros(dataset_size, dtype=torch.bool, device=device)

    def loss(self, index: Tensor, logits: Tensor) -> Tensor:
        """p · mean_i L(softmax(ŷ_i / T), f(x_i)): 0-d, with the graph of logits [n, C]. index: [n]."""
        index = self._checked(index, logits)
        labels = (self.predictions[index] / self.temperature).softmax(1).to(logits.device, logits.dtype)
        losses = F.cross_entropy(logits, labels, reduction="none")
        return self.p * torch.where(self.seen[index].to(logits.device), losses, 0).mean()

    @torch.no_grad()
    def update(self, index: Tensor, logits: Tensor) -> None:
        """Eq. 7 for the examples of a batch: index [n], logits f(x; Θ) [n, C]."""
        index = self._checked(index, logits)
        new = logits.detach().to(self.predictions.device, self.predictions.dtype)
        self.predictions[index] = self.beta * self.predictions[index] + (1 - self.beta) * new
        self.seen[index] = True

    def state_dict(self) -> dict[str, Tensor]:
        """Everything a resumed run needs."""
        return {"predictions": self.predictions.clone(), "seen": self.seen.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Resumes from `state_dict()`, bit for bit. ValueError if it belongs to another dataset."""
        checks.restore("Relabel", self.tensors(), state)

    def tensors(self) -> dict[str, Tensor]:
        """What a state holds, not copied."""
        return {"predictions": self.predictions, "seen": self.seen}

    def _checked(self, index: Tensor, logits: Tensor) -> Tensor:
        index = checks.indices("Relabel", index, len(self.predictions))
        wanted = (len(index), self.predictions.shape[1])
        if tuple(logits.shape) != wanted:
            raise ValueError(f"fastrw.Relabel: logits must be [n, C] = {wanted}, got {tuple(logits.shape)}")
        return index.to(self.predictions.device)
