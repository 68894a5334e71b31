"""Argument checks. Each error names the caller, the rule and what was passed."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def indices(caller: str, index: Tensor | Sequence[int], size: int) -> Tensor:
    """index as [n] int64; TypeError or ValueError unless it holds distinct positions in a dataset of `size`."""
    index = _integers(caller, "index", index, size, "from")
    ordered = index.sort().values
    if bool((same := ordered[1:] == ordered[:-1]).any()):
        raise ValueError(f"fastrw.{caller}: index must not repeat an example, got {int(ordered[1:][same][0])} twice")
    return index


def labels(caller: str, y: Tensor | Sequence[int], classes: int, *, name: str = "y") -> Tensor:
    """y as [n] int64; TypeError or ValueError unless each is a class."""
    return _integers(caller, name, y, classes, "classes from")


def _integers(caller: str, name: str, value: Tensor | Sequence[int], limit: int, kind: str) -> Tensor:
    value = torch.as_tensor(value)
    if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
        raise TypeError(f"fastrw.{caller}: {name} must be whole numbers, got {value.dtype}")
    if value.ndim != 1 or len(value) == 0:
        raise ValueError(f"fastrw.{caller}: {name} must be [n] with n of 1 or more, got {tuple(value.shape)}")
    value = value.long()
    low, high = map(int, value.aminmax())
    if low < 0 or high >= limit:
        got = low if low < 0 else high
        raise ValueError(f"fastrw.{caller}: {name} must be {kind} 0 to {limit - 1}, got {got}")
    return value


def count(caller: str, name: str, value: int, least: int = 1) -> None:
    """ValueError unless value is an integer of `least` or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"fastrw.{caller}: {name} must be an integer of {least} or more, got {value!r}")


def number(
    caller: str, name: str, value: float, low: float, high: float = float("inf"), open_low: bool = False
) -> None:
    """ValueError unless value is a number from low (excluded if open_low) to high (always excluded)."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and low <= value < high
    if not good or (open_low and value == low):
        raise ValueError(
            f"fastrw.{caller}: {name} must be a number in {'(' if open_low else '['}{low:g}, {high:g}), got {value!r}"
        )


def restore(caller: str, own: dict[str, Tensor], state: Any) -> None:
    """Copies a state's tensors into `own`; ValueError, before anything changes, unless it has each, of its shape."""
    for name, tensor in own.items():
        got = tuple(state[name].shape) if isinstance(state, dict) and name in state else "nothing"
        if got != tuple(tensor.shape):
            raise ValueError(f"fastrw.{caller}: a state must hold {name} of shape {tuple(tensor.shape)}, got {got}")
    for name, tensor in own.items():
        tensor.copy_(state[name])
