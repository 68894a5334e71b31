"""The methods that the demo compares: each says what weight every example of a batch gets."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

import fastrw

if TYPE_CHECKING:
    from fastrw.demo.train import Run

Batch = tuple[Tensor, Tensor]  # x [n, C, H, W] float32, y [n] int64


def plain(run: "Run", batch: Batch, val_batch: Batch) -> Tensor:
    """w_i = 1/n: the mean loss of ordinary training."""
    n = len(batch[1])
    return torch.full((n,), 1 / n)


def inverse_frequency(run: "Run", batch: Batch, val_batch: Batch) -> Tensor:
    """w_i = 1/count(y_i), made to sum to 1: rare classes count as much as common ones (PROPORTION, Ren et al. 4.1)."""
    w = 1 / run.label_counts[batch[1]]
    return w / w.sum()


def random_weights(run: "Run", batch: Batch, val_batch: Batch) -> Tensor:
    """w_i = max(z_i, 0) / sum_k max(z_k, 0), z_i ~ N(0, 1): Ren et al. 2018, Eq. 16."""
    z = torch.randn(len(batch[1]), generator=run.generator).clamp(min=0)
    return z / z.sum().clamp(min=torch.finfo(z.dtype).tiny)


def meta_weights(run: "Run", batch: Batch, val_batch: Batch) -> Tensor:
    """w_i = max(s_i, 0) / sum_k max(s_k, 0): how much example i helps the clean ones (Ren et al. 2018, Eq. 7-9)."""
    return fastrw.meta_weights(run.model, batch, val_batch)


@dataclass(frozen=True)
class Method:
    name: str
    weights: Callable[["Run", Batch, Batch], Tensor]
    use_of_clean: str  # the table's word for what the method does with the clean examples
    only_clean: bool = False  # trains on the clean examples and nothing else
    one_pass: bool = False  # weights and weighted gradient come from one pass


METHODS = {
    method.name: method
    for method in (
        Method("plain", plain, "train"),
        Method("inverse frequency", inverse_frequency, "train"),
        Method("random (Eq. 16)", random_weights, "train"),
        Method("clean only", plain, "alone", only_clean=True),
        Method("fastrw", meta_weights, "train, weigh", one_pass=True),
    )
}
