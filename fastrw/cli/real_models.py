"""`python -m fastrw verify --models hf`: the method that serves each real model of a family, and its error."""

from __future__ import annotations

import warnings
from collections import Counter

import torch
from rich.table import Column, Table

from fastrw.api.meta_weights import gradient_dots
from fastrw.api.problem import Problem
from fastrw.errors import Refused
from fastrw.graph.walk import dtypes
from fastrw.ops.tolerance import SCORE_GOAL, relative_error
from fastrw.testing import Case, real

HALF = 1e-1  # what bfloat16 can carry
Rows = list[dict]  # family, model, method, error, bound, refused (method -> reason), ok


def families(models: str) -> list[str]:
    """The families that `--models` names: one, those whose names begin with it ("hf"), or all that are installed.

    Raises ModuleNotFoundError where a package is missing."""
    if models == "real":
        return [family for family in real.FAMILIES if not real.missing(family)]
    found = [family for family in real.FAMILIES if family == models or family.startswith(f"{models}_")]
    missing = sorted({package for family in found for package in real.missing(family)})
    if missing:
        raise ModuleNotFoundError(f'{models} needs {" and ".join(missing)}: pip install "fastrw[models]"')
    return found


def verified(family: str, case: Case, dtype: torch.dtype, device: str) -> dict:
    """The scores of method="auto" against one gradient per example, both in `dtype`: of a float64 model that computes
    parts in float32, this is the error that matters."""
    row = {"family": family, "model": case.name, "method": "refused", "error": None, "bound": None, "ok": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the packages' own
        given = case.make(dtype, device)
        try:
            truth = gradient_dots(*given, method="per_example", **case.kwargs)
            s, report = gradient_dots(*given, return_report=True, **case.kwargs)
        except Refused as refusal:
            return row | {"refused": {"all": str(refusal)}}
    bound = max(SCORE_GOAL.get(kind, HALF) for kind in _kinds(case, given, truth.dtype))
    error = relative_error(s, truth)
    found = {"method": report.method, "error": error, "bound": bound, "refused": report.refused, "ok": error <= bound}
    return row | found


def _kinds(case: Case, given: tuple, dtype: torch.dtype) -> set[torch.dtype]:
    """The dtypes in which the model computes gradients."""
    problem = Problem(*given, **case.kwargs, caller="verify")
    state = problem.state()
    try:
        return {kind for kind in dtypes(problem.losses(given[1])) if kind.is_floating_point} | {dtype}
    finally:
        state.rewind()


def table(rows: Rows, **style) -> Table:
    """A line per model: the method that serves, its error, and why it is not layerwise."""
    found = Table("family", Column("model", no_wrap=True), "method", "error", "why not layerwise", **style)
    for row in rows:
        error = "" if row["error"] is None else f"{row['error']:.0e}"
        why = row["refused"].get("layerwise") or row["refused"].get("all") or ""
        found.add_row(row["family"], row["model"], row["method"].replace("_", " "), error, why)
    return found


def summary(rows: Rows, **style) -> Table:
    """How many models each method serves, by family."""
    methods = ("layerwise", "tangent", "per_example", "refused")
    found = Table("family", "models", *(method.replace("_", " ") for method in methods), "wrong", **style)
    for family in [*dict.fromkeys(row["family"] for row in rows), "all"]:
        here = [row for row in rows if family in (row["family"], "all")]
        counts = Counter(row["method"] for row in here)
        wrong = sum(not row["ok"] for row in here)
        found.add_row(family, *map(str, (len(here), *(counts[method] for method in methods), wrong)))
    return found
