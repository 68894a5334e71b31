"""The dictionary is always balanced and full, holds the best of each class, fetches fairly, and keeps little."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastrw import fsr
from tests.resumed import same_state


@st.composite
def labelled(draw):
    """Labels [N] with an example of every class, in any order, and a capacity."""
    classes = draw(st.integers(2, 6))
    more = draw(st.lists(st.integers(0, classes - 1), max_size=60))
    y = torch.tensor(draw(st.permutations([*range(classes), *more])))
    return y, classes, draw(st.integers(classes, 80))


def made(found, **options):
    y, classes, capacity = found
    return fsr.ProxyDictionary(y, classes, capacity=capacity, **options)


def observed(dictionary, index, margins):
    """Give the examples at index these margins: logits that make them up."""
    y = dictionary.labels[index]
    z = torch.zeros(len(index), dictionary.num_classes, dtype=torch.float64)
    # L(0) = log C; a logit a of the label alone gives L = log(C - 1 + e^a) - a
    start = torch.log(torch.tensor(float(dictionary.num_classes), dtype=torch.float64))
    wanted = (start - margins).clamp(min=1e-6)
    ahead = z.clone()
    ahead[torch.arange(len(index)), y] = torch.log(
        torch.tensor(dictionary.num_classes - 1.0, dtype=torch.float64)
    ) - torch.log(torch.expm1(wanted))
    dictionary.observe(index, fsr.Visit(y, z, ahead))


def balanced_and_full(dictionary):
    held, k = dictionary.indices, dictionary.capacity // dictionary.num_classes
    assert len(held) == len(dictionary) == len(held.unique())
    counts = torch.bincount(dictionary.labels, minlength=dictionary.num_classes)
    assert torch.equal(torch.bincount(dictionary.labels[held], minlength=dictionary.num_classes), counts.clamp(max=k))


@settings(deadline=None, max_examples=60)
@given(labelled(), st.data())
def test_it_is_always_balanced_and_full_and_holds_the_best(found, data):
    dictionary = made(found, pusher=fsr.MetaMargin(0.0), dtype=torch.float64)
    balanced_and_full(dictionary)
    N = len(dictionary.labels)
    for _ in range(2):
        index = torch.tensor(data.draw(st.lists(st.integers(0, N - 1), min_size=1, unique=True)))
        margins = torch.tensor(data.draw(st.lists(st.floats(-2, 0.5), min_size=len(index), max_size=len(index))))
        observed(dictionary, index, margins.double())
        before = set(dictionary.indices.tolist())
        entered = dictionary.update()
        balanced_and_full(dictionary)
        held = dictionary.indices.tolist()
        assert entered == pytest.approx(len(set(held) - before) / len(held))
        scores = dictionary.scores
        for c in range(dictionary.num_classes):
            members = (dictionary.labels == c).nonzero().flatten().tolist()
            kept = [i for i in held if dictionary.labels[i] == c]
            members.sort(key=lambda i: (-scores[i].item(), i))
            assert kept == members[: len(kept)]


@settings(deadline=None, max_examples=60)
@given(labelled(), st.integers(1, 100))
def test_a_fetch_is_balanced_and_of_the_dictionary(found, q):
    dictionary = made(found)
    held = dictionary.indices
    for _ in range(3):
        picked = dictionary.fetch(q)
        assert picked.shape == (q,) and bool(torch.isin(picked, held).all())
        shares = torch.bincount(dictionary.labels[picked], minlength=dictionary.num_classes)
        assert int(shares.max() - shares.min()) <= 1 and int(shares.min()) == q // dictionary.num_classes
        times = torch.bincount(picked, minlength=len(dictionary.labels))[held]
        for c in range(dictionary.num_classes):
            own = times[dictionary.labels[held] == c]
            assert int(own.max() - own.min()) <= 1  # none twice before all of its class


def test_a_fetch_reaches_every_example_and_every_class():
    dictionary = fsr.ProxyDictionary(torch.arange(40) % 4, 4, capacity=20)
    picked = torch.stack([dictionary.fetch(3) for _ in range(300)])
    times = torch.bincount(picked.flatten(), minlength=40)[dictionary.indices]
    assert int(times.min()) > 20  # about 45 expected; from its own seed


def test_what_was_not_seen_or_is_not_finite_enters_last():
    dictionary = fsr.ProxyDictionary(torch.tensor([0, 0, 0, 0, 1]), 2, capacity=4, pusher=fsr.NegativeLoss(0.0))
    index, y = torch.tensor([2, 3]), torch.tensor([0, 0])
    dictionary.observe(index, fsr.Visit(y, torch.tensor([[0.0, 5.0], [0.0, 9.0]])))  # losses of 5 and 9, yet seen
    dictionary.update()
    assert dictionary.indices.tolist() == [2, 3, 4]
    dictionary.observe(torch.tensor([0]), fsr.Visit(torch.tensor([0]), torch.tensor([[float("nan"), 0.0]])))
    dictionary.update()
    assert dictionary.indices.tolist() == [2, 3, 4]
    assert dictionary.scores.isneginf().tolist() == [True, True, False, False, True]


@settings(deadline=None, max_examples=30)
@given(labelled(), st.integers(0, 4), st.integers(0, 4))
def test_resume_goes_on_as_if_never_stopped(found, before, after):
    def play(dictionary, steps, seed):
        generator = torch.Generator().manual_seed(seed)
        drawn = []
        for _ in range(steps):
            index = torch.randperm(len(dictionary.labels), generator=generator)[:5]
            z = torch.randn(2, len(index), dictionary.num_classes, dtype=torch.float64, generator=generator)
            dictionary.observe(index, fsr.Visit(dictionary.labels[index], *z))
            drawn.append(dictionary.fetch(7).tolist())
            dictionary.update()
        return drawn

    whole, first, second = (made(found, dtype=torch.float64, seed=seed) for seed in (0, 0, 99))
    play(whole, before, 1), play(first, before, 1)
    second.load_state_dict(first.state_dict())
    assert play(whole, after, 2) == play(second, after, 2)
    same_state(second.state_dict(), whole.state_dict())


def test_a_state_is_a_copy():
    dictionary = fsr.ProxyDictionary(torch.arange(12) % 3, 3, capacity=6)
    state = dictionary.state_dict()
    kept = {name: value.clone() for name, value in state.items()}
    dictionary.observe(torch.arange(12), fsr.Visit(dictionary.labels, *torch.randn(2, 12, 3)))
    dictionary.update()
    dictionary.fetch(6)
    assert all(torch.equal(state[name], value) for name, value in kept.items())


@pytest.mark.parametrize("pusher", fsr.PUSHERS.values())
def test_memory_is_a_few_numbers_an_example(pusher):
    """Whatever the examples are: no feature and no image is kept."""
    N = 10_000
    dictionary = fsr.ProxyDictionary(torch.arange(N) % 10, 10, capacity=2000, pusher=pusher())
    index = torch.arange(500)
    for _ in range(3):
        dictionary.observe(index, fsr.Visit(dictionary.labels[index], *torch.randn(2, 500, 10)))
        dictionary.update()
    tensors = [t for t in vars(dictionary).values() if isinstance(t, torch.Tensor)]
    assert sum(t.numel() for t in tensors) <= (5 + pusher.columns) * N
    assert sum(t.numel() for t in tensors if t.is_floating_point()) == pusher.columns * N


def test_purity_is_of_the_dictionary():
    y = torch.tensor([0, 0, 0, 1, 1, 1])
    dictionary = fsr.ProxyDictionary(y, 2, capacity=4, pusher=fsr.NegativeLoss())
    z = torch.tensor([[3.0, 0], [2, 0], [1, 0], [0, 3], [0, 2], [0, 1]])
    dictionary.observe(torch.arange(6), fsr.Visit(y, z))
    dictionary.update()
    assert dictionary.purity(torch.tensor([0, 1, 1, 1, 1, 0])) == 0.75


@pytest.mark.parametrize(
    ("labels", "options", "error", "rule"),
    [
        ([0, 1, 2], {"num_classes": 2}, ValueError, "labels must be classes from 0 to 1, got 2"),
        ([0, -1], {"num_classes": 2}, ValueError, "labels must be classes from 0 to 1, got -1"),
        ([0.0, 1.0], {"num_classes": 2}, TypeError, "labels must be whole numbers, got torch.float32"),
        ([[0, 1]], {"num_classes": 2}, ValueError, r"labels must be \[n\] with n of 1 or more, got \(1, 2\)"),
        ([], {"num_classes": 2}, TypeError, "labels must be whole numbers"),
        ([0, 2, 2], {"num_classes": 3}, ValueError, "every class needs an example, got none of class 1"),
        ([0, 1, 2], {"num_classes": 3, "capacity": 2}, ValueError, "capacity must be at least .* 3, got 2"),
        ([0, 1], {"num_classes": 1}, ValueError, "num_classes must be an integer of 2 or more, got 1"),
        ([0, 1], {"num_classes": 2, "capacity": 2.5}, ValueError, "capacity must be an integer of 1 or more, got 2.5"),
    ],
)
def test_bad_input_is_refused(labels, options, error, rule):
    with pytest.raises(error, match=f"^fastrw.ProxyDictionary: {rule}"):
        fsr.ProxyDictionary(torch.tensor(labels), **options)


def test_a_state_of_another_dictionary_is_refused_and_nothing_moves():
    mine, other = (fsr.ProxyDictionary(torch.arange(n) % 2, 2, capacity=4) for n in (10, 12))
    before = mine.state_dict()
    for state in (other.state_dict(), {}, None, {"places": before["places"]}):
        with pytest.raises(ValueError, match=r"^fastrw.ProxyDictionary: a state must hold \w+ of shape"):
            mine.load_state_dict(state)
        assert all(torch.equal(value, before[name]) for name, value in mine.state_dict().items())
    with pytest.raises(ValueError, match=r"^fastrw.ProxyDictionary.purity: true_labels must be \[N\] with N = 10"):
        mine.purity(torch.zeros(9, dtype=torch.long))
    with pytest.raises(ValueError, match=r"^fastrw.ProxyDictionary.fetch: q must be an integer of 1 or more, got 0"):
        mine.fetch(0)
