"""The end of the heap, held.

glibc gives free memory at the end of its heap back to the system, and each page of it costs a fault when it is needed
again. An ordinary step leaves gradients there, made while the activations still lived, and so keeps the rest. The one
pass makes its gradients last: with nothing at the end, a ResNet-32 step pays 90 000 faults, a third of its time."""

from __future__ import annotations

from collections.abc import Iterable
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

LEAST = 1 << 22  # elements of the uses' outputs
BYTES = 1 << 20  # more than a hole among the activations holds, less than what glibc maps by itself once it has learned

_held: WeakKeyDictionary[nn.Module, dict[str, Tensor]] = WeakKeyDictionary()


def wanted(elements: Iterable[int]) -> bool:
    """Are the activations of these sizes so large that the system gets them back? Smaller ones stay in the heap."""
    return sum(elements) >= LEAST


def drop(model: nn.Module, place: str) -> None:
    """Put an anchor where the heap ends now, in place of the one of that name before. Never written to: no memory."""
    _held.setdefault(model, {})[place] = torch.empty(BYTES, dtype=torch.uint8)
