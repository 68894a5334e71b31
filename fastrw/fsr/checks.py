"""The rules that indices, labels and numbers must keep, said in the words of the caller."""

from collections.abc import Sequence

import torch
from torch import Tensor


def indices(caller: str, index: Tensor | Sequence[int], size: int) -> Tensor:
    """index as [n] int64; TypeError or ValueError where it is no set of examples of a dataset of `size`."""
    index = torch.as_tensor(index)
    if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
        raise TypeError(f"fastrw.{caller}: index must be whole numbers, got {index.dtype}")
    if index.ndim != 1 or len(index) == 0:
        raise ValueError(f"fastrw.{caller}: index must be [n] with n of 1 or more, got {tuple(index.shape)}")
    index = index.long()
    low, high = index.aminmax()
    if int(low) < 0 or int(high) >= size:
        got = int(low) if int(low) < 0 else int(high)
        raise ValueError(f"fastrw.{caller}: index must be from 0 to {size - 1}, got {got}")
    ordered = index.sort().values
    if bool((same := ordered[1:] == ordered[:-1]).any()):
        raise ValueError(f"fastrw.{caller}: index must not repeat an example, got {int(ordered[1:][same][0])} twice")
    return index


def labels(caller: str, y: Tensor | Sequence[int], classes: int, *, name: str = "y") -> Tensor:
    """y as [n] int64; TypeError or ValueError where one is no class."""
    y = torch.as_tensor(y)
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise TypeError(f"fastrw.{caller}: {name} must be whole numbers, got {y.dtype}")
    if y.ndim != 1 or len(y) == 0:
        raise ValueError(f"fastrw.{caller}: {name} must be [n] with n of 1 or more, got {tuple(y.shape)}")
    y = y.long()
    low, high = y.aminmax()
    if int(low) < 0 or int(high) >= classes:
        got = int(low) if int(low) < 0 else int(high)
        raise ValueError(f"fastrw.{caller}: {name} must be classes from 0 to {classes - 1}, got {got}")
    return y


def count(caller: str, name: str, value: int, least: int = 1) -> None:
    """ValueError unless value is an integer of `least` or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"fastrw.{caller}: {name} must be an integer of {least} or more, got {value!r}")


def number(
    caller: str, name: str, value: float, low: float, high: float = float("inf"), open_low: bool = False
) -> None:
    """ValueError unless value is a number from low (or, if open_low, above it) to below high."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and low <= value < high
    if not good or (open_low and value == low):
        raise ValueError(
            f"fastrw.{caller}: {name} must be a number in {'(' if open_low else '['}{low:g}, {high:g}), got {value!r}"
        )
