"""Copies of tensors, made and put back by few kernels, however many small buffers a model has."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fastrw.state.held import equal

PLAIN = (Tensor, nn.Parameter, nn.Buffer)


@torch.no_grad()
def copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    """A copy of each."""
    simple = [type(t) in PLAIN and t.layout == torch.strided for t in tensors]
    found = [torch.empty_like(t) if easy else t.detach().clone() for t, easy in zip(tensors, simple, strict=True)]
    _copy([(to, t) for to, t, easy in zip(found, tensors, simple, strict=True) if easy])
    return found


@torch.no_grad()
def put_back(pairs: Sequence[tuple[Tensor, Tensor]]) -> list[Exception]:
    """Gives each tensor the value that it is paired with, through `.data`. Returns what was raised: the others are put
    back nevertheless."""
    simple, others = [], []
    for pair in pairs:
        (simple if _is_simple(*pair) else others).append(pair)
    try:
        _copy([(t.data, value) for t, value in simple])
    except Exception:
        others = list(pairs)
    failed: list[Exception] = []
    for t, value in others:
        try:
            _put(t, value)
        except Exception as error:
            failed.append(error)
    return failed


def _copy(pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    kinds: dict[tuple, tuple[list[Tensor], list[Tensor]]] = {}  # torch joins kernels of one kind alone
    for to, t in pairs:
        mine = kinds.setdefault((t.device, t.dtype), ([], []))
        mine[0].append(to)
        mine[1].append(t)
    for tos, ts in kinds.values():
        torch._foreach_copy_(tos, ts)


def _is_simple(t: Tensor, value: Tensor) -> bool:
    """Has it the kind and shape that it had, and memory for each element?"""
    same = type(t) in PLAIN and t.layout == torch.strided and t.shape == value.shape and t.dtype == value.dtype
    return same and 0 not in t.stride()


def _put(tensor: Tensor, value: Tensor) -> None:
    if tensor.layout != torch.strided or tensor.shape != value.shape or tensor.dtype != value.dtype:
        if not equal(tensor, value):
            tensor.data = value.clone()  # resized, sparse; the next forward writes to it
    elif 0 in tensor.stride() and tensor.numel() > 1:  # expanded: one element stands for many
        if not equal(tensor, value):
            index = tuple(slice(0, 1) if s == 0 else slice(None) for s in tensor.stride())
            tensor.data[index].copy_(value[index])
    else:
        tensor.data.copy_(value)
