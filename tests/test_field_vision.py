"""Kinds that vision models brought up, in small nets without their packages."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, prune

import fastrw
from fastrw.engine import owners
from tests import oracle
from tests.on_graph import relative


class Derived(nn.Module):
    """Layers whose parameters are derived from others, of a size that is also that of a batch."""

    def __init__(self, kind, width):
        super().__init__()
        self.enter, self.head, self.kind = nn.Linear(8, width), nn.Linear(width, 3), kind
        self.bias, self.table = nn.Parameter(torch.rand(width)), nn.Parameter(torch.rand(5))
        self.inner = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1))
        self.register_buffer("places", torch.rand(width, 4))
        self.register_buffer("index", torch.arange(width) % 5)
        self.norm = nn.BatchNorm1d(width)
        if kind == "weight_norm":
            parametrizations.weight_norm(self.enter)
        if kind == "pruned":
            prune.random_unstructured(self.enter, "weight", 0.3)

    def forward(self, x):
        z = self.enter(x)
        if self.kind == "part set to 0":
            bias = self.bias.clone()
            bias[:2].zero_()
            z = z + bias
        if self.kind == "softmax":
            z = z * torch.cat([self.bias[:3], self.bias[3:]]).softmax(0)
        if self.kind == "times a buffer":
            z = z * (self.bias * self.places[:, 0])
        if self.kind == "relative positions":
            z = z + self.inner(self.places)[:, 0]
        if self.kind == "table of biases":
            z = z + self.table[self.index].exp()
        if self.kind == "BatchNorm":
            z = self.norm(z)
        return self.head(z.tanh())


KINDS = ("weight_norm", "pruned", "part set to 0", "softmax", "times a buffer", "relative positions", "table of biases")


@pytest.mark.parametrize("kind", [*KINDS, "BatchNorm"])
@pytest.mark.parametrize("width", [7, 11])  # n, and n + m
def test_a_parameter_as_long_as_the_batch_mixes_no_examples(kind, width):
    torch.manual_seed(0)
    model = Derived(kind, width).double()
    batch, val_batch = ((torch.randn(k, 8).double(), torch.randint(3, (k,))) for k in (7, 4))
    expected = "tangent" if kind == "BatchNorm" else "layerwise"
    s, report = fastrw.gradient_dots(model, batch, val_batch, return_report=True)
    assert relative(s, oracle.scores(model, batch, val_batch)) <= 1e-10 and report.method == expected
    out = fastrw.Reweighter(model).backward(batch, val_batch)
    assert relative(out.scores, s) <= 1e-10 and out.method == expected


@pytest.mark.parametrize("norm", [True, False])
def test_the_batch_may_enter_a_parameter_of_its_size(norm):
    """Added to, or written over a slice of, a parameter that is as long as the batch: then BatchNorm mixes it."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rows, self.head, self.norm = nn.Parameter(torch.rand(1, 6)), nn.Linear(6, 3), nn.BatchNorm1d(6)

        def forward(self, x):
            z = self.rows.expand(len(x), -1).clone()
            z[:, :3].copy_(x[:, :3])
            z = z + x
            return self.head(self.norm(z) if norm else z)

    torch.manual_seed(0)
    model = Net().double()
    batch, val_batch = ((torch.randn(k, 6).double(), torch.randint(3, (k,))) for k in (7, 4))
    s, report = fastrw.gradient_dots(
        model, batch, val_batch, losses_fn=lambda m, b: F.cross_entropy(m(b[0]), b[1], reduction="none"),
        return_report=True,
    )  # fmt: skip
    assert relative(s, oracle.scores(model, batch, val_batch)) <= 1e-10
    assert report.method == ("tangent" if norm else "layerwise")


class Recorded(nn.Module):
    """Records what its layers give, by hooks that it installs when it first runs."""

    def __init__(self, with_kwargs):
        super().__init__()
        self.enter, self.inner, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.with_kwargs = with_kwargs

    def forward(self, x):
        object.__setattr__(self, "found", found := [])
        if not getattr(self, "installed", False):
            for layer in (self.enter, self.inner):
                if self.with_kwargs:
                    layer.register_forward_hook(lambda m, args, kwargs, out: self.found.append(out), with_kwargs=True)
                else:
                    layer.register_forward_hook(lambda m, args, out: self.found.append(out))
            self.installed = True
        self.inner(self.enter(x).tanh())
        return self.head(found[1] * len(found))


@pytest.mark.parametrize("with_kwargs", [False, True])
@pytest.mark.parametrize("ran", [False, True])
def test_hooks_that_the_first_forward_installs(with_kwargs, ran):
    torch.manual_seed(0)
    model = Recorded(with_kwargs).double()
    batch, val_batch = ((torch.randn(k, 6).double(), torch.randint(3, (k,))) for k in (5, 4))
    other = Recorded(with_kwargs).double()
    other.load_state_dict(model.state_dict())
    other(batch[0])
    s = oracle.scores(other, batch, val_batch)
    if ran:
        model(batch[0])
    for _ in range(2):
        assert relative(fastrw.gradient_dots(model, batch, val_batch), s) <= 1e-10
        assert relative(fastrw.Reweighter(model).backward(batch, val_batch).scores, s) <= 1e-10
        assert torch.equal(model(batch[0]), other(batch[0]))
        assert [len(layer._forward_hooks) for layer in (model.enter, model.inner, model.head)] == [1, 1, 0]


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.enter, self.head = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        h = self.enter(x)
        attention = (h @ h.mT).softmax(-1)
        return self.head((attention @ h)[attention.diagonal(dim1=-2, dim2=-1).argsort(-1)].mean(0))


def test_a_loop_over_examples_is_learned_once(monkeypatch):
    """Products and indices within one example move no element to another example, whatever their values."""
    measured, measure = [], owners.measure
    monkeypatch.setattr(owners, "measure", lambda *args: measured.append(1) or measure(*args))
    torch.manual_seed(0)
    model = Attending().double()

    def losses(model, batch):
        return torch.stack([F.cross_entropy(model(x), y) for x, y in zip(*batch, strict=True)])

    step = fastrw.Reweighter(model, losses_fn=losses)
    for _ in range(4):
        batch, val_batch = ((torch.randn(k, 5, 4).double(), torch.randint(3, (k,))) for k in (6, 4))
        out = step.backward(batch, val_batch)
        assert relative(out.scores, oracle.scores(model, batch, val_batch, losses_fn=losses)) <= 1e-10
        assert out.method == "layerwise"
    assert len(measured) == 1
