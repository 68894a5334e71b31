"""From scores to weights: Eq. 8-9 with delta, the long-tail shift, raw scores; and the scaling of sum and mean."""

import pytest
import torch
from torch import nn

import fastrw
from fastrw.engine.weights import rectify, shift
from fastrw.ops.tolerance import SCORE_GOAL, bound, relative_error
from tests import oracle


def line(x, x_val, **kwargs):
    """f(theta, x) = theta x, so that s_i = x_i mean(x_val) and nothing else."""
    model = nn.Linear(1, 1, bias=False).double()
    column = lambda values: (torch.tensor(values).double()[:, None], None)  # noqa: E731
    loss_fn = lambda output, target: output.squeeze(1)  # noqa: E731
    return fastrw.meta_weights(model, column(x), column(x_val), loss_fn=loss_fn, **kwargs).tolist()


def test_rectified():
    assert line([1.0, -2.0, 3.0], [4.0, 6.0]) == [0.25, 0.0, 0.75]


def test_rectified_with_delta():
    """All scores at most 0: delta = 1 and every weight is 0, not nan."""
    assert line([-1.0, -2.0, 0.0], [4.0, 6.0]) == [0.0, 0.0, 0.0]


def test_raw():
    assert line([1.0, -2.0, 3.0], [4.0, 6.0], normalize=None) == [5.0, -10.0, 15.0]


def test_shifted():
    """s - min s + 1/n over its sum: s = [1, -1], 1/n = 0.5, so [2.5, 0.5] / 3."""
    w = torch.tensor(line([1.0, -1.0], [0.5, 1.5], normalize="shift"))
    assert relative_error(w, torch.tensor([2.5, 0.5]) / 3) <= bound(torch.float32, 0.0, 2)


def test_validation_counts_by_its_mean():
    """The same validation examples twice over change nothing."""
    once, twice = (
        line([1.0, -2.0, 3.0], [4.0, 6.0], normalize=None),
        line([1.0, -2.0, 3.0], [4.0, 6.0] * 2, normalize=None),
    )
    assert once == twice


def test_training_counts_by_its_sum():
    """The same training examples twice over leave each score as it was: g is the gradient of the sum, no mean."""
    once, twice = line([1.0, -2.0, 3.0], [5.0], normalize=None), line([1.0, -2.0, 3.0] * 2, [5.0], normalize=None)
    assert twice == once * 2


@pytest.mark.parametrize("method", ("layerwise", "tangent", "double_backward", "per_example"))
def test_sum_not_mean_on_layers(method):
    """Through layers, with n != m, a mean anywhere would be off by a factor."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    batch, val_batch = ((torch.randn(n, 3).double(), torch.arange(n) % 2) for n in (7, 3))
    s = fastrw.gradient_dots(model, batch, val_batch, method=method)
    alone = [
        fastrw.gradient_dots(model, (batch[0][i : i + 1], batch[1][i : i + 1]), val_batch, method=method)
        for i in range(7)
    ]
    assert relative_error(s, torch.cat(alone)) <= SCORE_GOAL[torch.float64]
    assert relative_error(s, oracle.scores(model, batch, val_batch)) <= SCORE_GOAL[torch.float64]


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
@pytest.mark.parametrize("normalizer", (rectify, shift))
@pytest.mark.parametrize("scale", (1e-30, 1.0, 1e30))
def test_weights_of_any_scale(normalizer, scale, dtype):
    torch.manual_seed(0)
    w = normalizer(torch.randn(50, dtype=dtype) * scale)
    assert w.dtype == dtype and (w >= 0).all() and w.isfinite().all()
    assert relative_error(w.sum()[None], torch.ones(1)) <= bound(dtype, 0.0, 50)


@pytest.mark.parametrize("bad", (float("nan"), float("inf"), float("-inf")))
@pytest.mark.parametrize("normalizer", (rectify, shift))
def test_a_score_that_is_not_finite_weighs_nothing(normalizer, bad):
    s = torch.tensor([1.0, bad, 2.0, -1.0])
    w = normalizer(s)
    assert w[1] == 0 and w.isfinite().all() and w[0] > 0 and w[2] > w[0]


@pytest.mark.parametrize("normalizer", (rectify, shift))
def test_no_finite_score_at_all(normalizer):
    assert normalizer(torch.full((3,), float("nan"))).tolist() == [0.0, 0.0, 0.0]
