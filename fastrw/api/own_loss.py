"""Is the default loss of a mapping with labels the model's own (Hugging Face)? Held against it once: where it is
another, weights would be those of another training."""

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


def hold(problem: Problem, state: State) -> None:
    """Raises Refused where the model, given the labels, has a loss of its own and it is not the default one. The model
    is run on one example, twice over: then a mean over all positions is the mean of the examples' means. `state` is
    rewound."""
    batch = problem.batch
    if not problem.by_default or not isinstance(batch, Mapping):
        return
    labels = batch["labels"]
    kind = (getattr(labels, "dtype", None), getattr(labels, "ndim", None))
    known = learned.table(problem.model, "kinds of labels")
    if known.get(kind) or (n := examples(batch)) is None:
        return
    two = mapped(lambda t: torch.cat([t[:1], t[:1]]) if isinstance(t, Tensor) and t.shape[:1] == (n,) else t, batch)
    own = _own(problem, two, state)
    if own is not None:
        way_out = "(give losses_fn, or take fastrw.backward with losses of your own)"
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


def _own(problem: Problem, batch: Any, state: State) -> Tensor | None:
    """What the model itself says its loss is; None where it has none."""
    try:
        with torch.no_grad():
            output = problem.model(**batch)
    except Exception:  # it takes no labels: the loss is the caller's
        return None
    finally:
        state.rewind()
    loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    return loss.mean() if isinstance(loss, Tensor) and loss.is_floating_point() else None
