"""How a run that was stopped and went on is judged: its bookkeeping to the bit, its numbers by the tolerance.

A training is made of a library's products, which promise no bits, and it magnifies each rounding. So such runs are
short and in float64: there no rounding grows to the goal, or decides which class or which example is highest.
"""

from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from fastrw.fsr import Relabel
from fastrw.ops.tolerance import SCORE_GOAL, relative_error


@contextmanager
def in_float64(*modules):
    """Inside it models are born in float64, the tasks that these modules make are of it, and nothing falls behind."""

    def doubled(make_task):
        def made(*args, **options):
            task = make_task(*args, **options)
            for name, value in vars(task).items():
                if isinstance(value, Tensor) and value.is_floating_point():
                    setattr(task, name, value.double())
            return task

        return made

    before = torch.get_default_dtype()
    with pytest.MonkeyPatch.context() as patch:
        for module in modules:
            patch.setattr(module, "make_task", doubled(module.make_task))
        patch.setattr(Tensor, "float", Tensor.double)
        patch.setitem(Relabel.__init__.__kwdefaults__, "dtype", torch.float64)
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


def same_state(got, expected) -> None:
    """Two trees of one form: floating point numbers agree within the goal of their dtype, all else is equal."""
    if isinstance(expected, dict):
        assert got.keys() == expected.keys()
        got, expected = [*got.values()], [*expected.values()]
    if isinstance(expected, (list, tuple)):
        assert len(got) == len(expected)
        numbers = [is_number(x) for x in expected]
        near([x for x, one in zip(got, numbers, strict=True) if one], [x for x in expected if is_number(x)])
        for x, y, one in zip(got, expected, numbers, strict=True):
            one or same_state(x, y)
    elif is_number(expected):
        near([got], [expected])
    elif isinstance(expected, Tensor):
        assert torch.equal(got, expected)
    else:
        assert got == expected


def is_number(x) -> bool:
    return isinstance(x, float) or (isinstance(x, Tensor) and x.is_floating_point())


def near(got, expected) -> None:
    """Judged together, as one vector: a part may be nothing but rounding, as is the bias before a BatchNorm."""
    if not expected:
        return
    got, expected = ([torch.as_tensor(x) for x in side] for side in (got, expected))
    assert [(x.dtype, x.shape) for x in got] == [(x.dtype, x.shape) for x in expected]
    goal = min(SCORE_GOAL[x.dtype] for x in expected)
    got, expected = (torch.cat([x.detach().double().flatten() for x in side]) for side in (got, expected))
    finite = expected.isfinite()
    assert str(got[~finite].tolist()) == str(expected[~finite].tolist())  # nan is nan
    assert relative_error(got[finite], expected[finite]) <= goal
