"""Options.deferred: a pass reads no numbers, gives what a pass that reads them gives, and a flag where they decide; so
that it is traced whole, constants of what was learned included."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.checkpoint import checkpoint

import fastrw
from fastrw.engine import run as engine
from fastrw.engine.request import Options, Request
from fastrw.engine.weights import rectify
from fastrw.ops.tolerance import SCORE_GOAL, relative_error
from tests.deciding import Gated, Routed

N, M = 6, 4


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.enter, self.mix = nn.Linear(4, 5), nn.Linear(5, 5)

    def forward(self, x):
        return checkpoint(lambda h: self.mix(h).relu(), self.enter(x), use_reentrant=False)


class Scaled(nn.Module):
    def forward(self, x):
        return 2 * x / 3.5


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, g):
        return 3 * ctx.saved_tensors[0] ** 2 * g


class Custom(nn.Module):
    """A backward in Python: is its derivative that of the operation?"""

    def forward(self, x):
        return Cube.apply(x)


MODELS = {
    "plain": lambda: nn.Sequential(nn.Linear(4, 5), nn.ReLU()),
    "batch_norm": lambda: nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 5)),
    "scaled": lambda: nn.Sequential(nn.Linear(4, 5), Scaled(), nn.BatchNorm1d(5), nn.Linear(5, 5)),
    "custom": lambda: nn.Sequential(nn.Linear(4, 5), Custom(), nn.BatchNorm1d(5), nn.Linear(5, 5)),
    "weight_norm": lambda: nn.Sequential(weight_norm(nn.Linear(4, 5)), nn.Tanh()),
    "gated": Gated,
    "routed": Routed,
}
JOINED = {"plain", "weight_norm", "gated"}  # both losses of one forward
SURE = {("plain", "auto")}  # nothing depends on numbers
FORMS = [(name, update) for name in MODELS for update in ("auto", "backward")]


def made(name):
    torch.manual_seed(0)
    return MODELS[name]().double()


def batches(order=None):
    """Of examples in this order of their first feature."""
    x, xv = torch.randn(N, 4).double(), torch.randn(M, 4).double()
    for t in (x, xv):
        t[:, 0] = torch.arange(len(t)) if order is None else torch.tensor(order)[: len(t)].argsort()
    return x, torch.randint(5, (N,)), xv, torch.randint(5, (M,))


def taken(name, model, x, y, xv, yv, deferred, **options):
    if name in JOINED:
        f = F.cross_entropy(model(torch.cat([x, xv])), torch.cat([y, yv]), reduction="none")
        losses, val_loss = f[: len(x)], f[len(x) :].mean()
    else:
        losses, val_loss = F.cross_entropy(model(x), y, reduction="none"), F.cross_entropy(model(xv), yv)
    options = Options(**options, normalize=rectify, recheck=False, deferred=deferred)
    return engine.run(Request(losses, val_loss, None, options, model=model, free=True))


def numbers(found):
    return [found.scores, found.weights, *(g for _, g in found.gradients)]


def assert_same(found, truth):
    assert len(found) == len(truth)
    for one, other in zip(found, truth, strict=True):
        assert relative_error(one, other) <= SCORE_GOAL[torch.float64]


@pytest.mark.quick
@pytest.mark.parametrize(("name", "update"), FORMS)
def test_a_pass_that_reads_no_numbers_is_the_pass(name, update):
    model = made(name)
    for _ in range(2):
        here = batches()
        truth = taken(name, model, *here, False, update=update)
        assert truth.sound is None
    found = taken(name, model, *here, True, update=update)
    assert_same(numbers(found), numbers(truth))
    assert [id(p) for p, _ in found.gradients] == [id(p) for p, _ in truth.gradients]
    assert found.sound is None if (name, update) in SURE else found.sound.item() is True


@pytest.mark.parametrize(("name", "update"), FORMS)
def test_a_pass_is_traced_whole(name, update):
    model = made(name)
    for _ in range(2):
        taken(name, model, *batches(), False, update=update)

    def step(*here):
        found = taken(name, model, *here, True, update=update)
        return numbers(found), found.sound

    traced = torch.no_grad()(make_fx(step)(*batches()))
    here = batches()
    found, sound = traced(*here)
    assert sound is None if (name, update) in SURE else sound.item() is True
    assert_same(found, numbers(taken(name, model, *here, False, update=update)))
    spoil(name, model, here)
    assert (name, update) in SURE or traced(*here)[1].item() is False


def spoil(name, model, here):
    """What a pass that was recorded before cannot be right for."""
    if name == "gated":
        with torch.no_grad():
            model.gate += 1
    elif name == "routed":
        here[0][:, 0] = torch.arange(N).flip(0)
    else:
        here[0][1] = torch.inf


@pytest.mark.quick
@pytest.mark.parametrize(("name", "update"), [form for form in FORMS if form not in SURE])
def test_what_numbers_decide_is_told(name, update):
    model, here = made(name), batches()
    for _ in range(2):
        taken(name, model, *here, False, update=update)
    spoil(name, model, here)
    assert taken(name, model, *here, True, update=update).sound.item() is False


class Detached(torch.autograd.Function):
    """x w; torch sees no derivative of its backward, or a wrong one."""

    @staticmethod
    def forward(ctx, x, w, wrong):
        ctx.save_for_backward(x, w)
        ctx.wrong = wrong
        return x * w

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return g * w, ((g + g.detach() if ctx.wrong else 2 * g.detach()) * x).sum(0) / 2, None


class Derived(nn.Module):
    def __init__(self, wrong):
        super().__init__()
        self.enter, self.weight, self.wrong = nn.Linear(4, 5), nn.Parameter(torch.ones(5)), wrong

    def forward(self, x):
        return Detached.apply(self.enter(x), self.weight, self.wrong)


@pytest.mark.parametrize("wrong", [False, True])
def test_a_backward_without_its_derivative_is_told(wrong):
    torch.manual_seed(0)
    model, here = Derived(wrong).double(), batches()
    for _ in range(2):
        truth = taken("plain", model, *here, False)
        assert "once per example" in [use.form for use in truth.account()]
    assert taken("plain", model, *here, True).sound.item() is False


def test_of_several_patterns_it_is_the_last():
    model, first, second = made("routed"), batches(), batches(order=[3, 1, 5, 0, 2, 4])
    for here in (first, second, first, second):
        taken("routed", model, *here, False)
        other = second if here is first else first
        assert taken("routed", model, *here, True).sound.item() is True
        assert taken("routed", model, *other, True).sound.item() is False


def test_what_recomputes_is_taken_too():
    MODELS["checkpointed"] = Checkpointed
    try:
        test_a_pass_that_reads_no_numbers_is_the_pass("checkpointed", "auto")
    finally:
        del MODELS["checkpointed"]


@pytest.mark.quick
def test_what_is_not_learned_yet_is_refused():
    model, here = made("plain"), batches()
    with pytest.raises(fastrw.errors.Unlearned, match="numbers must be read where a graph is new, or"):
        taken("plain", model, *here, True)
    with pytest.raises(fastrw.Refused, match="numbers must be read where nothing is cut, got method='per_example'"):
        taken("plain", model, *here, True, method="per_example")
