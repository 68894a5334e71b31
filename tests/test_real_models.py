"""Real models of public packages: the method that their mathematics allows, exact in float64, and nothing moves."""

import copy
import random
import sys
import warnings
from collections.abc import Mapping
from contextlib import contextmanager

import pytest
import torch

import fastrw
from fastrw.graph.walk import dtypes
from fastrw.ops.tolerance import SCORE_GOAL
from fastrw.testing import real
from tests import oracle
from tests.on_graph import relative

GOALS = SCORE_GOAL | {torch.float16: 1e-2, torch.bfloat16: 1e-1}  # float32 within a float64 model counts
CASES = [
    pytest.param(case, id=f"{family}-{case.name}")
    for family in real.FAMILIES
    if not real.missing(family)
    for case in real.cases(family)
]


def losses_of(case, model, batch):
    """f_i by the public contract; of a mapping with labels, each by the model's own loss of that example alone."""
    if case.kwargs.keys() - {"params"} or not isinstance(batch, Mapping):
        return oracle.losses(model, batch, **{k: v for k, v in case.kwargs.items() if k != "params"})
    n = len(batch["labels"])
    if batch["labels"].ndim == 1 and not batch["labels"].is_floating_point():
        return oracle.losses(model, batch)  # a BatchNorm takes no example alone
    rows = ({k: v[i : i + 1] if len(v) == n else v for k, v in batch.items()} for i in range(n))
    return torch.cat([model(**row).loss.reshape(1) for row in rows])


@contextmanager
def draws_put_back():
    """Another forward draws the same random numbers."""
    numpy = sys.modules["numpy"].random
    states = torch.get_rng_state(), random.getstate(), numpy.get_state()
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        numpy.set_state(states[2])


def truth(case, batch, val_batch):
    """Scores and weighted gradient by one autograd.grad per example, on models of their own (a copy may share closures
    with its original); the error that the coarsest dtype allows; the model after the training forward."""
    models = [case.make(torch.float64)[0] for _ in range(2)]
    params = [oracle.selected(m, case.kwargs.get("params")) for m in models]
    with torch.compiler.set_stance("force_eager"):  # the backward of compiled code runs only once
        with draws_put_back():
            V = oracle.gradient(losses_of(case, models[0], val_batch).mean(), params[0])
        with draws_put_back():
            losses = losses_of(case, models[1], batch)
    each = [oracle.gradient(f, params[1]) for f in losses]
    s = torch.stack([sum((g * v).sum().double() for g, v in zip(one, V, strict=True)) for one in each])
    total = (oracle.weights(s).to(losses.dtype) * losses).sum()
    gradient = dict(zip(names(models[1]), oracle.gradient(total, oracle.selected(models[1])), strict=True))
    return s, gradient, max(GOALS.get(kind, 0.0) for kind in dtypes(losses)), models[1]


def names(model):
    return [name for name, p in model.named_parameters() if p.requires_grad]


def unmoved(model, before):
    return all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("case", CASES)
def test_a_real_model(case):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the packages' own
        model, batch, val_batch = case.make(torch.float64)
        before = copy.deepcopy(model.state_dict())
        if not case.expect:
            with pytest.raises(fastrw.Refused, match="nested backward"):
                fastrw.gradient_dots(model, batch, val_batch, **case.kwargs)
            assert unmoved(model, before)
            return
        s, gradient, goal, plain = truth(case, batch, val_batch)
        found, report = fastrw.gradient_dots(model, batch, val_batch, return_report=True, **case.kwargs)
    assert s.isfinite().all() and s.any()  # else they show nothing
    assert report.method in case.expect, report.refused
    assert relative(found.double(), s) <= goal
    assert unmoved(model, before)
    step = fastrw.Reweighter(model, **case.kwargs)
    for first in (True, False):
        model.load_state_dict(before)
        model.zero_grad()
        with warnings.catch_warnings(), draws_put_back():
            warnings.simplefilter("ignore")
            out = step.backward(batch, val_batch)
        assert out.method in case.expect and relative(out.scores.double(), s) <= goal
        got = {k: p.grad for k, p in model.named_parameters() if p.requires_grad}
        scale = sum(g.norm() ** 2 for g in gradient.values()).sqrt() or 1
        for k, g in gradient.items():
            mine = torch.zeros_like(g) if got[k] is None else got[k].to_dense()
            assert (mine - g).norm() / scale <= goal, k
        for (k, a), b in zip(model.state_dict().items(), plain.state_dict().values(), strict=True):
            assert not first or relative(a.double(), b.double()) <= goal, k  # what one training forward moves
