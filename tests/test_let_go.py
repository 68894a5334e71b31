"""The tangent method lets each tangent go after its last read, as the run before taught it: never too early."""

import oracle
import pytest
import torch
from torch import nn

import fastrw
from fastrw.isolation import State
from fastrw.methods import tangent
from fastrw.methods.common import validation_gradient
from fastrw.problem import Problem
from fastrw.tolerance import SCORE_GOAL, relative_error


class Deep(nn.Module):
    """BatchNorm couples the examples; `skip` reads an early activation once more at the end."""

    def __init__(self, depth=6):
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5), nn.ReLU()) for _ in range(depth))
        self.skip = False

    def forward(self, x):
        first = h = self.layers[0](x)
        for layer in self.layers[1:]:
            h = layer(h)
        return h + first if self.skip else h


@pytest.fixture
def deep():
    torch.manual_seed(0)
    batches = [(torch.randn(n, 5, dtype=torch.float64), torch.randint(0, 5, (n,))) for n in (9, 4)]
    return Deep().double(), *batches


def living(deep) -> int:
    """How many tangents of one run are still held at its end."""
    problem = Problem(*deep)
    known = tangent._last_reads.get(deep[0], {})
    mode = tangent.Tangents(validation_gradient(problem, State(problem)), known.get(problem.key))
    problem.losses(problem.batch, mode)
    return sum(entry.tangent is not None for entry in mode._born) - len(problem.params)


def test_the_second_run_holds_few_tangents(deep):
    before = living(deep)
    fastrw.gradient_dots(*deep, method="tangent")
    assert before > 15 and living(deep) <= 2


def test_a_tangent_read_later_than_before_is_not_missed(deep):
    for skip in (False, True, False, True, True):
        deep[0].skip = skip
        s = fastrw.gradient_dots(*deep, method="tangent")
        assert relative_error(s, oracle.scores(*deep)) <= SCORE_GOAL[torch.float64]
