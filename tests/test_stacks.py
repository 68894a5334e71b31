"""Small norms and convolutions of a joined batch that are alike are one use of a longer batch, from the second step on:
as exact as one of each, whatever changes between steps that the structure of the graph does not show."""

import pytest
import torch
from torch import nn

import fastrw
from fastrw.nodes.stacks import Stacked
from fastrw.ops.tolerance import relative_error
from tests.test_joint import Gate, check, spoilt_by_none


class Tokens(nn.Module):
    """[n, T, 6]: LayerNorms of one shape, without a shift, frozen, tied, and of another shape."""

    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(6) for _ in range(4))
        self.plain = nn.ModuleList(nn.LayerNorm(6, bias=False) for _ in range(3))
        self.tied, self.frozen, self.last = nn.LayerNorm(6), nn.LayerNorm(6), nn.LayerNorm(6)
        self.frozen.weight.requires_grad_(False)
        self.head, self.gated = nn.Linear(6, 3), False

    def forward(self, x):
        for i, norm in enumerate((*self.norms, *self.plain, self.tied, self.tied, self.frozen)):
            x = x + norm(x).tanh() * 0.5
            x = Gate.apply(x) if self.gated and i == 1 else x
        return self.head(self.last(x.mean(1)))


class Pixels(nn.Module):
    """[n, 4, 5, 5]: GroupNorms of one shape, and convolutions whose biases alone are trained."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))
        self.norms = nn.ModuleList(nn.GroupNorm(2, 4) for _ in range(3))
        self.head = nn.Linear(4, 3)
        for conv in self.convs:
            conv.weight.requires_grad_(False)

    def forward(self, x):
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = x + norm(conv(x)).tanh()
        return self.head(x.mean((2, 3)))


SHAPES = {Tokens: (5, 6), Pixels: (4, 5, 5)}


def made(net):
    torch.manual_seed(0)
    shape = SHAPES[net]
    model = net().double()
    for p in model.parameters():
        p.data += torch.randn_like(p) / 3
    return model, *((torch.randn(n, *shape).double(), torch.randint(3, (n,))) for n in (7, 4))


@pytest.fixture
def served(monkeypatch):
    """The uses of each part that stands for several, and the inputs that it sends to."""
    found, build = [], Stacked.__init__

    def watched(self, G, *args):
        build(self, G, *args)
        found.append((next(iter(G.values())).shape[1], *G))

    monkeypatch.setattr(Stacked, "__init__", watched)
    return found


TOKENS, PIXELS = [(3, 1), (4, 1, 2)], [(3, 1, 2), (3, 2)]


@pytest.mark.parametrize(("net", "wanted"), [(Tokens, TOKENS), (Pixels, PIXELS)])
def test_one_part_is_as_exact_as_one_of_each_and_reports_the_same(served, net, wanted):
    given = made(net)
    step = fastrw.Reweighter(given[0])
    first = check(*given, step)
    assert not served
    for _ in range(2):
        later = check(*given, step)
    assert sorted(served) == sorted(wanted * 2)
    assert {(*vars(use).values(),) for use in later.uses} == {(*vars(use).values(),) for use in first.uses}


@pytest.mark.parametrize("options", [{"update": "backward"}, {"params": ["norms.1.*", "plain.*"]}])
def test_scores_alone_and_chosen_parameters(served, options):
    given = made(Tokens)
    step = fastrw.Reweighter(given[0], **options)
    truth = fastrw.meta_weights(*given, normalize=None, params=options.get("params"), method="double_backward")
    for _ in range(3):
        assert relative_error(step.backward(*given[1:]).scores, truth) <= 1e-10


def test_what_no_shape_shows_may_change_between_steps(served):
    given = made(Pixels)
    model, step = given[0], fastrw.Reweighter(given[0])
    check(*given, step)
    for conv, dilation in zip(model.convs, (1, 2, 1), strict=True):
        conv.dilation = conv.padding = (dilation, dilation)
    check(*given, step)
    assert served == [(3, 1, 2)]  # the norms alone
    model.norms[0].num_groups, model.norms[1].eps = 1, 0.1
    check(*given, step)
    check(model, *((x.to(memory_format=torch.channels_last), y) for x, y in given[1:]), step)


def test_a_use_that_no_gradient_reaches_adds_nothing(served):
    given = made(Tokens)
    given[0].gated = True
    step = fastrw.Reweighter(given[0], recheck=False)
    try:
        for Gate.opened in (True, True, False, True):
            check(*given, step)
    finally:
        Gate.opened = True
    assert len(served) == 5  # two in each step but the first; where the gate is shut, some have no gradient


@pytest.mark.parametrize("net", [Tokens, Pixels])
def test_an_example_that_is_not_finite_spoils_no_other(served, net):
    spoilt_by_none(*made(net), served)


def test_large_uses_are_not_copied(served, monkeypatch):
    monkeypatch.setattr("fastrw.nodes.instances.SMALL", 3 * 11 * 5 * 6)
    given = made(Tokens)
    for _ in range(2):
        check(*given, fastrw.Reweighter(given[0]))
    assert sorted(served) == [(3, 1), (3, 1, 2)]  # as many as the limit allows
    monkeypatch.setattr("fastrw.nodes.instances.SMALL", 3 * 11 * 5 * 6 - 1)
    given, served[:] = made(Tokens), []
    for _ in range(2):
        check(*given, fastrw.Reweighter(given[0]))
    assert not served
