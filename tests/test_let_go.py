"""Tangents are let go after their last read, never before."""

import weakref

import oracle
import pytest
import torch
from torch import nn

import fastrw
from fastrw.nodes import registry
from fastrw.ops.tolerance import SCORE_GOAL, relative_error


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


def test_few_tangents_live_at_a_time(deep, monkeypatch):
    alive, most = [], 0
    rule = registry.tangent

    def watched(*args):
        nonlocal most
        most = max(most, sum(ref() is not None for ref in alive))
        found = rule(*args)
        alive.extend(weakref.ref(t) for t in found.values())
        return found

    monkeypatch.setattr(registry, "tangent", watched)
    fastrw.gradient_dots(*deep, method="tangent")
    assert len(alive) > 15 and most <= 4


def test_a_tangent_read_later_than_before_is_not_missed(deep):
    for skip in (False, True, False, True, True):
        deep[0].skip = skip
        s = fastrw.gradient_dots(*deep, method="tangent")
        assert relative_error(s, oracle.scores(*deep)) <= SCORE_GOAL[torch.float64]
