"""The rule itself: errors are relative in the norm, bounds follow the dtype that sums are kept in."""

import math

import pytest
import torch

from fastrw.ops.tolerance import SCORE_GOAL, bound, relative_error


def test_relative_error_is_the_ratio_of_norms():
    assert relative_error(torch.tensor([3.0, 4.5]), torch.tensor([3.0, 4.0])) == 0.1


def test_relative_error_is_taken_in_float64():
    truth = torch.ones(3, dtype=torch.float64)
    assert relative_error(truth + 1e-12, truth) == pytest.approx(1e-12, rel=1e-3)


def test_relative_error_to_zero_is_the_norm():
    assert relative_error(torch.tensor([3.0, 4.0]), torch.zeros(2)) == 5.0
    assert relative_error(torch.zeros(0), torch.zeros(0)) == 0.0


def test_nan_passes_no_bound():
    error = relative_error(torch.tensor([1.0, float("nan")]), torch.ones(2))
    assert math.isnan(error)
    assert not error <= bound(torch.float32, 1.0, 10**9)


def test_relative_error_refuses_to_broadcast():
    with pytest.raises(ValueError, match=r"fastrw.relative_error: .* \(2, 1\), got \(2,\)"):
        relative_error(torch.ones(2), torch.ones(2, 1))


def test_bound_is_twice_the_plain_error_and_a_random_walk():
    assert bound(torch.float32, 1e-6, 0) == 2e-6
    assert bound(torch.float64, 0.0, 100) == 10 * torch.finfo(torch.float64).eps


def test_goals_are_reachable_and_strict():
    for dtype, goal in SCORE_GOAL.items():
        assert bound(dtype, 0.0, 1000) < goal < math.sqrt(torch.finfo(dtype).eps)
