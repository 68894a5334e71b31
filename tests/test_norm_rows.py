"""Norms: examples do not meet; x is not read where only the shift has a direction; views are read in place."""

import pytest
import torch

from fastrw.ops import norm_dot, norm_instance
from fastrw.ops.self_test import as_tuple
from fastrw.ops.tolerance import bound, relative_error
from tests.op_cases import CASES, SERVED, need, same, widened
from tests.tiers import covering

EACH = [(op, backend, dtype) for op, backend, dtype in SERVED if op in ("norm_dot", "norm_instance")]
LAYOUTS = ("plain", "channels last")
DOTS = [(backend, dtype) for op, backend, dtype in EACH if op == "norm_dot"]


@pytest.mark.parametrize(
    ("op", "backend", "dtype", "fixed", "layout"),
    covering(((*row, fixed, layout) for fixed in ("", "S") for layout in LAYOUTS for row in EACH), 2),
    ids=str,
)
def test_one_bad_example_leaves_the_others_unharmed(op, backend, dtype, fixed, layout):
    args = CASES[op].args((7, 37, 9, 3, fixed), dtype, layout)
    need(op, backend, args)
    clean, truths = as_tuple(CASES[op].run(args, backend)), as_tuple(CASES[op].reference(*widened(args)))
    others = torch.arange(7) != 2
    for value in (float("nan"), float("inf")):
        args[0][2, 36, 26] = value
        for each in zip(as_tuple(CASES[op].run(args, backend)), clean, truths, strict=True):
            assert same(*(x[others] for x in each), backend, 4 * 37 * 27)
        assert not as_tuple(CASES[op].run(args, backend))[0][2].isfinite().all()


@pytest.mark.parametrize(("backend", "dtype"), DOTS, ids=str)
def test_without_a_direction_of_gamma_x_is_not_read(backend, dtype):
    args = CASES["norm_dot"].args((5, 37, 9, 3, "S", True, True, False), dtype)
    need("norm_dot", backend, args)
    expected = norm_dot(*args, backend=backend)
    args[0].fill_(float("nan"))
    if backend != "reference":
        assert torch.equal(norm_dot(*args, backend=backend), expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("op", "backend", "dtype"), EACH, ids=str)
def test_a_view_into_other_memory_gives_the_same(op, backend, dtype, layout):
    args = CASES[op].args((4, 49, 4, 4, "S"), dtype, layout)
    need(op, backend, args)
    expected, truths = as_tuple(CASES[op].run(args, backend)), as_tuple(CASES[op].reference(*widened(args)))
    for i in (0, 1):
        dense = args[i] if layout == "plain" else args[i].transpose(1, 2)
        around = torch.full((6, *dense.shape[1:]), float("nan"), dtype=dtype)
        view = around[1:-1].copy_(dense)
        args[i] = view if layout == "plain" else view.transpose(1, 2)
    for results in zip(as_tuple(CASES[op].run(args, backend)), expected, truths, strict=True):
        assert same(*results, backend, 4 * 49 * 16)


@pytest.mark.parametrize(
    ("op", "backend", "dtype", "varies", "layout"),
    covering(((*row, varies, layout) for varies in (2, 3) for layout in LAYOUTS for row in EACH), 2),
    ids=str,
)
def test_one_statistic_may_vary_where_the_other_does_not(op, backend, dtype, varies, layout):
    args = CASES[op].args((3, 35, 4, 2, "S", True, False), dtype, layout)
    need(op, backend, args)
    args[varies] = CASES[op].args((3, 35, 4, 2, "", True, False), dtype, layout)[varies]
    truths, plains = as_tuple(CASES[op].reference(*widened(args))), as_tuple(CASES[op].reference(*args))
    for got, truth, plain in zip(as_tuple(CASES[op].run(args, backend)), truths, plains, strict=True):
        assert relative_error(got, truth) <= bound(got.dtype, relative_error(plain, truth), 4 * 35 * 8)


def test_instance_sums_give_the_dot():
    args = CASES["norm_dot"].args((4, 30, 5, 2, "S"), torch.float64)
    gamma, beta = norm_instance(*args[:4])
    s = norm_dot(*args)
    assert relative_error(gamma @ args[4] + beta @ args[5], s) <= bound(torch.float64, 0.0, 4 * 30 * 10)
