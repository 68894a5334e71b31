"""Real models of public packages: the method that their mathematics allows, exact in float64, and nothing moves."""

import copy
import warnings
from collections.abc import Mapping

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
    if case.kwargs or not isinstance(batch, Mapping):
        return oracle.losses(model, batch, **{k: v for k, v in case.kwargs.items() if k != "params"})
    n = len(batch["labels"])
    rows = ({k: v[i : i + 1] if len(v) == n else v for k, v in batch.items()} for i in range(n))
    return torch.stack([model(**row).loss for row in rows])


def truth(case, model, batch, val_batch):
    """Scores and weighted gradient by one autograd.grad per example, on copies of the model; the error that
    the coarsest dtype allows; the model after the training forward."""
    models = copy.deepcopy((model, model))
    random = torch.get_rng_state()
    params = [oracle.selected(m, case.kwargs.get("params")) for m in models]
    V = oracle.gradient(losses_of(case, models[0], val_batch).mean(), params[0])
    torch.set_rng_state(random)
    losses = losses_of(case, models[1], batch)
    each = [oracle.gradient(f, params[1]) for f in losses]
    s = torch.stack([sum((g * v).sum().double() for g, v in zip(one, V, strict=True)) for one in each])
    total = (oracle.weights(s).to(losses.dtype) * losses).sum()
    gradient = dict(zip(names(model), oracle.gradient(total, oracle.selected(models[1])), strict=True))
    torch.set_rng_state(random)
    return s, gradient, max(GOALS.get(kind, 0.0) for kind in dtypes(losses)), models[1]


def names(model):
    return [name for name, p in model.named_parameters() if p.requires_grad]


@pytest.mark.parametrize("case", CASES)
def test_a_real_model(case):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the packages' own
        model, batch, val_batch = case.make(torch.float64)
        s, gradient, goal, plain = truth(case, model, batch, val_batch)
    before = copy.deepcopy(model.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found, report = fastrw.gradient_dots(model, batch, val_batch, return_report=True, **case.kwargs)
    assert report.method in case.expect, report.refused
    assert relative(found.double(), s) <= goal
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    step = fastrw.Reweighter(model, **case.kwargs)
    for _ in range(2):
        model.load_state_dict(before)
        model.zero_grad()
        random = torch.get_rng_state()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            out = step.backward(batch, val_batch)
        torch.set_rng_state(random)
        assert out.method in case.expect and relative(out.scores.double(), s) <= goal
        got = {k: p.grad for k, p in model.named_parameters() if p.requires_grad}
        scale = sum(g.norm() ** 2 for g in gradient.values()).sqrt() or 1
        for k, g in gradient.items():
            mine = torch.zeros_like(g) if got[k] is None else got[k].to_dense()
            assert (mine - g).norm() / scale <= goal, k
    for (k, a), b in zip(model.state_dict().items(), plain.state_dict().values(), strict=True):
        assert relative(a.double(), b.double()) <= goal, k  # what one training forward moves, and no more
