"""Does every method and backend compute the exact scores of a model? Each is compared with one gradient per example."""

from __future__ import annotations

import copy
import glob
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fastrw.api.backward import untraced
from fastrw.api.meta_weights import gradient_dots
from fastrw.api.options import BACKENDS, METHODS
from fastrw.api.problem import Problem
from fastrw.engine import rounding
from fastrw.engine.report import table
from fastrw.errors import Refused
from fastrw.ops.tolerance import SCORE_GOAL, bound, relative_error
from fastrw.state.batches import mapped
from fastrw.state.snapshot import RandomState


@dataclass(frozen=True)
class VerifyRow:
    """One method with one backend ("torch" if the method uses none of fastrw.ops)."""

    method: str
    backend: str
    error: float | None  # relative error of the scores, in the norm; None where refused
    bound: float
    refused: str | None = None  # the reason

    @property
    def ok(self) -> bool:
        """Refused, or within the bound (nan is not): never a wrong number."""
        return self.error is None or self.error <= self.bound


@dataclass(frozen=True)
class VerifyReport:
    """A row per method and backend, and the reference that they are compared with."""

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
        return "\n".join([f"compared with {self.reference}", *table(cells)])


class VerificationError(AssertionError):
    """The scores of a method are beyond its bound; `.report` has every row."""

    def __init__(self, report: VerifyReport):
        super().__init__(f"fastrw.verify: errors must be within their bounds, got\n{report}")
        self.report = report


@untraced
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

    s* comes from one `autograd.grad` per example on a deep copy of the model in float64, outside autocast; if the
    forward draws random numbers, which may differ between dtypes, in the dtype of the model. The bound is
    `tolerance.SCORE_GOAL` or, if plain torch itself misses that in this dtype, `tolerance.bound` on its error.

    Args: those of `meta_weights`. `copy.deepcopy` and `.double()` must be able to copy the model, and losses_fn must
        call the model that it is given.
    Returns:
        VerifyReport: `.rows` (method, backend, error, bound, refused), `.ok`; `str(report)` is a table.
    Raises:
        VerificationError (an AssertionError): an error is beyond its bound.
        TypeError, ValueError: as `meta_weights`; ValueError also if the model computes something different in float64.
    """
    problem = Problem(model, batch, val_batch, loss_fn=loss_fn, losses_fn=losses_fn, params=params, caller="verify")
    names = [glob.escape(name) for name in problem.params]
    score: Callable[..., Any] = partial(
        gradient_dots, loss_fn=loss_fn, losses_fn=losses_fn, params=names, return_report=True
    )
    given = model, batch, val_batch
    draws, working = _forward(problem)
    plain, _ = score(*given, method="per_example")
    if draws:
        truth, reference = plain, f"one gradient per example in {plain.dtype}: the forward draws random numbers"
    else:
        with torch.autocast(plain.device.type, enabled=False):
            truth, _ = score(_doubled(model), *(mapped(_double, b) for b in given[1:]), method="per_example")
        reference = "one gradient per example in float64"
    drift = relative_error(plain, truth)
    if drift > math.sqrt(torch.finfo(working).eps):
        rule = "one gradient per example must be nearly the same as, of a deep copy, in float64"
        raise ValueError(f"fastrw.verify: {rule}, got a relative difference of {drift:.1e}")
    limit = max(SCORE_GOAL[plain.dtype], bound(working, drift, 1))
    rows = (row for method in METHODS for row in _rows(method, partial(score, *given), truth, limit))
    report = VerifyReport(tuple(rows), reference)
    if not report.ok:
        raise VerificationError(report)
    return report


def _rows(method: str, score: Callable[..., Any], truth: Tensor, limit: float) -> list[VerifyRow]:
    """The method once, if it uses none of our ops; otherwise once with each backend."""

    def row(backend: str) -> tuple[VerifyRow, set[str]]:
        try:
            s, report = score(method=method, backend=backend)
        except Refused as refusal:
            return VerifyRow(method, backend, None, limit, str(refusal)), set()
        return VerifyRow(method, backend, relative_error(s, truth), limit), {use.backend for use in report.uses}

    first, used = row("auto")
    if used <= {"torch"}:
        return [replace(first, backend="any" if first.refused else "torch")]
    return [row(backend)[0] for backend in BACKENDS[1:]]


def _forward(problem: Problem) -> tuple[bool, torch.dtype]:
    """Whether a training forward draws random numbers, and the coarsest dtype that it computes in."""
    state = problem.state()
    random = [RandomState(device) for device in {p.device for p in problem.params.values()}]
    try:
        losses = problem.losses(problem.batch)
        found = any(one.moved() for one in random), rounding.of(losses)
    except BaseException:
        state.undo()
        raise
    state.rewind()
    return found


def _double(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    if leaf.is_complex():
        return leaf.to(torch.complex128)
    return leaf.double() if leaf.is_floating_point() else leaf


def _doubled(model: nn.Module) -> nn.Module:
    """A deep copy in float64. Tensors that a forward left on a module are copied without their graph."""
    held = [t for module in model.modules() for t in vars(module).values() if isinstance(t, Tensor) and not t.is_leaf]
    twin = copy.deepcopy(model, {id(t): t.detach().clone() for t in held})._apply(_double)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        for hook in (p._backward_hooks or {}).values():  # deepcopy omits them
            q.register_hook(hook)
    return twin
