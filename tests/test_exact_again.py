"""What one call learned of a model must not mislead the next: another mode, batch, size, loss or attribute."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fastrw
from fastrw.ops.tolerance import SCORE_GOAL, relative_error
from fastrw.testing import Net, cases
from tests import oracle

# that auto fell back to one pass an example is said, and tested elsewhere
pytestmark = pytest.mark.filterwarnings("ignore:fastrw. this model is scored by one backward pass per example")


def check(model, batch, val_batch, **kwargs):
    """Auto's scores are the oracle's; gives the method that served."""
    torch.manual_seed(0)
    s = oracle.scores(model, batch, val_batch, **kwargs)
    s_auto, report = fastrw.gradient_dots(model, batch, val_batch, **kwargs, return_report=True)
    assert relative_error(s_auto, s) <= SCORE_GOAL[torch.float64], (report.method, report.refused)
    return report.method


def made(name):
    (case,) = cases(name)
    return case.make(torch.float64)


def vectors(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, 4, (n,), generator=generator)


def net(rule):
    torch.manual_seed(0)
    return Net(rule, enter=nn.Linear(6, 5), head=nn.Linear(5, 4)).double()


@pytest.mark.parametrize("name", ("resnet_batchnorm_training", "batchnorm1d", "dropout", "spectral_norm_training"))
def test_mode_switched(name):
    model, batch, val_batch = made(name)
    methods = []
    for training in (False, True, False, True):
        methods.append(check(model.train(training), batch, val_batch))
    assert methods[:2] == methods[2:]


PATHS = [
    "mixture_of_experts_top1",
    "mixture_of_experts_top2",
    "data_dependent_branch",
    "data_dependent_depth",
    "rows_of_different_counts",
    "rows_sorted_by_data",
]


@pytest.mark.parametrize("name", PATHS)
def test_other_batches_take_other_paths(name):
    model, (x, y), val_batch = made(name)
    for seed in range(6):
        torch.manual_seed(seed)
        check(model, (torch.randn_like(x), y[torch.randperm(len(y))]), val_batch)


def test_other_sizes():
    model, _, val_batch = made("mlp")
    for n in (9, 3, 1, 12, 5):
        check(model, vectors(n), val_batch)


def test_coupling_that_only_larger_batches_have():
    model = net(lambda net, x: net.head(torch.cat([(h := net.enter(x).tanh())[:6], h[6:] + 0.5 * h[:1]])))
    for n in (4, 6, 9, 4, 12):
        check(model, vectors(n), vectors(3, seed=1))


def test_coupling_that_only_some_batches_have():
    model = net(lambda net, x: net.head((h := net.enter(x).tanh()) + (x[:, :1] > 1) * h.roll(1, 0)))
    for x, y in (vectors(8, seed=1), vectors(8, seed=2)):
        for shift in (-9, 0, -9, 1):  # none, some, none, many
            check(model, (x + shift * (torch.arange(6) == 0), y), vectors(3, seed=5))


def test_coupling_switched_on_by_an_attribute():
    def rule(net, x):
        h = net.enter(x).tanh()
        return net.head(h - h.mean(0) if net.centre else h)

    model = net(rule)
    for model.centre in (False, True, False):
        check(model, vectors(8), vectors(3, seed=1))


def test_loss_of_the_same_code_with_another_closure():
    def loss(coupled):
        def loss_fn(output, target):
            losses = F.cross_entropy(output, target, reduction="none")
            return losses * losses.softmax(0) if coupled else losses

        return loss_fn

    model, batch, val_batch = made("mlp")
    for coupled in (False, True, False):
        check(model, batch, val_batch, loss_fn=loss(coupled))


def test_sequence_first_after_batch_first():
    """One model, two layouts: only the loss tells which dimension holds the examples."""

    def by(dim):
        def losses_fn(model, batch):
            x, target = batch
            return F.cross_entropy(model(x).mean(1 - dim), target, reduction="none")

        return losses_fn

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)).double()
    x, target = torch.randn(7, 7, 6).double(), torch.arange(7) % 4
    for dim in (0, 1, 0):
        check(model, (x, target), (x[:5, :5], target[:5]), losses_fn=by(dim))


def test_parameters_frozen_thawed_and_replaced():
    model, batch, val_batch = made("mlp")
    check(model, batch, val_batch)
    model[0].requires_grad_(False)
    check(model, batch, val_batch)
    model[0].requires_grad_(True)
    check(model, batch, val_batch, params="last")
    model[2] = nn.Linear(9, 7).double()
    check(model, batch, val_batch)
    model[2].weight = nn.Parameter(torch.randn(7, 9).double())
    check(model, batch, val_batch)
    check(model.float().double(), batch, val_batch)


def test_weights_tied_after_the_first_call():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 4)).double()
    check(model, vectors(8), vectors(3, seed=1))
    model[2].weight = model[0].weight
    check(model, vectors(8), vectors(3, seed=1))


def test_training_between_calls():
    model, batch, val_batch = made("resnet_groupnorm")
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for _ in range(3):
        check(model, batch, val_batch)
        optimizer.zero_grad()
        F.cross_entropy(model(batch[0]), batch[1]).backward()
        optimizer.step()


@pytest.mark.parametrize("name", ("custom_function_once", "embedding_by_frequency", "batchnorm1d"))
def test_a_first_batch_that_is_not_finite_vouches_for_nothing(name):
    """Scores that are all nan agree with anything; what they seem to show must not be believed later."""
    model, batch, val_batch = made(name)
    kept = {k: v.clone() for k, v in model.state_dict().items()}
    spoilt = {k: v * float("nan") if v.is_floating_point() else v for k, v in kept.items()}
    model.load_state_dict(spoilt)
    fastrw.meta_weights(model, batch, val_batch)
    model.load_state_dict(kept)
    check(model, batch, val_batch)


class Between(nn.Module):
    """`between(model, h)` acts on the hidden rows; `dim` and `margin` change the mathematics, not the operations."""

    def __init__(self, between):
        super().__init__()
        self.enter, self.head, self.between = nn.Linear(6, 6), nn.Linear(6, 4), between
        self.dim, self.margin = 1, -1e3

    def forward(self, x):
        return self.head(self.between(self, self.enter(x)))


def hinge(distance):
    """Pushes examples apart once they are nearer than the margin: no gradient, and no coupling to see, before."""
    return lambda net, h: h + F.relu(net.margin - distance(h)).unsqueeze(1)


PAIRS = {
    "rolled": lambda h: (h - h.roll(1, 0)).pow(2).sum(1),
    "flipped": lambda h: (h - h.flip(0)).pow(2).sum(1),
    "shifted": lambda h: (h - torch.cat([h[1:], h[:1]])).pow(2).sum(1),
    "shuffled": lambda h: (h - h[torch.randperm(len(h))]).pow(2).sum(1),
    "halves": lambda h: (h - torch.cat(h.view(2, -1, 6).unbind()[::-1])).pow(2).sum(1),
    "all": lambda h: torch.cdist(h, h).sum(1),
    "product": lambda h: (h @ h.T).sum(1),
    "centre": lambda h: (h - h.mean(0)).pow(2).sum(1),
    "normed": lambda h: F.batch_norm(h, None, None, training=True).sum(1),
    "softmax": lambda h: h.softmax(0).sum(1),
    "cumulative": lambda h: h.cumsum(0).sum(1),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_pairs_that_do_not_act_at_first(pair):
    torch.manual_seed(0)
    model = Between(hinge(PAIRS[pair])).double()
    batch, val_batch = ((torch.randn(n, 6).double(), torch.randint(0, 4, (n,))) for n in (10, 4))
    for model.margin in (-1e3, 1e3):
        check(model, batch, val_batch)


@pytest.mark.parametrize("name", ("mean", "logsumexp", "amax"))
def test_a_dimension_that_is_another_at_the_second_call(name):
    torch.manual_seed(0)
    model = Between(lambda net, h: h * getattr(torch, name)(h, net.dim, keepdim=True)).double()
    batch, val_batch = ((torch.randn(n, 6).double(), torch.randint(0, 4, (n,))) for n in (9, 4))
    for model.dim in (1, 0, 1):
        check(model, batch, val_batch)


def test_experts_that_all_rows_reach_at_first():
    """Dispatch by products with a 0/1 matrix: the first batch is in order, as if nothing was routed."""

    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate, self.head = nn.Linear(6, 3), nn.Linear(6, 4)
            self.experts = nn.ModuleList(nn.Linear(6, 6) for _ in range(3))

        def forward(self, x):
            p = self.gate(x).softmax(1)
            chosen = F.one_hot(p.argmax(1), 3)
            place = F.one_hot((chosen.cumsum(0) - 1).clamp(min=0), len(x))
            sent = (chosen.unsqueeze(2) * place).to(x.dtype)  # [n, expert, place]
            rows = torch.einsum("nec,nd->ecd", sent, x)
            done = torch.stack([expert(rows[e]) for e, expert in enumerate(self.experts)])
            return self.head(x + torch.einsum("nec,ecd->nd", sent * p.amax(1).view(-1, 1, 1), done))

    torch.manual_seed(0)
    model = Experts().double()
    batch, val_batch = ((torch.randn(n, 6).double(), torch.randint(0, 4, (n,))) for n in (9, 4))
    nn.init.zeros_(model.gate.weight)
    check(model, batch, val_batch)
    nn.init.normal_(model.gate.weight)
    check(model, batch, val_batch)


def test_evaluation_after_training_is_layerwise():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 4)).double()
    methods = [check(model.train(mode), vectors(8), vectors(3, seed=1)) for mode in (True, False, True, False)]
    assert methods == ["tangent", "layerwise"] * 2
