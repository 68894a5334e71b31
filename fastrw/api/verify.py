"""Does every method and backend give the exact scores of a model? Each against one gradient per example."""

from __future__ import annotations

import copy
import glob
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fastrw.api.meta_weights import gradient_dots
from fastrw.api.options import BACKENDS, METHODS
from fastrw.api.problem import Problem
from fastrw.engine.per_example import coarsest
from fastrw.errors import Refused
from fastrw.graph.walk import dtypes
from fastrw.ops.tolerance import SCORE_GOAL, bound, relative_error
from fastrw.state.batches import mapped
from fastrw.state.snapshot import RandomState, State


@dataclass(frozen=True)
class VerifyRow:
    """One method by one backend ("torch" where the method has no op of its own to dispatch)."""

    method: str
    backend: str
    error: float | None  # relative error of the scores, in the norm; None where refused
    bound: float
    refused: str | None = None  # why it would not serve

    @property
    def ok(self) -> bool:
        """Within the bound (nan is not), or refused: never a wrong number."""
        return self.refused is not None or self.error <= self.bound


@dataclass(frozen=True)
class VerifyReport:
    """A row per method and backend, and the reference that they were compared with."""

    rows: tuple[VerifyRow, ...]
    reference: str

    @property
    def ok(self) -> bool:
        return all(row.ok for row in self.rows)

    def __str__(self) -> str:
        cells = [("method", "backend", "error", "bound", "")]
        for row in self.rows:
            verdict = f"refused: {row.refused}" if row.refused else "ok" if row.ok else "WRONG"
            error = "" if row.error is None else f"{row.error:.1e}"
            cells.append((row.method, row.backend, error, f"{row.bound:.1e}", verdict))
        widths = [max(len(line[column]) for line in cells) for column in range(4)]
        lines = ["  ".join([*map(str.ljust, line, widths), line[4]]).rstrip() for line in cells]
        return "\n".join([f"against {self.reference}", *lines])


class VerificationError(AssertionError):
    """A method gave scores beyond its bound; `.report` has every row."""

    def __init__(self, report: VerifyReport):
        super().__init__(f"fastrw.verify: errors must be within their bounds, got\n{report}")
        self.report = report


def verify(
    model: nn.Module,
    batch: Any,
    val_batch: Any,
    *,
    loss_fn: Callable | None = None,
    losses_fn: Callable | None = None,
    params: Any = None,
) -> VerifyReport:
    """|s - s*| / |s*| <= bound for every method and backend, with s*_i = grad f^v . grad f_i of Ren et al. 2018, Eq. 7.

    s* comes from one `autograd.grad` per example on a deep copy of the model in float64, outside autocast. Where the
    forward draws random numbers, they need not agree between dtypes: s* is then taken in the model's own. The bound is
    `tolerance.SCORE_GOAL`, or, where plain torch misses that itself in this dtype, `tolerance.bound` on its error.

    Args: those of `meta_weights`. The model must be one that `copy.deepcopy` and `.double()` can copy, and losses_fn
        must call the model that it is given.
    Returns:
        VerifyReport: `.rows` (method, backend, error, bound, refused), `.ok`; `str(report)` is a table.
    Raises:
        VerificationError (an AssertionError): a bound is missed.
        TypeError, ValueError: as `meta_weights`; ValueError also if the model computes something else in float64.
    """
    problem = Problem(model, batch, val_batch, loss_fn=loss_fn, losses_fn=losses_fn, params=params, caller="verify")
    names = [glob.escape(name) for name in problem.params]
    how = {"loss_fn": loss_fn, "losses_fn": losses_fn, "params": names, "return_report": True}
    score = partial(gradient_dots, model, batch, val_batch, **how)
    draws, working = _forward(problem)
    plain, _ = score(method="per_example")
    if draws:
        truth, reference = plain, f"one gradient per example in {plain.dtype}: the forward draws random numbers"
    else:
        with torch.autocast(plain.device.type, enabled=False):
            doubled = _doubled(model), *(mapped(_double, b) for b in (batch, val_batch))
            truth, _ = gradient_dots(*doubled, **how, method="per_example")
        reference = "one gradient per example in float64"
    drift = relative_error(plain, truth)
    if drift > math.sqrt(torch.finfo(working).eps):
        rule = f"one gradient per example must be nearly the same in {working} and in float64"
        raise ValueError(f"fastrw.verify: {rule} to judge by, got a relative difference of {drift:.1e}")
    limit = max(SCORE_GOAL[plain.dtype], bound(working, drift, 1))
    found = VerifyReport(tuple(row for method in METHODS for row in _rows(method, score, truth, limit)), reference)
    if not found.ok:
        raise VerificationError(found)
    return found


def _rows(method: str, score: Callable, truth: Tensor, limit: float) -> list[VerifyRow]:
    """The method once, if torch serves all its uses; otherwise once with each backend of our ops."""
    try:
        s, report = score(method=method)
    except Refused as refusal:
        return [VerifyRow(method, "any", None, limit, str(refusal))]
    if all(use.backend == "torch" for use in report.uses):
        return [VerifyRow(method, "torch", relative_error(s, truth), limit)]
    rows = []
    for backend in BACKENDS[1:]:
        try:
            s, _ = score(method=method, backend=backend)
            rows.append(VerifyRow(method, backend, relative_error(s, truth), limit))
        except Refused as refusal:
            rows.append(VerifyRow(method, backend, None, limit, str(refusal)))
    return rows


def _forward(problem: Problem) -> tuple[bool, torch.dtype]:
    """Whether a training forward moves torch's random state, and the coarsest dtype that it computes in."""
    state = State(problem.modules)
    random = [RandomState(device) for device in {p.device for p in problem.params.values()}]
    try:
        losses = problem.losses(problem.batch)
        return any(one.moved() for one in random), coarsest(dtypes(losses))
    finally:
        state.rewind()


def _double(leaf: Any) -> Any:
    return leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf


def _doubled(model: nn.Module) -> nn.Module:
    """A deep copy in float64. Tensors that a forward left on a module (with their graph) are copied without it."""
    held = [t for module in model.modules() for t in vars(module).values() if isinstance(t, Tensor) and not t.is_leaf]
    twin = copy.deepcopy(model, {id(t): t.detach().clone() for t in held}).double()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        for hook in (p._backward_hooks or {}).values():  # a deep copy does not have them
            q.register_hook(hook)
    return twin
