"""What the forwards of people's models move beside their outputs: all of it is put back, or moves once."""

import copy

import pytest
import torch
import torch.ao.quantization as quantization
import torch.nn.functional as F
from torch import nn

import fastrw
from tests.on_graph import relative
from tests.test_field import rows

pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated"),
    pytest.mark.filterwarnings("ignore:_aminmax is deprecated", "ignore:Please use quant_min"),
]


class Bank(nn.Module):
    """A memory whose place is a plain number, and a temperature that cools with every call."""

    def __init__(self):
        super().__init__()
        self.net, self.place, self.calls = nn.Linear(8, 4), 0, 0
        self.register_buffer("bank", torch.randn(32, 4))

    def forward(self, x):
        z = F.normalize(self.net(x), dim=-1)
        i = (torch.arange(len(x)) + self.place) % 32
        self.bank[i] = z.detach()
        self.place, self.calls = (self.place + len(x)) % 32, self.calls + 1
        return torch.cat([(z * z).sum(1, keepdim=True), z @ self.bank.clone().T], 1) / (0.1 + 0.05 * self.calls)


class Momentum(nn.Module):
    """The key encoder follows the query encoder, in the forward."""

    def __init__(self):
        super().__init__()
        self.q, self.k = nn.Linear(8, 6), nn.Linear(8, 6).requires_grad_(False)

    def forward(self, x):
        for key, query in zip(self.k.parameters(), self.q.parameters(), strict=True):
            key.data.mul_(0.9).add_(query.data, alpha=0.1)
        return (self.q(x) @ self.k(x).detach().T)[:, :3]


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.o, self.gen = nn.Linear(8, 6), nn.Linear(6, 3), torch.Generator().manual_seed(3)
        self.h = torch.zeros(1, 6, dtype=torch.double)

    def forward(self, x):
        h = self.a(x).tanh() + self.h
        self.h = h.detach().mean(0, keepdim=True)
        return self.o(h * (torch.rand(h.shape, generator=self.gen) < 0.7))


class Expanded(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("p", torch.zeros(1).expand(6))
        self.register_buffer("A", torch.eye(8).to_sparse())
        self.a, self.n, self.o = nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)

    def forward(self, x):
        return self.o(self.n(self.a(torch.sparse.mm(self.A, x.t()).t()) + self.p))


def private(model):
    """All that a module of these holds beside parameters."""
    held = [{k: v for k, v in vars(m).items() if isinstance(v, int | torch.Tensor)} for m in model.modules()]
    held += [m.gen.get_state() for m in model.modules() if hasattr(m, "gen")]
    return copy.deepcopy([held, {k: v.to_dense() for k, v in model.state_dict().items()}])


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return all(map(same, a, b)) if isinstance(a, list) else a == b


@pytest.mark.parametrize("make", [Bank, Momentum, Noisy, Expanded], ids=lambda make: make.__name__)
def test_state_is_put_back_whatever_it_is(make):
    torch.manual_seed(0)
    model = make().double()
    classes = 33 if make is Bank else 3
    batch, val_batch = ((x, y % classes) for x, y in (rows(7), rows(4)))

    def losses(model, batch):
        return F.cross_entropy(model(batch[0]), batch[1], reduction="none")

    for _ in range(3):
        plain, val = copy.deepcopy(model), copy.deepcopy(model)
        if make is Noisy:
            plain.gen, val.gen = (torch.Generator() for _ in range(2))
            plain.gen.set_state(model.gen.get_state()), val.gen.set_state(model.gen.get_state())
        V = torch.autograd.grad(losses(val, val_batch).mean(), [p for p in val.parameters() if p.requires_grad])
        f, params = losses(plain, batch), [p for p in plain.parameters() if p.requires_grad]
        s = torch.stack(
            [
                sum((g * v).sum() for g, v in zip(torch.autograd.grad(x, params, retain_graph=True), V, strict=True))
                for x in f
            ]
        )
        before = private(model)
        for method in ("auto", "tangent", "double_backward", "per_example"):
            found = fastrw.gradient_dots(model, batch, val_batch, losses_fn=losses, method=method)
            assert relative(found, s) <= 1e-10
            assert same(private(model), before)
        out = fastrw.Reweighter(model, losses_fn=losses).backward(batch, val_batch)
        assert relative(out.scores, s) <= 1e-10
        model.zero_grad()
        if make is not Noisy:
            assert same(private(model), private(plain))


def test_an_observer_moves_once():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(8, 6), nn.BatchNorm1d(6), quantization.FusedMovingAvgObsFakeQuantize(), nn.Linear(6, 3)
    )
    batch, val_batch = ((x.float(), y) for x, y in (rows(7), rows(4)))
    model(batch[0])
    step = fastrw.Reweighter(model)
    for _ in range(3):
        plain = copy.deepcopy(model)
        plain(batch[0])
        step.backward(batch, val_batch)
        for a, b in zip(model.buffers(), plain.buffers(), strict=True):
            assert relative(a.double(), b.double()) <= 1e-6
