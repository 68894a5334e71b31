"""The check that the default loss is that of the model itself (Hugging Face)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fastrw import learned
from fastrw.api.problem import Problem
from fastrw.errors import Refused
from fastrw.state.batches import examples, mapped
from fastrw.state.snapshot import State


def check_default_loss(problem: Problem, state: State) -> None:
    """Raises Refused where the model itself computes a loss from the labels (Hugging Face) and it differs from the
    default loss: weights would be those of another training. The model is run once on one example, repeated: then a
    mean over all positions is the mean over examples. `state` is rewound."""
    batch = problem.batch
    if not problem.by_default or not isinstance(batch, Mapping):
        return
    labels = batch["labels"]
    kind = (getattr(labels, "dtype", None), getattr(labels, "ndim", None))
    known = learned.table(problem.model, "kinds of labels")
    if known.get(kind) or (n := examples(batch)) is None:
        return
    two = mapped(lambda t: torch.cat([t[:1], t[:1]]) if isinstance(t, Tensor) and t.shape[:1] == (n,) else t, batch)
    own = _models_own(problem, two, state)
    if own is not None:
        way_out = "(give losses_fn, or call fastrw.backward with your own losses)"
        try:
            ours = problem.losses(two, graph=False).mean()
        except Exception as error:
            raise Refused(f"{problem.prefix}the default loss must be the model's own, got {error} {way_out}") from error
        finally:
            state.rewind()
        limit = 1e-4 if own.dtype in (torch.float32, torch.float64) else 3e-2
        if not bool((ours - own).abs() <= limit * own.abs().clamp(min=1)) and bool(own.isfinite()):
            raise Refused(
                f"{problem.prefix}the default loss must be the model's own, got {ours.item():.6g} where that of "
                f"{type(problem.model).__name__} is {own.item():.6g} {way_out}"
            )
    known.put(kind, True)


def _models_own(problem: Problem, batch: Any, state: State) -> Tensor | None:
    """The loss that the model itself computes; None if it has none."""
    try:
        with torch.no_grad():
            output = problem.model(**batch)
    except Exception:  # it takes no labels
        return None
    finally:
        state.rewind()
    loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    return loss.mean() if isinstance(loss, Tensor) and loss.is_floating_point() else None
