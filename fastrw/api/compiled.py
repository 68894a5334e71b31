"""Compiled code of the user: its forwards run as they are written, because the backward of a compiled one runs only
once; and with which compiler."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn


def uncompiled() -> AbstractContextManager:
    """In this context all code runs eagerly. What has been compiled is kept for the user's own calls."""
    if "torch._dynamo" not in sys.modules:  # nothing is compiled
        return nullcontext()
    return torch.compiler.set_stance("force_eager")


def backend_of(model: nn.Module) -> Any:
    """The backend, with its mode and options, by which `torch.compile(model)` or `model.compile()` compiles the model;
    "inductor" where torch does not tell; None where the model is not compiled as a whole."""
    if "torch._dynamo" not in sys.modules:
        return None
    from torch._dynamo import eval_frame

    if isinstance(model, eval_frame.OptimizedModule):
        contexts = [model.dynamo_ctx]
    elif model._compiled_call_impl is not None:
        contexts = [cell.cell_contents for cell in getattr(model._compiled_call_impl, "__closure__", None) or ()]
    else:
        return None
    callbacks = [c.callback for c in contexts if hasattr(c, "callback")]
    return eval_frame.innermost_backend(callbacks[0]) if callbacks and callable(callbacks[0]) else "inductor"
