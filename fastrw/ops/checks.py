"""The checks of the arguments of an op; csrc/checks.h raises the same errors in the same words."""

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
INDICES = (torch.int64, torch.int32)


def tensors(
    op: str,
    letters: Mapping[str, str],
    given: Mapping[str, Tensor],
    wide: Collection[str] = (),
    index: Collection[str] = (),
) -> None:
    """Tensors on one device whose letters, those of `op.Op`, agree.

    All have the dtype of the first that is no index; those of `wide` may have that of its sums instead, those of
    `index` are int64 or int32.
    """
    for name, x in given.items():
        if not isinstance(x, Tensor):
            raise TypeError(f"fastrw.{op}: {name} must be a tensor, got {type(x).__name__}")
    lead, first = next((name, x) for name, x in given.items() if name not in index)
    seen: dict[str, tuple[str, int]] = {}
    for name, x in given.items():
        least = len(letters[name].rstrip("*"))
        if x.dim() < least or (x.dim() > least and letters[name][-1] != "*"):
            raise ValueError(f"fastrw.{op}: {name} must be {shape(letters[name])}, got shape {tuple(x.shape)}")
        if name in index:
            if x.dtype not in INDICES:
                raise ValueError(f"fastrw.{op}: {name} must be int64 or int32, got {x.dtype}")
        elif x.dtype != first.dtype and not (name in wide and x.dtype == sums(first.dtype)):
            raise ValueError(f"fastrw.{op}: {name} must have the dtype of {lead}, got {x.dtype} and {first.dtype}")
        if x.device != first.device:
            raise ValueError(f"fastrw.{op}: {name} must be on the device of {lead}, got {x.device} and {first.device}")
    if first.dtype not in DTYPES:
        raise ValueError(f"fastrw.{op}: the dtype must be float32, float64, bfloat16 or float16, got {first.dtype}")
    for name, x in given.items():
        for letter, size in zip(letters[name].rstrip("*"), x.shape, strict=False):
            if letter.isdigit() and size != int(letter):
                raise ValueError(f"fastrw.{op}: {name} must be {shape(letters[name])}, got shape {tuple(x.shape)}")
            owner, expected = seen.setdefault(letter, (name, size))
            if size != expected:
                both = f"{owner} {shape(letters[owner])} and {name} {shape(letters[name])}"
                raise ValueError(f"fastrw.{op}: {both} must have the same {letter}, got {expected} and {size}")


def alike(op: str, lead: str, x: Tensor, **given) -> None:
    """Those that are given have the shape of x."""
    for name, t in given.items():
        if t is not None and t.shape != x.shape:
            raise ValueError(
                f"fastrw.{op}: {name} must have the shape of {lead}, got {tuple(t.shape)} and {tuple(x.shape)}"
            )


def lists(op: str, **given) -> None:
    """Lists of an item a use, at least one."""
    (first, lead), *_ = given.items()
    for name, x in given.items():
        if not isinstance(x, (list, tuple)):
            raise TypeError(f"fastrw.{op}: {name} must be a list, one item a use, got {type(x).__name__}")
    if not lead:
        raise ValueError(f"fastrw.{op}: {first} must have at least one use, got none")
    for name, x in given.items():
        if len(x) != len(lead):
            raise ValueError(f"fastrw.{op}: {name} must have as many uses as {first}, got {len(x)} and {len(lead)}")


def like_first(op: str, name: str, items: Sequence[Tensor], i: int) -> None:
    """Item i has the dtype and the device of the first."""
    x, first = items[i], items[0]
    if x.dtype != first.dtype:
        raise ValueError(f"fastrw.{op}: {name}[{i}] must have the dtype of {name}[0], got {x.dtype} and {first.dtype}")
    if x.device != first.device:
        rule = f"{name}[{i}] must be on the device of {name}[0]"
        raise ValueError(f"fastrw.{op}: {rule}, got {x.device} and {first.device}")


def shape(letters: str) -> str:
    """ "rp" as [r, p], "nC*" as [n, C, ...]"""
    return f"[{', '.join(letters.replace('*', '…'))}]".replace("…", "...")


def sums(dtype: torch.dtype) -> torch.dtype:
    """The dtype that sums are kept in."""
    return torch.promote_types(dtype, torch.float32)


def number(op: str, name: str, x: float) -> None:
    """A plain number: not a tensor, since its gradient would be lost, and not a bool."""
    if isinstance(x, bool) or not isinstance(x, (int, float)):
        raise TypeError(f"fastrw.{op}: {name} must be a number, got {type(x).__name__}")


def integer(op: str, least: int | None = None, **given) -> None:
    """Integers that are at least `least`."""
    for name, x in given.items():
        if isinstance(x, bool) or not isinstance(x, (int, torch.SymInt)):
            raise TypeError(f"fastrw.{op}: {name} must be an integer, got {type(x).__name__}")
        if least is not None and x < least:
            raise ValueError(f"fastrw.{op}: {name} must be {least} or more, got {x}")


def integers(op: str, least: int, count: int, **given) -> None:
    """Sequences of `count` integers that are at least `least`."""
    for name, x in given.items():
        if not isinstance(x, (tuple, list)) or any(isinstance(i, bool) or not isinstance(i, int) for i in x):
            raise TypeError(f"fastrw.{op}: {name} must be a sequence of integers, got {x!r}")
        if len(x) != count or any(i < least for i in x):
            rule = f"{name} must be {count} integers of {least} or more"
            raise ValueError(f"fastrw.{op}: {rule}, got {list(x)}")
