"""The rules that the inputs of an op keep, and the words said when they do not; csrc/checks.h says the same words."""

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def matrices(op: str, spelled: dict[str, str], **tensors: Tensor) -> None:
    """Matrices of one known dtype on one device, whose letters agree: {"a": "rp", "g": "rq"} is a [r, p], g [r, q]."""
    lead, first = next(iter(tensors.items()))
    for name, x in tensors.items():
        if not isinstance(x, Tensor):
            raise TypeError(f"fastrw.{op}: {name} must be a tensor, got {type(x).__name__}")
        if x.dim() != 2:
            letters = ", ".join(spelled[name])
            raise ValueError(f"fastrw.{op}: {name} must be a matrix [{letters}], got shape {tuple(x.shape)}")
        if x.dtype != first.dtype:
            raise ValueError(f"fastrw.{op}: {name} must have the dtype of {lead}, got {x.dtype} and {first.dtype}")
        if x.device != first.device:
            raise ValueError(f"fastrw.{op}: {name} must be on the device of {lead}, got {x.device} and {first.device}")
    if first.dtype not in DTYPES:
        raise ValueError(f"fastrw.{op}: the dtype must be float32, float64, bfloat16 or float16, got {first.dtype}")
    seen: dict[str, tuple[str, int]] = {}
    for name, letters in spelled.items():
        for side, letter, size in zip(("rows", "columns"), letters, tensors[name].shape, strict=True):
            owner, expected = seen.setdefault(letter, (name, size))
            if size != expected:
                rule = f"{owner} and {name} must have the same {side} {letter}"
                raise ValueError(f"fastrw.{op}: {rule}, got {expected} and {size}")


def number(op: str, name: str, x: float) -> None:
    """A plain number: neither a tensor, whose gradient would be lost, nor a flag."""
    if isinstance(x, bool) or not isinstance(x, (int, float)):
        raise TypeError(f"fastrw.{op}: {name} must be a number, got {type(x).__name__}")
