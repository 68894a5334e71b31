"""Compiled code of the user: its forwards run as they are written, because the backward of a compiled one runs only
once; and torch.compile leaves our own calls alone."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext

import torch


def uncompiled() -> AbstractContextManager:
    """In this context all code runs eagerly. What has been compiled is kept for the user's own calls."""
    if "torch._dynamo" not in sys.modules:  # nothing is compiled
        return nullcontext()
    return torch.compiler.set_stance("force_eager")
