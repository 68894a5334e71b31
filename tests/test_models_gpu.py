"""The zoo on a GPU: exact against the oracle, which runs on the CPU in float64; and bfloat16 autocast there."""

import warnings

import pytest
import torch

import fastrw
from fastrw.ops.tolerance import SCORE_GOAL, bound, relative_error
from fastrw.testing import cases
from tests import oracle

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore:LSTM with projections", "ignore:Using padding='same'"),
]
CASES = [case for case in cases() if not case.draws]  # a GPU draws other numbers than the CPU


def score(case, dtype, device="cuda", **kwargs):
    model, batch, val_batch = case.make(dtype, device)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "fastrw: this model is scored by one backward pass per example")
        return fastrw.gradient_dots(model, batch, val_batch, **case.kwargs, **kwargs).cpu()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_exact(case):
    truth = oracle.scores(*case.make(torch.float64), **case.kwargs)
    assert relative_error(score(case, torch.float64), truth) <= SCORE_GOAL[torch.float64]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_exact_in_float32(case):
    truth = oracle.scores(*case.make(torch.float64), **case.kwargs)
    plain = relative_error(score(case, torch.float32, method="per_example"), truth)
    limit = max(SCORE_GOAL[torch.float32], bound(torch.float32, plain, 1))
    assert relative_error(score(case, torch.float32), truth) <= limit


@pytest.mark.parametrize("products", ["ieee", "tf32"])
@pytest.mark.parametrize("name", ("mlp", "lenet", "transformer_by_hand"))
def test_where_tf32_is_allowed(float32_settings, name, products):
    """In convolutions, as by torch's default, and in products: no guard refuses, and scores are as near to float64 as
    TF32 allows, which has as many bits as float16."""
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cuda.matmul.allow_tf32 = products == "tf32"
    (case,) = cases(name)
    truth = oracle.scores(*case.make(torch.float64), **case.kwargs)
    plain = relative_error(score(case, torch.float32, method="per_example"), truth)
    limit = bound(torch.float16, plain, 1) + 4 * 2**-10  # as in op_cases.allowed
    assert relative_error(score(case, torch.float32), truth) <= limit


@pytest.mark.parametrize("name", ("mlp", "lenet", "transformer_by_hand"))
def test_autocast(name):
    """As near to float64 as torch's own gradients in bfloat16 are, within a factor of two."""
    (case,) = cases(name)
    truth = oracle.scores(*case.make(torch.float64), **case.kwargs)
    with torch.autocast("cuda", torch.bfloat16):
        s, plain = score(case, torch.float32), score(case, torch.float32, method="per_example")
    assert relative_error(s, truth) <= bound(torch.bfloat16, relative_error(plain, truth), 1)
