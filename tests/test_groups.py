"""Small uses of a kind are scored and updated by one call: what they give is theirs alone, and as exact as apart."""

from collections import Counter

import oracle
import pytest
import torch
from torch import nn

import fastrw
from fastrw.nodes import registry
from fastrw.ops.tolerance import relative_error


class Net(nn.Module):
    """Uses of every kind that is joined, several of each; a tied layer, a frozen norm, an unselected head."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv1d(c, 6, 3, padding=1) for c in (2, 6, 6))
        self.norms = nn.ModuleList(nn.GroupNorm(2, 6) for _ in range(3))
        self.frozen, self.tied = nn.LayerNorm(5), nn.Linear(5, 5)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(30, 7), nn.LayerNorm(7), nn.Linear(7, 7, bias=False))
        self.head = nn.Linear(7, 3)
        self.frozen.weight.requires_grad_(False)

    def forward(self, x):
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(conv(x)).tanh()
        return self.head(self.layers(self.tied(self.frozen(self.tied(x)))))


@pytest.fixture
def net():
    torch.manual_seed(0)
    batches = [(torch.randn(n, 2, 5).double(), torch.randint(3, (n,))) for n in (6, 4)]
    return Net().double(), *batches


@pytest.mark.parametrize("params", [None, "last", "norms.*", "*.bias"])
def test_a_step_is_exact_and_every_gradient_has_its_own_memory(net, params):
    model, batch, val_batch = net
    step = fastrw.Reweighter(model, params=params)
    for accumulated in (1, 2):  # the second adds to what is there
        out = step.backward(batch, val_batch)
        losses = nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")
        wanted = [p for p in model.parameters() if p.requires_grad]
        truth = torch.autograd.grad((out.weights * losses).sum(), wanted)
        for p, g in zip(wanted, truth, strict=True):
            assert relative_error(p.grad, accumulated * g) <= 1e-10 and p.grad.stride() == p.stride()
    places = Counter(p.grad.untyped_storage().data_ptr() for p in wanted)
    assert max(places.values()) == 1
    assert all(p.grad.untyped_storage().nbytes() == p.grad.nbytes for p in wanted)
    if params is None:
        assert relative_error(out.scores, oracle.scores(*net)) <= 1e-10


def test_each_kind_takes_one_call(net, monkeypatch):
    made, kinds = registry.Groups.__init__, []

    def watched(self, *args):
        made(self, *args)
        kinds.extend(type(group).__name__ for group in self._groups)

    monkeypatch.setattr(registry.Groups, "__init__", watched)
    fastrw.Reweighter(net[0]).backward(*net[1:])
    assert Counter(kinds)["Combined"] == Counter(kinds)["Grouped"] == 1 and "Columns" in kinds


def test_an_example_that_is_not_finite_spoils_no_other_in_its_group(net):
    model, (x, y), val_batch = net
    clean = fastrw.meta_weights(model, (x[1:], y[1:]), val_batch, normalize=None)
    x[0] = torch.inf
    out = fastrw.Reweighter(model).backward((x, y), val_batch)
    assert out.weights[0] == 0 and relative_error(out.scores[1:], clean) <= 1e-10
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
