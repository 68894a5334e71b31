"""grouped_gram_dot takes lists, one item a use: what is no list, or has another number of uses, is refused."""

import pytest
import torch

from fastrw.ops import extension, gram_dot, grouped_gram_dot
from fastrw.ops.tolerance import bound, relative_error
from tests.op_cases import widened

NAMES = ("a", "g", "a_val", "g_val", "bias")


def arguments():
    one = [torch.ones(4, 3), torch.ones(4, 2), torch.ones(5, 3), torch.ones(5, 2), 1.0]
    return [[x, x] for x in one]


@pytest.mark.parametrize("position", range(5))
def test_what_is_no_list_is_a_type_error(position):
    args = arguments()
    args[position] = args[position][0]
    words = f"fastrw.grouped_gram_dot: {NAMES[position]} must be a list, one item a use"
    with pytest.raises(TypeError, match=words):
        grouped_gram_dot(*args, 4)


@pytest.mark.parametrize("run", ["word", "bare op"])
@pytest.mark.parametrize("position", range(1, 5))
def test_every_list_has_as_many_uses(run, position):
    if run == "bare op" and extension.reason is not None:
        pytest.skip(f"needs the compiled extension: {extension.reason}")
    op = grouped_gram_dot if run == "word" else torch.ops.fastrw.grouped_gram_dot
    args = arguments()
    args[position] = args[position][:1]
    words = f"fastrw.grouped_gram_dot: {NAMES[position]} must have as many uses as a, got 1 and 2"
    with pytest.raises(ValueError, match=words):
        op(*args, 4)


def test_no_use_at_all_is_refused():
    with pytest.raises(ValueError, match=r"fastrw.grouped_gram_dot: a must have at least one use, got none"):
        grouped_gram_dot(*[[]] * 5, 4)


@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_it_is_gram_dot_of_each_use_summed_by_example(backend):
    torch.manual_seed(0)
    uses = [[torch.randn(n, c) for n, c in ((6, 5), (6, 2), (4, 5), (4, 2))] + [1.0] for _ in range(3)]
    s = grouped_gram_dot(*map(list, zip(*uses, strict=True)), 3, backend=backend)
    alone, truth = (sum(gram_dot(*use).view(3, 2).sum(1) for use in each) for each in (uses, map(widened, uses)))
    assert relative_error(s, truth) <= bound(torch.float32, relative_error(alone, truth), 3 * 4 * (5 + 2))
