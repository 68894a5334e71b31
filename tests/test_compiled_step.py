"""`Reweighter(compile=True)`: the step as one graph gives what the eager step gives, or runs eagerly and says why.

The compiler here is mostly "aot_eager", which does all that "inductor" does but generate code."""

import copy
import warnings

import pytest
import torch

import fastrw
from fastrw.ops.tolerance import SCORE_GOAL, relative_error
from fastrw.testing import cases
from tests import oracle
from tests.tiers import some

pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),  # of the tracer
    pytest.mark.filterwarnings("ignore:LSTM with projections", "ignore:Using padding='same'"),
]

# What Dynamo cannot trace, or the engine has to measure anew in each step.
EAGER = {
    "bare_one_hot", "bare_outer", "batchnorm_cumulative", "coupled_pair", "coupled_by_data", "rows_of_different_counts",
    "embedding_sparse", "attribute_outputs", "ctc_loss", "data_dependent_branch", "weight_of_every_row", "checkpointed",
    "checkpointed_twice", "data_dependent_depth", "gradient_inside", "activation_hook", "scatter_rows",
    "checkpointed_dropout", "custom_jvp_that_misleads", "parameter_hook_scales", "parameter_hook_masks",
    "parameter_hook_watches", "module_backward_hook", "lstm_*", "gru_*", "rnn_*", "linear_on_packed_rows",
    "mixture_of_experts_top2", "spectral_norm_training", "weight_norm_by_pre_hook", "weights_stacked",
}  # fmt: skip
NAMES = [case.name for case in cases()]
EAGER_NAMES = {case.name for pattern in EAGER for case in cases(pattern)}


@pytest.fixture(autouse=True)
def forgotten():
    torch._dynamo.reset()


def gradient(model):
    return torch.cat([p.grad.to_dense().flatten() for p in model.parameters() if p.grad is not None])


def pairs(model, batch, val_batch, steps, compile="aot_eager", prepare=lambda i, model: None, **kwargs):
    """(compiled step, eager step, both models) in each of these steps of two copies of a model."""
    models = model, copy.deepcopy(model)
    ours = [fastrw.Reweighter(models[0], compile=compile, **kwargs), fastrw.Reweighter(models[1], **kwargs)]
    for i in range(steps):
        found = []
        for one, m in zip(ours, models, strict=True):
            prepare(i, m)
            m.zero_grad()
            torch.manual_seed(i)
            found.append(one.backward(batch, val_batch))
        yield *found, *models


def same(a, b, mine, other, limit=1e-10):
    assert (a.method, a.update) == (b.method, b.update)
    for x, y in ((a.scores, b.scores), (a.weights, b.weights), (a.losses, b.losses), (a.val_loss, b.val_loss)):
        assert y is None or relative_error(x, y) <= limit
    assert [p.grad is None for p in mine.parameters()] == [p.grad is None for p in other.parameters()]
    assert relative_error(gradient(mine), gradient(other)) <= limit
    for x, y in zip(mine.buffers(), other.buffers(), strict=True):
        assert relative_error(x.double(), y.double()) <= limit


@pytest.mark.parametrize("name", some(NAMES, 32))
def test_the_zoo(name):
    (case,) = cases(name)
    model, batch, val_batch = case.make(torch.float64)
    before = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "fastrw: this model is scored by one backward pass per example")
        for a, b, mine, other in pairs(model, batch, val_batch, 3, prepare=lambda i, m: before.append(copy.deepcopy(m)),
                                       **case.kwargs, recheck=False):  # fmt: skip
            if not case.draws:
                same(a, b, mine, other)
    if not case.draws:
        s = oracle.scores(before[-1], batch, val_batch, **case.kwargs)
        assert relative_error(a.scores, s) <= SCORE_GOAL[torch.float64]
    assert a.compilation.used == (name not in EAGER_NAMES), a.compilation.why
    assert a.compilation.used or a.compilation.why.strip()
