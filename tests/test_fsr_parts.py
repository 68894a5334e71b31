"""FSR's parts by themselves, each against its definition: pushers, re-labels, MixUp, weights, datasets, Table 4."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

from fastrw import fsr
from fastrw.fsr.indexed import examples, labels_of
from fastrw.fsr.weights import weights
from tests import fsr_reference as reference

N, C, VISITS = 12, 4, 6


def visits():
    """(z, ẑ) [N, C] of every example at each visit, and labels."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(N) % C
    return y, [torch.randn(2, N, C, dtype=torch.float64, generator=generator) for _ in range(VISITS)]


def loss(z, label):
    return float(z.logsumexp(0) - z[label])


def literal(name, y, seen):
    """P̂ of one example, from all its visits (z, ẑ)."""
    if name == "area_under_margin":
        margins = [float(z[y]) - max(float(z[c]) for c in range(C) if c != y) for z, _ in seen]
        return sum(margins) / len(margins)
    if name == "forgetting_events":
        right = [max(range(C), key=lambda c, z=z: float(z[c])) == y for z, _ in seen]
        events = sum(a and not b for a, b in pairwise(right))
        return -events if any(right) else -float("inf")
    average = 0.0
    for z, ahead in seen:
        p = sorted(torch.softmax(z, 0).tolist())
        pushed = {
            "meta_margin": loss(z, y) - loss(ahead, y),
            "negative_loss": -loss(z, y),
            "max_margin": p[-1] - p[-2],
        }[name]
        average = 0.9 * average + 0.1 * pushed
    return average


@pytest.mark.parametrize("name", fsr.PUSHERS)
def test_a_pusher_is_its_definition(name):
    y, seen = visits()
    dictionary = fsr.ProxyDictionary(y, C, capacity=C, pusher=fsr.PUSHERS[name](), dtype=torch.float64)
    for z, ahead in seen:
        for index in torch.randperm(N).split(5):
            dictionary.observe(index, fsr.Visit(y[index], z[index], ahead[index]))
    truth = [literal(name, int(y[i]), [(z[i], ahead[i]) for z, ahead in seen]) for i in range(N)]
    assert dictionary.scores.tolist() == pytest.approx(truth, rel=1e-12, abs=1e-14)


def test_an_example_forgotten_less_often_ranks_higher():
    y = torch.zeros(4, dtype=torch.long)
    right, wrong = [2.0, 0.0], [0.0, 2.0]
    dictionary = fsr.ProxyDictionary(torch.tensor([0, 0, 0, 1]), 2, capacity=6, pusher=fsr.ForgettingEvents())
    for z in ([right, right, wrong, right], [right, wrong, wrong, right], [right, right, wrong, right]):
        dictionary.observe(torch.arange(4), fsr.Visit(y, torch.tensor(z)))
    assert dictionary.scores.tolist() == [0, -1, -torch.inf, 0]


def test_relabel_is_equation_7_and_its_loss():
    generator = torch.Generator().manual_seed(0)
    relabel = fsr.Relabel(N, C, beta=0.3, p=1.5, temperature=2.0, dtype=torch.float64)
    held = {}
    for _ in range(5):
        index = torch.randperm(N, generator=generator)[:7]
        z = torch.randn(7, C, dtype=torch.float64, generator=generator, requires_grad=True)
        truth = sum(
            (-(torch.softmax(held[i] / 2.0, 0) * torch.log_softmax(row, 0)).sum() for i, row in
             zip(index.tolist(), z, strict=True) if i in held), torch.zeros((), dtype=torch.float64),
        )  # fmt: skip
        found = relabel.loss(index, z)
        assert found.item() == pytest.approx(1.5 * truth.item() / 7, rel=1e-12, abs=1e-15)
        (g,) = torch.autograd.grad(found, z)
        if held:
            (expected,) = torch.autograd.grad(1.5 * truth / 7, z)
            torch.testing.assert_close(g, expected, rtol=1e-12, atol=1e-15)
        relabel.update(index, z)
        for i, row in zip(index.tolist(), z.detach(), strict=True):
            held[i] = 0.3 * held.get(i, 0) + 0.7 * row
    other = fsr.Relabel(N, C, dtype=torch.float64)
    other.load_state_dict(relabel.state_dict())
    assert torch.equal(other.predictions, relabel.predictions) and torch.equal(other.seen, relabel.seen)


def test_relabel_and_mixup_serve_a_loop_without_fsr():
    torch.manual_seed(0)
    model, (x, y) = reference.made(), reference.data()
    relabel, mixup = fsr.Relabel(len(y), C), fsr.MixUp(C)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for index, xs, ys in DataLoader(fsr.Indexed(TensorDataset(x, y)), batch_size=20):
        blended, shares = mixup(xs, ys)
        logits = model(xs)
        total = F.cross_entropy(model(blended), shares) + relabel.loss(index, logits)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        relabel.update(index, logits)
    assert bool(relabel.seen.all()) and bool(total.isfinite())


