"""Argument checks. Each error names the caller, the rule and what was passed."""

from collections.abc import Sequence
from math import inf
from typing import Any

import torch
from torch import Tensor

# The rules for arguments, by name. INTEGERS: the smallest value. NUMBERS: above 0 for "(", 0 or more for "[", and below
# the limit. OPTIONAL: None is accepted too.
INTEGERS = {"dataset_size": 1, "num_classes": 2, "capacity": 1, "q": 1, "refresh": 1, "warmup": 0}
NUMBERS = {
    "eta": ("(", inf), "alpha": ("(", inf), "temperature": ("(", inf), "weight_decay": ("[", inf), "p": ("[", inf),
    "label_smoothing": ("[", 1), "beta": ("[", 1), "momentum": ("[", 1),
}  # fmt: skip
CHOICES = {
    "lookahead": (None, "momentum", "plain"), "normalize": ("rectify", "shift"), "variant": ("code", "paper"),
}  # fmt: skip
OPTIONAL = {"eta", "weight_decay"}


def indices(caller: str, index: Tensor | Sequence[int], size: int) -> Tensor:
    """index as [n] int64; TypeError or ValueError unless it holds distinct positions in a dataset of `size`."""
    index = _integers(caller, "index", index, size, "from")
    values, times = index.unique(return_counts=True)
    if len(repeated := values[times > 1]):
        raise ValueError(f"fastrw.{caller}: index must not repeat an example, got {int(repeated[0])} twice")
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


def arguments(caller: str, **values: Any) -> None:
    """ValueError unless each value satisfies the rule for its name in the tables above."""
    for name, value in values.items():
        if name in CHOICES:
            good, rule = value in CHOICES[name], f"one of {', '.join(map(repr, CHOICES[name]))}"
        elif name in INTEGERS:
            good, rule = isinstance(value, int) and value >= INTEGERS[name], f"an integer of {INTEGERS[name]} or more"
        else:
            bracket, limit = NUMBERS[name]
            good = isinstance(value, int | float) and 0 <= value < limit and (value > 0 or bracket == "[")
            rule = f"a number in {bracket}0, {limit})"
        if isinstance(value, bool) or not (good or (value is None and name in OPTIONAL)):
            raise ValueError(f"fastrw.{caller}: {name} must be {rule}, got {value!r}")


def fits(caller: str, own: dict[str, Tensor], state: Any) -> None:
    """ValueError unless a state has each of these tensors, of its shape."""
    for name, tensor in own.items():
        got = tuple(state[name].shape) if isinstance(state, dict) and name in state else "nothing"
        if got != tuple(tensor.shape):
            raise ValueError(f"fastrw.{caller}: a state must hold {name} of shape {tuple(tensor.shape)}, got {got}")


def restore(caller: str, own: dict[str, Tensor], state: Any) -> None:
    """Copies a state's tensors into `own`; ValueError, before anything changes, where it does not fit."""
    fits(caller, own, state)
    for name, tensor in own.items():
        tensor.copy_(state[name])
