"""The first link of the chain of trust: the oracle against a literal Algorithm 1, where torch differentiates twice.

Two lines of thought that share no code but the losses: n backward passes and dot products; a derivative by epsilon.
"""

import pytest
import torch

from fastrw.ops.tolerance import SCORE_GOAL, relative_error
from fastrw.testing import cases
from tests import oracle

# Here torch's own second derivative is missing or wrong, or a parameter's hook sees one step where the oracle has two.
NO_SECOND_DERIVATIVE = {
    "bare_distances", "ctc_loss", "custom_function_once", "embedding_by_frequency",
    "embedding_bag_sum", "embedding_bag_mean", "embedding_bag_max", "embedding_bag_with_offsets",
    "parameter_hook_scales", "parameter_hook_masks",
}  # fmt: skip
TWICE = [case for case in cases() if case.name not in NO_SECOND_DERIVATIVE]


@pytest.mark.filterwarnings("ignore:LSTM with projections", "ignore:Using padding='same'")
@pytest.mark.parametrize("case", TWICE, ids=lambda case: case.name)
def test_oracle_agrees_with_algorithm_1(case):
    model, batch, val_batch = case.make(torch.float64)
    torch.manual_seed(0)
    s = oracle.scores(model, batch, val_batch, **case.kwargs)
    other = oracle.algorithm_1(model, batch, val_batch, **case.kwargs)
    assert relative_error(other, s) <= SCORE_GOAL[torch.float64]
    assert s.isfinite().all() and s.abs().max() > 0


def test_oracle_by_hand():
    """f(w, x) = w x: grad f_i = x_i, V = mean of the validation x, so s_i = x_i mean(x_val)."""
    model = torch.nn.Linear(1, 1, bias=False).double()
    x, x_val = torch.tensor([[1.0], [-2.0], [3.0]]).double(), torch.tensor([[4.0], [6.0]]).double()
    s = oracle.scores(model, (x, None), (x_val, None), loss_fn=lambda output, target: output.squeeze(1))
    assert s.tolist() == [5.0, -10.0, 15.0]
    assert oracle.weights(s).tolist() == [0.25, 0.0, 0.75]


def test_oracle_leaves_the_model_alone():
    (case,) = cases("resnet_batchnorm_training")
    model, batch, val_batch = case.make(torch.float64)
    before, rng = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    oracle.scores(model, batch, val_batch)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(rng, torch.get_rng_state())
