"""The code that torch's own compiler, Inductor, makes of a step gives the eager numbers, for an example that is not
finite too. Other tests of compiled steps take a compiler that makes no code. It takes over ten seconds where Inductor
has nothing in its cache on the disk: a C++ compiler runs."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastrw.api import compiled_step
from fastrw.ops.tolerance import SCORE_GOAL, relative_error
from tests.test_compiled_step import gradient, pairs

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # Inductor of torch 2.11


@pytest.fixture(autouse=True)
def only_its_code(monkeypatch):
    """The graph as it was recorded never runs in its place, though it may be faster."""
    from torch._inductor import config

    torch._dynamo.reset()
    monkeypatch.setattr(compiled_step, "fastest", lambda functions, tensors: functions[0])
    with config.patch(compile_threads=1):  # no processes that import torch first
        try:
            torch.compile(torch.neg)(torch.ones(3))
        except Exception as error:
            if not any(name in str(error) for name in ("InvalidCxxCompiler", "CppCompileError")):
                raise
            pytest.skip(f"no C++ compiler works here: {error}")
        yield


def weighted(model, batch):
    x, y, by = batch
    return F.cross_entropy(model(x), y, reduction="none") * by


def alike(x, y):
    assert torch.equal(x.isfinite(), y.isfinite())
    assert relative_error(x.nan_to_num(0, 0, 0), y.nan_to_num(0, 0, 0)) <= SCORE_GOAL[torch.float64]


@pytest.mark.parametrize("apart", [False, True], ids=["joined", "apart"])
def test_its_code_gives_the_eager_numbers_and_masks_what_is_not_finite(apart):
    torch.manual_seed(0)
    norm = [nn.BatchNorm1d(6)] if apart else []
    model = nn.Sequential(nn.Linear(4, 6), *norm, nn.ReLU(), nn.Linear(6, 3)).double()
    batch = torch.randn(5, 4).double(), torch.arange(5) % 3, torch.ones(5).double()
    val_batch = torch.randn(3, 4).double(), torch.arange(3), torch.ones(3).double()
    values = [1.0, 1.0, 1.0, float("nan"), float("inf"), 2.0]  # by step: what the loss of one example is multiplied by

    def prepare(i, model):
        batch[2][1] = values[i]

    compiled = []
    for a, b, mine, other in pairs(model, batch, val_batch, 6, "inductor", prepare, losses_fn=weighted, recheck=False):
        assert (a.method, a.update) == (b.method, b.update)
        for x, y in ((a.scores, b.scores), (a.weights, b.weights), (a.losses, b.losses), (a.val_loss, b.val_loss)):
            alike(x, y)
        alike(gradient(mine), gradient(other))
        assert gradient(mine).isfinite().all()
        compiled.append(a.compilation.by)
    # Through BatchNorm one example spoils the others' gradients: the step is made anew, eagerly.
    assert compiled == ["", *["inductor"] * 2, *([""] * 3 if apart else ["inductor"] * 3)]
