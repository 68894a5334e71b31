"""Small uses of a kind are scored and updated by one call: what they give is theirs alone, and as exact as apart."""

from collections import Counter

import oracle
import pytest
import torch
from torch import nn

import fastrw
from fastrw import ops
from fastrw.nodes import registry
from fastrw.nodes.grams import outer
from fastrw.nodes.instances import Columns, Instances
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


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1)], ids=["as parameters", "channels last"])
@pytest.mark.parametrize("along", [False, True])
def test_gradients_are_read_as_they_lie_and_laid_out_as_parameters(order, along):
    """Uses of two shapes, one of them twice, and of another layout; the direction is their own, or given."""
    torch.manual_seed(0)
    n, k, shapes = 4, 3, [(3, 2, 2, 2), (5, 1, 3, 1), (3, 2, 2, 2), (7,)]
    parts, kept = [], []
    for shape in shapes:
        back = sorted(range(len(shape)), key=order.__getitem__) if len(shape) == 4 else [0]
        lying = torch.randn(n + k, *(shape[d] for d in (order if len(shape) == 4 else (0,)))).double()
        kept.append(lying.permute(0, *(d + 1 for d in back)))
        parts.append(Instances({1: kept[-1]}, n))
        assert kept[-1].shape[1:] == shape
    directions = [torch.randn(shape).double() if along else G[n:].sum(0) for shape, G in zip(shapes, kept, strict=True)]
    for part, V in zip(parts, directions, strict=True):
        assert (part.along({1: V}) if along else part.alone()) is None and part.waiting
    group, w = Columns(parts, n, "auto"), torch.tensor([0.5, 0, 2, 1]).double()
    pairs = [*zip(kept, directions, strict=True)]
    assert relative_error(group.score(), sum((G[:n] * V).flatten(1).sum(1) for G, V in pairs)) <= 1e-12
    found = dict(group.updates(parts[0], w))
    for part, G in zip(parts, kept, strict=True):
        update = found[part][1]
        assert update.is_contiguous()
        assert relative_error(update, torch.einsum("n...,n->...", G[:n], w)) <= 1e-12


@pytest.mark.parametrize("backend", ["auto", "reference"])  # one kernel; none: by shape
def test_linear_uses_are_updated_together_as_apart(backend):
    torch.manual_seed(0)
    w = torch.tensor([1, 0, 2]).double()
    shapes = [(6, 5, 4)] * 3 + [(3, 5, 4), (6, 2, 4)]  # (rows, p, q)
    a, g = ([torch.randn(shape[0], shape[k]).double() for shape in shapes] for k in (1, 2))
    for x, y in zip(a[:3], g[:3], strict=True):
        x[2], y[3] = torch.inf, torch.nan  # rows of weight 0
    found, _ = outer(a, g, w, backend)
    for i, (x, y) in enumerate(zip(a, g, strict=True)):
        apart = ops.weighted_outer(x, y, w.repeat_interleave(len(x) // 3), backend="reference")
        for mine, its in zip((found[i], found[i + len(a)]), apart, strict=True):
            assert relative_error(mine, its) <= 1e-12


@pytest.mark.parametrize("backend", ["triton", "cpp", "reference"])
def test_a_backend_by_name_may_have_no_kernel_for_a_group(backend):
    torch.manual_seed(0)
    convolutions = nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 2), nn.Flatten()
    model = nn.Sequential(*convolutions, nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    batch, val_batch = ((torch.randn(n, 1, 5, 5), torch.randint(3, (n,))) for n in (7, 4))
    try:
        step = fastrw.Reweighter(model, backend=backend)
        outs = [step.backward(batch, val_batch) for _ in range(3)]
    except fastrw.Refused as refusal:
        pytest.skip(str(refusal)) if "needs" in str(refusal) else pytest.fail(str(refusal))
    s = oracle.scores(model, batch, val_batch)
    assert all(relative_error(out.scores, s) <= 1e-5 for out in outs)
    assert {use.backend for use in outs[-1].uses} == {backend}
