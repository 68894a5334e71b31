"""What real models are made of, where sizes or missing gradients could be taken for a mixed batch, or a small effect of
one example on another for rounding."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fastrw
from tests import oracle
from tests.on_graph import exact, joined, relative

N, M, WIDTH = 7, 4, 6


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def vectors(n, *shape):
    return torch.randn(n, *shape, WIDTH, dtype=torch.float64), torch.randint(0, 3, (n,))


def parameter(*shape):
    return nn.Parameter(torch.randn(*shape, dtype=torch.float64) / 2)


class Gate(torch.autograd.Function):
    """Its second input gets no gradient: it is a choice."""

    @staticmethod
    def forward(ctx, score, chosen):
        ctx.save_for_backward(score)
        return score * (chosen > 0)

    @staticmethod
    def backward(ctx, g):
        return g * ctx.saved_tensors[0].cos(), None


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.gate, self.last = (nn.Linear(WIDTH, k, dtype=torch.float64) for k in (WIDTH, WIDTH, 3))

    def forward(self, x):
        x = self.first(x).tanh()
        score = self.gate(x)
        return self.last(x + Gate.apply(score, score.softmax(-1).cumsum(-1)))


def test_an_input_that_gets_no_gradient_mixes_nothing():
    model = Gated()
    out = exact(*joined(model, vectors(N), vectors(M)))
    assert out.method == "layerwise"


class Experts(nn.Module):
    """Each row goes to one expert; the weights of all experts are one parameter. size: the rows of every expert."""

    def __init__(self, experts, size, room=None):
        super().__init__()
        self.weight, self.bias = parameter(experts, size, WIDTH), parameter(experts, size)
        self.log_rate, self.last = parameter(size), nn.Linear(size, 3, dtype=torch.float64)
        self.room = room

    def forward(self, x, chosen):
        found = x.new_zeros(len(x), self.weight.shape[1])
        for k in range(len(self.weight)):
            mine = (chosen == k).nonzero().squeeze(1)[: self.room]
            # the decay from its logarithm and each of these views has as many elements as the expert has rows
            rate = self.log_rate.exp().neg().exp()
            found = found.index_add(0, mine, F.linear(x[mine], self.weight[k], self.bias[k]) * rate)
        return self.last(found.tanh())


def routed(model, batch):
    x, target, chosen = batch
    return F.cross_entropy(model(x, chosen), target, reduction="none")


def to_experts(n, experts):
    return *vectors(n), torch.arange(n) % experts


@pytest.mark.parametrize("size", [2, 4, 6])
def test_weights_of_an_expert_mix_nothing_whatever_their_sizes(size):
    model = Experts(2, size)
    out = exact(*joined(model, to_experts(8, 2), to_experts(4, 2), routed))
    assert out.method == "layerwise"


class Positions(nn.Module):
    """A table of distances between positions, as many as an expert has rows."""

    def __init__(self, length):
        super().__init__()
        self.table = nn.Embedding(2 * length, 1, dtype=torch.float64)
        self.qkv, self.experts = nn.Linear(WIDTH, 3 * WIDTH, dtype=torch.float64), Experts(2, WIDTH)

    def forward(self, x, chosen):
        place = torch.arange(x.shape[1])
        bias = self.table(place[:, None] - place + x.shape[1]).squeeze(-1)
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.experts(((q @ k.mT + bias).softmax(-1) @ v)[:, 0], chosen)


def test_a_table_of_positions_mixes_nothing_whatever_its_size():
    model = Positions(4)
    batches = [(*vectors(n, 4), torch.arange(n) % 2) for n in (6, 2)]  # 4 rows for each expert
    out = exact(*joined(model, *batches, routed))
    assert out.method == "layerwise"


@pytest.mark.parametrize("quiet", [1.0, 1e-3])
def test_experts_whose_room_the_batch_shares(quiet):
    """The joined batch overflows where one alone does not, in some steps only, and changes little."""
    model = Experts(3, WIDTH, room=6)
    with torch.no_grad():
        model.last.weight.mul_(quiet)
    step = fastrw.Reweighter(model, losses_fn=routed)
    for first in (2, 3, 5, 6, 4, 6):  # the rows of expert 0
        chosen = torch.where(torch.arange(8) < first, 0, 1 + torch.arange(8) % 2)
        batch, val_batch = (*vectors(8), chosen), (*vectors(M), chosen[:M])
        s = oracle.scores(model, batch, val_batch, losses_fn=routed)
        assert relative(step.backward(batch, val_batch).scores, s) <= 1e-10
