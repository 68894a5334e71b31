"""The options that calls of the public API share, and checks of their values."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fastrw.engine.request import METHODS, Options

__all__ = ["BACKENDS", "METHODS", "Options", "check", "scaling_of"]
BACKENDS = ("auto", "reference", "cpp", "cuda", "triton")
UPDATES = ("auto", "assembled", "backward")
NORMALIZE = ("rectify", "shift")


def check(caller: str, *, method: str, backend: str, score_dtype: torch.dtype | None, normalize: str | None = "rectify",
          update: str = "auto", scale: float = 1.0, or_none: bool = False) -> None:  # fmt: skip
    """Raises ValueError or TypeError where a value is unknown. or_none: may `normalize` be None?"""
    for name, value, known in (("method", method, ("auto", *METHODS)), ("backend", backend, BACKENDS),
                               ("update", update, UPDATES)):  # fmt: skip
        if value not in known:
            raise ValueError(f"fastrw.{caller}: {name} must be one of {', '.join(known)}, got {value!r}")
    if normalize not in NORMALIZE and not (or_none and normalize is None):
        rule = 'normalize must be "rectify", "shift" or None' if or_none else 'normalize must be "rectify" or "shift"'
        raise ValueError(f"fastrw.{caller}: {rule}, got {normalize!r}")
    if update == "assembled" and method not in ("auto", "layerwise"):
        raise ValueError(f'fastrw.{caller}: update="assembled" needs method="auto" or "layerwise", got {method!r}')
    if score_dtype not in (None, torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"fastrw.{caller}: score_dtype must be None or a float dtype, got {score_dtype!r}")
    if isinstance(scale, bool) or not isinstance(scale, int | float):
        raise TypeError(f"fastrw.{caller}: scale must be a number, got {type(scale).__name__}")
    if not math.isfinite(scale):
        raise ValueError(f"fastrw.{caller}: scale must be finite, got {scale}")


def scaling_of(scaler: Any, device: torch.device) -> Tensor | None:
    """The factor of a `torch.amp.GradScaler`, 0-d; None if there is none, or it is disabled."""
    if scaler is None or not scaler.is_enabled():
        return None
    return scaler.scale(torch.ones((), device=device))
