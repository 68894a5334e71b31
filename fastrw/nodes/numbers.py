"""What a formula asks of numbers: these are read at once; in a pass that reads none, the question is noted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

_thread = threading.local()  # .flags: those noted in this thread, or None


@contextmanager
def noted(flags: list[Tensor]) -> Iterator[None]:
    """In this context, what is asked is answered by yes, and added to the flags."""
    before, _thread.flags = getattr(_thread, "flags", None), flags
    try:
        yield
    finally:
        _thread.flags = before


def holds(flag: Tensor) -> bool:
    """Is this 0-d flag true?"""
    flags = getattr(_thread, "flags", None)
    if flags is None:
        return bool(flag)
    flags.append(flag)
    return True
