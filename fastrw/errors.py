"""What fastrw raises when a number would not be exact; and what it makes of the errors of others."""

from __future__ import annotations

import torch


class Refused(ValueError):
    """A method or backend is not exact for this model. The text names the reason and, if there is one, a way out."""


class ForThisBatch(Refused):
    """This batch is not supported; the next one may be."""


class NestedTensors(Refused):
    """A gradient is a nested tensor, whose elements have no place in a shape."""


class UntracedUse(Refused):
    """A gradient is changed by a hook of the user, which no formula can take into account."""


class CoupledExamples(Refused):
    """An operation mixes the batch dimension (BatchNorm in training, in-batch losses), so Eq. 12 does not hold."""


class Unrepeatable(Refused):
    """A graph raises an error in its second backward, but not in its first: no method can do with one."""


class Failed(Refused):
    """An error of torch or of the user's code in this method, which an ordinary backward does not raise."""


class Unlearned(Refused):
    """A step that reads no numbers, of a graph of which something has first to be learned by one that does."""


class Unreached(ValueError):
    """A loss that depends on no selected parameter."""


def ours(error: BaseException) -> bool:
    """Is this raised as it is? No other method would help where memory is full: they take more."""
    full = ("not enough memory", "can't allocate memory", "out of memory")
    if isinstance(error, Refused | Unreached | torch.OutOfMemoryError | MemoryError):
        return True
    return any(text in str(error) for text in full)


def reason(error: BaseException) -> str:
    """An error of torch or of the user in one line."""
    text = (str(error).strip().splitlines() or [""])[0]
    return text if isinstance(error, RuntimeError) and text else f"{type(error).__name__}: {text}"
