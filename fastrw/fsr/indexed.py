"""A dataset that returns each example with its index, and how examples and labels are read by index."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset, default_collate

from fastrw.fsr import checks


class Indexed(Dataset):
    """The same dataset with each example's index in front: `dataset[i]` = (x, y) becomes (i, x, y).

    loader = DataLoader(fastrw.fsr.Indexed(train_set), batch_size=100, shuffle=True)
    for index, x, y in loader: ...
    """

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> tuple:
        return (i, *self.dataset[i])

    def __getitems__(self, picked: list[int]) -> list[tuple]:
        return [(i, *item) for i, item in zip(picked, _items(self.dataset, picked), strict=True)]


def examples(dataset: Any, index: Tensor) -> tuple[Any, Tensor]:
    """The examples at index [q], read from a dataset and collated: (x, y)."""
    whole = isinstance(dataset, TensorDataset)  # takes an index tensor
    found = dataset[index] if whole else default_collate(_items(dataset, index.tolist()))
    if not isinstance(found, tuple | list) or len(found) < 2:
        got = f"{len(found)} items" if isinstance(found, tuple | list) else type(found).__name__
        raise TypeError(f"fastrw.FSR: dataset[i] must be (x, y), got {got}")
    return found[0], checks.labels("FSR", found[1], torch.iinfo(torch.int64).max)


def labels_of(dataset: Any, size: int) -> Tensor:
    """[size] the labels of a dataset: its `targets` (torchvision's name) or `tensors[1]`; else each example is read."""
    if (targets := getattr(dataset, "targets", None)) is not None:
        return torch.as_tensor(targets)
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) > 1:
        return dataset.tensors[1]
    return torch.tensor([int(dataset[i][1]) for i in range(size)])


def _items(dataset: Any, picked: list[int]) -> list:
    return dataset.__getitems__(picked) if hasattr(dataset, "__getitems__") else [dataset[i] for i in picked]
