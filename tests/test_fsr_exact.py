"""FSR is Algorithm 1: trained side by side with the literal reference, in float64, with every option."""

from itertools import product

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from fastrw import fsr
from fastrw.ops.tolerance import relative_error
from tests import fsr_reference as reference
from tests.tiers import covering

GOAL = 1e-8
EPOCHS, BATCH = 3, 15


def trained(monkeypatch, *, how="momentum", decay=0.0, meta="head", normalize="rectify", variant="code",
            smoothing=0.0, warmup=1, relabel=None, mixup=False, eta=0.1, alpha=1.0, refresh=1, model=None,
            momentum=0.9, lam=0.9):  # fmt: skip
    """Trains both for some epochs and compares all that they find, step by step; returns the FSR."""
    model = reference.made() if model is None else model
    x, y = reference.data()
    theirs = reference.Algorithm1(
        model, x, y, capacity=9, how=how, decay=decay, meta=meta, normalize=normalize, variant=variant,
        momentum=momentum, smoothing=smoothing, warmup=warmup, eta=eta, alpha=alpha, lam=lam, **(relabel or {}),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=momentum, weight_decay=decay)
    ours = fsr.FSR(
        model, len(y), 4, dataset=TensorDataset(x, y), optimizer=optimizer, lookahead=how, eta=eta, alpha=alpha,
        params={"head": "last"}.get(meta, meta), normalize=normalize, variant=variant, capacity=9, q=7, warmup=warmup,
        pusher=fsr.MetaMargin(lam), label_smoothing=smoothing, refresh=refresh,
        relabel=fsr.Relabel(len(y), 4, dtype=torch.float64, **relabel) if relabel else None,
        mixup=fsr.MixUp(4) if mixup else None,
    )  # fmt: skip
    drawn, features = [], None
    fetch = ours.dictionary.fetch
    monkeypatch.setattr(ours.dictionary, "fetch", lambda q: drawn.append(fetch(q)) or drawn[-1])
    for epoch in range(EPOCHS):
        for step, index in enumerate(torch.randperm(len(y)).split(BATCH)):
            blended = fsr.MixUp(4)(x[index], y[index]) if mixup else (None, None)
            if mixup:
                monkeypatch.setattr(ours, "mixup", lambda *_, blended=blended: blended)
            rng = torch.get_rng_state()
            optimizer.zero_grad()
            out = ours.step(index, x[index], y[index])
            if refresh > 1 and epoch >= warmup and step % refresh == 0:
                features = body_of(theirs, x[drawn[-1]])
            found = theirs.step(index, drawn[-1] if drawn else None, *blended, rng=rng, features=features)
            for name in ("weights", "losses", "scores", "reward_loss"):
                mine = getattr(out, name)
                assert (mine is None) == (name not in found)
                assert mine is None or relative_error(mine, found[name]) <= GOAL, name
            mine, found = (torch.cat([p.grad.flatten() for p in m.parameters()]) for m in (model, theirs.model))
            assert relative_error(mine, found) <= GOAL
            optimizer.step()
            for p, q in zip(model.state_dict().values(), theirs.model.state_dict().values(), strict=True):
                assert relative_error(p, q) <= GOAL
        ours.end_epoch()
        theirs.end_epoch()
        assert set(ours.dictionary.indices.tolist()) == theirs.dictionary
        P = torch.tensor([theirs.P[i] for i in range(len(y))], dtype=torch.float64)
        assert relative_error(ours.dictionary.scores, P) <= GOAL
        if relabel:
            expected = torch.stack([theirs.labels_hat[i] for i in range(len(y))])
            assert relative_error(ours.relabel.predictions, expected) <= GOAL
    steps = -(-len(y) // BATCH)
    assert len(drawn) == max(EPOCHS - warmup, 0) * -(-steps // refresh)
    assert out.served_by == ("last layer" if meta == "head" else "any layer")
    return ours


def body_of(theirs, x):
    """φ(x) of the reference's model now, no buffer moved."""
    with torch.no_grad():
        buffers = {k: b.clone() for k, b in theirs.model[0].named_buffers()}
        return torch.func.functional_call(theirs.model[0], buffers, (x,))


@pytest.mark.parametrize("meta", ["head", "all"])
@pytest.mark.parametrize("variant", ["code", "paper"])
@pytest.mark.parametrize("normalize", ["rectify", "shift"])
@pytest.mark.parametrize("how", ["momentum", "plain"])
def test_the_step_is_algorithm_1(monkeypatch, how, normalize, variant, meta):
    trained(monkeypatch, how=how, normalize=normalize, variant=variant, meta=meta)


OPTIONS = [
    {"decay": 0.01},
    {"decay": 0.01, "how": "plain"},
    {"smoothing": 0.1, "normalize": "shift"},
    {"relabel": {"beta": 0.1, "p": 2.0}},
    {"relabel": {"beta": 0.5, "p": 1.0, "temperature": 0.5}, "decay": 1e-3},
    {"mixup": True},
    {"mixup": True, "relabel": {"beta": 0.1, "p": 2.0}},
    {"mixup": True, "relabel": {"beta": 0.1, "p": 2.0}, "variant": "paper", "smoothing": 0.1},
    {"mixup": True, "smoothing": 0.1, "variant": "paper"},
    {"warmup": 0},
    {"warmup": 9, "relabel": {"beta": 0.1, "p": 2.0}},
    {"eta": 0.7, "alpha": 3.0, "lam": 0.5},
    {"momentum": 0.0, "how": "plain"},
]


@pytest.mark.parametrize(("meta", "options"), covering(product(["head", "all", "0.4.*"], OPTIONS)), ids=str)
def test_every_option_is_exact(monkeypatch, meta, options):
    trained(monkeypatch, meta=meta, **options)


@pytest.mark.parametrize("make", [{"norm": False}, {"bias": False}, {"dropout": 0.3}], ids=str)
@pytest.mark.parametrize("meta", ["head", "all"])
def test_every_model_is_exact(monkeypatch, meta, make):
    trained(monkeypatch, meta=meta, model=reference.made(**make), mixup=True, decay=0.01)


@pytest.mark.quick
@pytest.mark.parametrize("refresh", [2, 3, 50])
def test_kept_features_are_those_of_the_fetch(monkeypatch, refresh):
    trained(monkeypatch, refresh=refresh, decay=0.01)


class Scaled(nn.Module):
    """The last layer's output is not the model's."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return 2 * self.net(x)


class Twice(nn.Module):
    """The last layer's weight has another use."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(6, 4), nn.Linear(6, 4)

    def forward(self, x):
        return self.head(torch.tanh(self.first(x) @ self.head.weight))


class Frozen(nn.Sequential):
    """The last layer's bias is not trained."""

    def __init__(self):
        super().__init__(*reference.made())
        self[1].bias.requires_grad_(False)


@pytest.mark.parametrize(
    ("make", "served_by"),
    [(lambda: Scaled(reference.made()), "any layer"), (Twice, "any layer"), (Frozen, "last layer")],
    ids=["scaled", "used twice", "frozen bias"],
)
def test_a_last_layer_of_another_kind_is_exact_too(make, served_by):
    """Held against autograd alone: the weight of every example as a leaf."""
    torch.manual_seed(0)
    model = make().double()
    x, y = reference.data()
    index, meta = torch.arange(20), {k: p for k, p in model.named_parameters() if p.requires_grad}
    ours = fsr.FSR(model, len(y), 4, dataset=TensorDataset(x, y), warmup=0, q=8, capacity=12)
    meta = {k: meta[k] for k in ours.lookahead.params}
    torch.manual_seed(5)
    reward = ours.dictionary.fetch(8)
    ours.dictionary.fetch = lambda q: reward

    def run(values, x):
        buffers = {k: b.clone() for k, b in model.named_buffers()}
        return torch.func.functional_call(model, {**values, **buffers}, (x,))

    omega = torch.full((20,), 1 / 20, dtype=torch.float64, requires_grad=True)
    f = reference.cross_entropy(run(meta, x[index]), y[index])
    g = torch.autograd.grad((omega * f).sum(), list(meta.values()), create_graph=True)
    hat = {k: t - 0.1 * d for (k, t), d in zip(meta.items(), g, strict=True)}
    margin = f - reference.cross_entropy(run(hat, x[index]), y[index])
    reward_loss = reference.cross_entropy(run(hat, x[reward]), y[reward]).mean()
    (slope,) = torch.autograd.grad(reward_loss, omega)
    out = ours.step(index, x[index], y[index])
    assert out.served_by == served_by
    assert relative_error(out.scores, -slope) <= GOAL
    assert relative_error(ours.dictionary.scores[index], 0.1 * margin) <= GOAL
