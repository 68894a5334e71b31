"""Bad input of every op raises with the rule and what was got, in the same words in Python, C++ and fakes."""

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from tests.op_cases import CASES, need

RULES = [(op, changes, words) for op, case in CASES.items() for changes, words in case.rules]
TYPES = [(op, changes, words) for op, case in CASES.items() for changes, words in case.types]
IDS = [f"{op}: {words}" for op, _, words in RULES]


def broken(op, changes):
    case = CASES[op]
    return [changes.get(name, x) for name, x in zip(case.names, case.args(case.small), strict=True)]


def message(call, error=ValueError):
    with pytest.raises(error) as caught:
        call()
    return str(caught.value)


def compiled(op):
    case = CASES[op]
    need(op, "cpp", case.args(case.small))
    return lambda *args: getattr(torch.ops.fastrw, op)(*case.nest(*args))


@pytest.mark.parametrize(("op", "changes", "words"), RULES, ids=IDS)
def test_python_says_the_rule(op, changes, words):
    assert message(lambda: CASES[op].run(broken(op, changes))).startswith(f"fastrw.{op}: {words}")


@pytest.mark.parametrize(("op", "changes", "words"), RULES, ids=IDS)
def test_cpp_says_the_same(op, changes, words):
    if any(isinstance(x, Tensor) and x.device.type == "meta" for x in changes.values()):
        pytest.skip("torch sends a meta tensor to the fake: see test_the_fake_says_the_same")
    run = compiled(op)
    assert message(lambda: run(*broken(op, changes))).startswith(f"fastrw.{op}: {words}")


@pytest.mark.parametrize(("op", "changes", "words"), RULES, ids=IDS)
def test_the_fake_says_the_same(op, changes, words):
    run = compiled(op)
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert f"fastrw.{op}: {words}" in message(lambda: run(*broken(op, changes)))


@pytest.mark.parametrize(("op", "changes", "words"), TYPES, ids=[f"{op}: {words}" for op, _, words in TYPES])
def test_what_is_of_another_type_is_a_type_error(op, changes, words):
    assert message(lambda: CASES[op].run(broken(op, changes)), TypeError).startswith(f"fastrw.{op}: {words}")