@pytest.mark.parametrize("shape", [(6,), (3, 8, 8), ()])
def test_mixup_blends_each_example_with_another(shape):
    torch.manual_seed(0)
    x, y = torch.randn(40, *shape, dtype=torch.float64), torch.arange(40) % C
    blended, shares = fsr.MixUp(C, alpha=0.5)(x, y)
    assert blended.shape == x.shape and shares.shape == (40, C)
    assert torch.allclose(shares.sum(1), torch.ones(40, dtype=torch.float64))
    assert bool((shares.gather(1, y[:, None]) >= 0.5).all())  # mostly itself
    for i in range(40):
        differences = torch.stack([(x[k] - x[i]).flatten() for k in range(40)])  # x̃_i - x_i = (1 - λ)(x_k - x_i)
        away = (blended[i] - x[i]).flatten()
        if away.norm() < 1e-12:
            continue
        fits = []
        for k in range(40):
            if k != i:
                share = float(away @ differences[k] / (differences[k] @ differences[k]))
                label = (1 - share) * F.one_hot(y[i], C).double() + share * F.one_hot(y[k], C).double()
                fits.append((away - share * differences[k]).norm() < 1e-9 and torch.allclose(label, shares[i]))
        assert any(fits)


@pytest.mark.parametrize("normalize", ["rectify", "shift"])
@pytest.mark.parametrize("variant", ["code", "paper"])
@pytest.mark.parametrize("scale", [1e-9, 1e-2, 1.0, 0.0, -1.0])
def test_weights_are_their_definition(normalize, variant, scale):
    s = scale * torch.tensor([0.3, -0.2, 0.05, 0.0, -0.01], dtype=torch.float64)
    s = -s.abs() if scale < 0 else s
    w = weights(s, 2.0, normalize, variant)
    truth = reference.weights(1 / 5 + 2.0 * s, normalize, variant)
    torch.testing.assert_close(w, truth, rtol=1e-7, atol=1e-12)
    if variant == "paper":
        assert float(w.sum()) == pytest.approx(1) and bool((w >= 0).all())


@pytest.mark.parametrize("normalize", ["rectify", "shift"])
@pytest.mark.parametrize("variant", ["code", "paper"])
def test_a_score_that_is_not_finite_gets_no_weight(normalize, variant):
    w = weights(torch.tensor([float("nan"), 0.2, float("inf"), 0.1]), 1.0, normalize, variant)
    assert w[[0, 2]].tolist() == [0, 0] and bool((w[[1, 3]] > 0).all()) and bool(w.isfinite().all())


class Listed(Dataset):
    """A plain dataset, without `targets` or `__getitems__`."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        return self.x[i], int(self.y[i])


class Batched(Listed):
    def __getitems__(self, picked):
        return [self[i] for i in picked]


class WithTargets(Listed):
    @property
    def targets(self):
        return self.y.tolist()


@pytest.mark.parametrize("kind", [Listed, Batched, WithTargets, TensorDataset])
def test_examples_and_labels_are_read_by_index(kind):
    x, y = reference.data()
    dataset, index = kind(x, y), torch.tensor([7, 3, 3, 50])
    found, labels = examples(dataset, index)
    assert torch.equal(found, x[index]) and torch.equal(labels, y[index])
    assert torch.equal(labels_of(dataset, len(y)), y)
    batches = [*DataLoader(fsr.Indexed(dataset), batch_size=16, shuffle=True)]
    for index, xs, ys in batches:
        assert torch.equal(xs, x[index]) and torch.equal(ys, y[index])
    assert sorted(torch.cat([index for index, _, _ in batches]).tolist()) == list(range(len(y)))
    assert fsr.Indexed(dataset)[5][0] == 5 and len(fsr.Indexed(dataset)) == len(y)


def test_table_4_is_the_papers():
    row = {name: (p.capacity, p.q, p.b, p.momentum, p.eta, p.alpha, p.beta, p.p) for name, p in fsr.TABLE_4.items()}
    assert row["cifar_noise"] == (2000, 200, 100, 0.9, 0.1, 1, 0.1, 2)
    assert row["webvision"] == (5000, 200, 16, 0.9, 0.1, 1, 0.1, 1)
    assert row["cifar_long_tailed"] == (3000, 800, 100, 0.9, 0.1, 1, None, None)
    assert row["inaturalist"] == (2000, 350, 32, 0.9, 0.1, 1, None, None)
    assert row["cifar_long_tailed_noise"] == (3000, 200, 128, 0.9, 0.1, 1, 0.1, 2)


@pytest.mark.parametrize("name", fsr.TABLE_4)
def test_a_row_of_table_4_makes_its_fsr(name):
    model, (x, y) = reference.made(), reference.data()
    row = fsr.TABLE_4[name]
    made = row.make(model, len(y), C, dataset=TensorDataset(x, y), q=8, warmup=0)
    assert made.dictionary.capacity == row.capacity and made.normalize == row.normalize and made.q == 8
    assert (made.relabel is None) == (made.mixup is None) == (row.beta is None)
    out = made.step(torch.arange(10), x[:10], y[:10])
    assert out.scores is not None
    assert fsr.TABLE_4[name].make(model, len(y), C, dataset=TensorDataset(x, y), mixup=None).mixup is None
