"""Small linear uses of a joined batch have one part, from the second step on: it is as exact as one of each, whatever
changes between steps that the structure of the graph does not show."""

import pytest
import torch
from torch import nn

import fastrw
from fastrw.nodes.grams import GramPart
from fastrw.ops import extension
from fastrw.ops.tolerance import relative_error
from tests import oracle

pytestmark = pytest.mark.skipif(extension.reason is not None, reason="one call serves by compiled kernels")


class Gate(torch.autograd.Function):
    """Passes gradients on, or none."""

    opened = True

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return g if Gate.opened else None


class Scaled(nn.Module):
    """A product with factors, which no structure of a graph shows."""

    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(6, 6)), nn.Parameter(torch.randn(6))
        self.alpha, self.beta = 1.0, 1.0

    def forward(self, x):
        x, rows = x.flatten(0, -2), x.shape[:-1]
        return torch.addmm(self.bias, x, self.weight, alpha=self.alpha, beta=self.beta).unflatten(0, rows)


class Net(nn.Module):
    """Tokens [n, T, 6], then examples [n, 6]: several rows of an example, and one; with and without a bias; tied."""

    def __init__(self):
        super().__init__()
        self.embed, self.plain = nn.Linear(6, 6), nn.Linear(6, 6, bias=False)
        self.scaled, self.tied, self.head = Scaled(), nn.Linear(6, 6), nn.Linear(6, 3)
        self.gate = False

    def forward(self, x):
        x = self.plain(self.embed(x).tanh())
        x = Gate.apply(x) if self.gate else x
        x = self.scaled(x).mean(1)
        return self.head(self.tied(self.tied(x).sigmoid()))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net().double(), *((torch.randn(n, 5, 6).double(), torch.randint(3, (n,))) for n in (7, 4))


@pytest.fixture
def served(monkeypatch):
    """The number of uses of each part that stands for several."""
    found, made = [], GramPart.__init__

    def watched(self, joint, *args):
        made(self, joint, *args)
        found.append(len(joint.uses))

    monkeypatch.setattr(GramPart, "__init__", watched)
    return found


def check(model, batch, val_batch, step):
    model.zero_grad()
    out = step.backward(batch, val_batch)
    truth = oracle.scores(model, batch, val_batch)
    assert relative_error(out.scores, truth) <= 1e-10
    losses = nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")
    wanted = [p for p in model.parameters() if p.requires_grad]
    grads = torch.autograd.grad((out.weights * losses).sum(), wanted, allow_unused=True)
    for p, g in zip(wanted, grads, strict=True):
        mine, g = (torch.zeros_like(p) if t is None else t for t in (p.grad, g))
        assert torch.equal(mine, g) or relative_error(mine, g) <= 1e-10
    return out


def test_one_part_is_as_exact_as_one_of_each_and_reports_the_same(net, served):
    step = fastrw.Reweighter(net[0])
    first = check(*net, step)
    assert not served
    for _ in range(2):
        later = check(*net, step)
    assert served == [4, 4]  # all but those of the tied layer
    assert {(*vars(use).values(),) for use in later.uses} == {(*vars(use).values(),) for use in first.uses}


def test_scores_alone_and_a_later_backward_have_it_too(net, served):
    model, batch, val_batch = net
    for params, options in ((None, {"update": "backward"}), (["embed.*"], {})):
        step = fastrw.Reweighter(model, params=params, **options)
        truth = fastrw.meta_weights(*net, normalize=None, params=params, method="double_backward")
        for _ in range(3):
            assert relative_error(step.backward(batch, val_batch).scores, truth) <= 1e-10


@pytest.mark.parametrize(("name", "value"), [("alpha", 0.5), ("beta", -2.0)])
def test_factors_may_change_between_steps(net, served, name, value):
    step = fastrw.Reweighter(net[0])
    for factor in (1.0, 1.0, value, 1.0):
        setattr(net[0].scaled, name, factor)
        check(*net, step)
    assert served == [4, 4]


def test_a_use_that_no_gradient_reaches_adds_nothing(net, served):
    net[0].gate = True
    step = fastrw.Reweighter(net[0], recheck=False)
    try:
        for Gate.opened in (True, True, False, True):
            check(*net, step)
    finally:
        Gate.opened = True
    assert served == [4, 4]


def test_options_of_another_reweighter_are_its_own(net, served):
    check(*net, fastrw.Reweighter(net[0]))
    check(*net, fastrw.Reweighter(net[0], backend="reference"))
    assert not served
    out = fastrw.Reweighter(net[0], score_dtype=torch.float32).backward(*net[1:])
    assert not served and relative_error(out.scores, oracle.scores(*net)) >= 1e-10
    check(*net, fastrw.Reweighter(net[0]))
    assert served == [4]


def spoilt_by_none(model, batch, val_batch, served):
    """An example that is not finite changes nothing for the others, in a step that has parts for many."""
    (x, y), step = batch, fastrw.Reweighter(model)
    check(model, batch, val_batch, step)
    clean = fastrw.meta_weights(model, (x[1:], y[1:]), val_batch, normalize=None)
    x[0] = torch.inf
    model.zero_grad()
    out = step.backward(batch, val_batch)
    assert served and out.weights[0] == 0 and relative_error(out.scores[1:], clean) <= 1e-10
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


def test_an_example_that_is_not_finite_spoils_no_other(net, served):
    spoilt_by_none(*net, served)
