"""Every case of the zoo, every method, float64 and float32: exact against the oracle, or refused; never wrong."""

import warnings
from functools import cache
from itertools import product

import pytest
import torch

import fastrw
from fastrw.ops.tolerance import SCORE_GOAL, bound, relative_error
from fastrw.testing import cases
from tests import oracle
from tests.tiers import covering

METHODS = ("auto", "layerwise", "tangent", "double_backward", "per_example")
DTYPES = (torch.float64, torch.float32)
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections", "ignore:Using padding='same'")


@cache
def truth(case, dtype):
    """The oracle's scores, in float64; in the dtype itself where random draws depend on it."""
    torch.manual_seed(0)
    return oracle.scores(*case.make(dtype if case.draws else torch.float64), **case.kwargs)


def weigh(case, dtype, method):
    model, batch, val_batch = case.make(dtype)
    torch.manual_seed(0)
    with warnings.catch_warnings():  # that auto fell back to one pass an example is said, and tested elsewhere
        warnings.filterwarnings("ignore", "fastrw: this model is scored by one backward pass per example")
        return fastrw.meta_weights(model, batch, val_batch, **case.kwargs, method=method, return_report=True)


# float64, which errors show in, by every method; float32 by one of them
NAMES = [case.name for case in cases()]
EVERY = [
    *product(NAMES, DTYPES[:1], METHODS),
    *covering(product(NAMES, DTYPES[1:], METHODS)),
]


@pytest.mark.parametrize(("name", "dtype", "method"), EVERY, ids=str)
def test_exact_or_refused(name, dtype, method):
    (case,) = cases(name)
    try:
        w, report = weigh(case, dtype, method)
    except fastrw.Refused:
        if method == "auto" or {method} == case.expect:
            raise
        return
    s = truth(case, dtype)
    assert report.scores.dtype == w.dtype == dtype and not report.scores.requires_grad and not w.requires_grad
    assert relative_error(report.scores, s) <= SCORE_GOAL[dtype], report.method
    assert relative_error(w, oracle.weights(report.scores)) <= bound(dtype, 0.0, len(w))
    assert report.method == method or method == "auto"
    assert method != "auto" or report.method in case.expect, report.refused


@pytest.mark.quick
@pytest.mark.parametrize("method", METHODS[1:])
def test_every_method_serves_a_plain_model(method):
    """A method that refused everything would pass the test above."""
    (case,) = cases("mlp")
    assert weigh(case, torch.float64, method)[1].method == method


@pytest.mark.quick
@pytest.mark.parametrize("method", ("tangent", "double_backward", "per_example"))
def test_methods_for_coupled_examples_serve_batchnorm(method):
    (case,) = cases("resnet_batchnorm_training")
    assert weigh(case, torch.float64, method)[1].method == method


def test_the_last_resort_is_announced_once():
    (case,) = cases("parameter_hook_scales")
    model, batch, val_batch = case.make()
    with pytest.warns(UserWarning, match="one backward pass per example"):
        fastrw.meta_weights(model, batch, val_batch)
    fastrw.meta_weights(model, batch, val_batch)


def test_parameters_may_be_given_themselves():
    (case,) = cases("mlp")
    model, batch, val_batch = case.make(torch.float64)
    for params, names in (([model[0].weight, model[4].bias], ["0.weight", "4.bias"]), (model[2].parameters(), ["2.*"])):
        s = fastrw.gradient_dots(model, batch, val_batch, params=params)
        assert relative_error(s, oracle.scores(model, batch, val_batch, params=names)) <= SCORE_GOAL[torch.float64]


def test_gradient_dots_are_the_raw_scores():
    (case,) = cases("lenet")
    s, report = fastrw.gradient_dots(*case.make(), return_report=True)
    assert torch.equal(s, report.scores) and (s < 0).any()


def test_losses_on_the_report():
    (case,) = cases("transformer_by_hand")
    model, batch, val_batch = case.make(torch.float64)
    _, report = fastrw.meta_weights(model, batch, val_batch, return_report=True)
    assert not report.losses.requires_grad
    assert relative_error(report.losses, oracle.losses(model, batch)) <= SCORE_GOAL[torch.float64]
