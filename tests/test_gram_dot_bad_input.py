"""Bad input raises with the rule and what was got, in the same words in Python, C++ and fakes."""

import pytest
import torch
from torch._subclasses import FakeTensorMode

from fastrw.ops import gram_dot
from tests.gram_dot_cases import matrices, need

NAMES = ("a", "g", "a_val", "g_val")
RULES = [  # what replaces which matrices of (4, 2, 3, 5), and the words
    ({"a": torch.ones(4)}, "a must be a matrix [r, p], got shape (4,)"),
    ({"g_val": torch.ones(2, 5, 1)}, "g_val must be a matrix [k, q], got shape (2, 5, 1)"),
    ({"g": torch.ones(3, 5)}, "a and g must have the same rows r, got 4 and 3"),
    ({"g_val": torch.ones(3, 5)}, "a_val and g_val must have the same rows k, got 2 and 3"),
    ({"a_val": torch.ones(2, 4)}, "a and a_val must have the same columns p, got 3 and 4"),
    ({"g_val": torch.ones(2, 4)}, "g and g_val must have the same columns q, got 5 and 4"),
    ({"g": torch.ones(4, 5).double()}, "g must have the dtype of a, got"),
    ({"a_val": torch.ones(2, 3, device="meta")}, "a_val must be on the device of a, got"),
    ({name: torch.ones(2, 2).int() for name in NAMES}, "the dtype must be float32, float64, bfloat16 or float16, got"),
]


def broken(changes):
    return [changes.get(name, x) for name, x in zip(NAMES, matrices(4, 2, 3, 5), strict=True)]


def message(call):
    with pytest.raises(ValueError) as caught:
        call()
    return str(caught.value)


@pytest.mark.parametrize(("changes", "words"), RULES, ids=[words for _, words in RULES])
def test_python_says_the_rule(changes, words):
    assert message(lambda: gram_dot(*broken(changes))).startswith(f"fastrw.gram_dot: {words}")


@pytest.mark.parametrize(("changes", "words"), RULES, ids=[words for _, words in RULES])
def test_cpp_says_the_same(changes, words):
    need("cpp", torch.ones(1, 1))
    if any(x.device.type == "meta" for x in changes.values()):
        pytest.skip("torch sends a meta tensor to the fake: see test_the_fake_says_the_same")
    assert message(lambda: torch.ops.fastrw.gram_dot(*broken(changes), 1.0)).startswith(f"fastrw.gram_dot: {words}")


@pytest.mark.parametrize(("changes", "words"), RULES, ids=[words for _, words in RULES])
def test_the_fake_says_the_same(changes, words):
    need("cpp", torch.ones(1, 1))
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert f"fastrw.gram_dot: {words}" in message(lambda: torch.ops.fastrw.gram_dot(*broken(changes), 1.0))


@pytest.mark.parametrize("position", range(4))
def test_what_is_no_tensor_is_a_type_error(position):
    tensors = matrices(4, 2, 3, 5)
    tensors[position] = tensors[position].tolist()
    with pytest.raises(TypeError, match=rf"fastrw.gram_dot: {NAMES[position]} must be a tensor, got list"):
        gram_dot(*tensors)


@pytest.mark.parametrize("bias", ["1", None, True, torch.ones(())], ids=repr)
def test_a_bias_that_is_no_number_is_a_type_error(bias):
    with pytest.raises(TypeError, match=rf"fastrw.gram_dot: bias must be a number, got {type(bias).__name__}"):
        gram_dot(*matrices(4, 2, 3, 5), bias)
