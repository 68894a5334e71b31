"""A loader repeated without end."""

import itertools
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, Sampler, TensorDataset

import fastrw

pytestmark = pytest.mark.quick


class Epochs(Sampler):
    """Another order in each epoch, as of a DistributedSampler."""

    def __init__(self, n):
        self.n, self.epoch, self.epochs = n, 0, []

    def set_epoch(self, epoch):
        self.epoch = epoch
        self.epochs.append(epoch)

    def __len__(self):
        return self.n

    def __iter__(self):
        return iter(torch.randperm(self.n, generator=torch.Generator().manual_seed(self.epoch)).tolist())


class Stream(IterableDataset):
    def __init__(self, n):
        self.n = n

    def __iter__(self):
        return iter(torch.rand(self.n).unbind())


def loader(kind="shuffle", n=10, batch_size=3):
    data = TensorDataset(torch.arange(n))
    match kind:
        case "shuffle":
            return DataLoader(data, batch_size, shuffle=True)
        case "generator":
            return DataLoader(data, batch_size, shuffle=True, generator=torch.Generator().manual_seed(7))
        case "sampler":
            return DataLoader(data, batch_size, sampler=Epochs(n))
        case "batch sampler":
            return DataLoader(data, batch_sampler=BatchSampler(Epochs(n), batch_size, drop_last=False))
        case "generator of a sampler":
            sampler = RandomSampler(data, generator=torch.Generator().manual_seed(7))
            return DataLoader(data, batch_sampler=BatchSampler(sampler, batch_size, drop_last=False))
        case "stream":
            return DataLoader(Stream(n), batch_size)
        case "list":
            return [torch.arange(k, min(k + batch_size, n)) for k in range(0, n, batch_size)]


KINDS = ["shuffle", "generator", "sampler", "batch sampler", "generator of a sampler", "stream", "list"]


def flat(batch):
    return torch.as_tensor(batch[0] if isinstance(batch, list) else batch).tolist()


def take(batches, k):
    return [flat(batch) for batch in itertools.islice(batches, k)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_pass_has_every_example_and_its_own_order(kind):
    torch.manual_seed(0)
    found = fastrw.data.cycle(loader(kind))
    assert iter(found) is found
    passes = [[i for batch in take(found, 4) for i in batch] for _ in range(3)]
    assert (found.passes, found.position) == (2, 4)
    if kind == "stream":
        assert len({*passes[0]} | {*passes[1]}) == 20
    else:
        assert all(sorted(one) == list(range(10)) for one in passes)
        assert (passes[0] == passes[1] == passes[2]) == (kind == "list")


def test_samplers_are_told_the_pass():
    for kind in ("sampler", "batch sampler"):
        data = loader(kind)
        take(fastrw.data.cycle(data), 9)
        sampler = data.sampler if kind == "sampler" else data.batch_sampler.sampler
        assert sampler.epochs == [0, 1, 2]
    given = Epochs(3)
    take(fastrw.data.cycle([1, 2], sampler=given), 3)
    assert given.epochs == [0, 1]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("taken", [0, 3, 4, 6])
@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_cycle_goes_on_as_if_never_stopped(kind, taken, workers):
    def started():
        data = loader(kind)
        if workers and kind == "shuffle":
            data = DataLoader(data.dataset, 3, shuffle=True, num_workers=1)
        return fastrw.data.cycle(data)

    if workers and kind != "shuffle":
        return
    torch.manual_seed(0)
    whole = started()
    take(whole, taken)
    state, random = whole.state_dict(), torch.get_rng_state()
    expected = take(whole, 7)
    after = torch.get_rng_state()
    torch.manual_seed(1)
    resumed = started()
    resumed.load_state_dict(state)
    torch.set_rng_state(random)
    assert take(resumed, 7) == expected
    assert torch.equal(torch.get_rng_state(), after)
    assert resumed.state_dict()["passes"] == whole.passes and resumed.position == whole.position


def test_making_one_draws_nothing():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    fastrw.data.cycle(loader())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("make", "error", "rule"),
    [
        (lambda: fastrw.data.cycle([]), ValueError, "must give a batch, got an empty list"),
        (lambda: fastrw.data.cycle(DataLoader([1, 2], 3, drop_last=True)), ValueError, "an empty DataLoader"),
        (lambda: next(fastrw.data.cycle(DataLoader(Stream(0), 3))), ValueError, "must give a batch, got an empty"),
        (lambda: fastrw.data.cycle(3), TypeError, "must be iterable, got int"),
        (lambda: fastrw.data.cycle(iter([1])), TypeError, "must start anew at each pass, got a list_iterator"),
        (lambda: fastrw.data.cycle(x for x in [1]), TypeError, "got a generator"),
        (lambda: fastrw.data.cycle(fastrw.data.cycle([1])), TypeError, "got a Cycle"),
        (lambda: fastrw.data.cycle([1], sampler=[1]), TypeError, "sampler must have set_epoch, got list"),
        (lambda: fastrw.data.cycle([1]).load_state_dict({"passes": -1}), ValueError, "a state must be that of a cycle"),
        (lambda: fastrw.data.cycle([1]).load_state_dict(3), ValueError, "a state must be that of a cycle"),
    ],
)  # fmt: skip
def test_what_cannot_be_repeated_says_the_rule(make, error, rule):
    with pytest.raises(error, match=rule):
        make()


def test_a_state_of_a_longer_loader_is_refused():
    found = fastrw.data.cycle([1, 2])
    found.load_state_dict(fastrw.data.cycle([1]).state_dict() | {"position": 5})
    with pytest.raises(ValueError, match="5 batches of a pass of 2"):
        next(found)


def test_the_loops_of_the_readme_train_every_batch(monkeypatch):
    """50 batches, 7 of them clean: the shorter loader must not end the loop."""
    text = (Path(fastrw.__file__).parents[1] / "README.md").read_text()
    loops = [code for code in re.findall(r"```python\n(.*?)```", text, re.S) if "clean_loader" in code]
    assert len(loops) == 2 and all("fastrw.data.cycle(clean_loader)" in code for code in loops)
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer, steps = torch.optim.SGD(model.parameters(), 0.1), []
    monkeypatch.setattr(optimizer, "step", lambda: steps.append(1))
    x, y = torch.randn(100, 3), torch.randint(2, (100,))
    train_loader = DataLoader(TensorDataset(x, y), 2, shuffle=True)
    clean_loader = DataLoader(TensorDataset(x[:14], y[:14]), 2, shuffle=True)
    for code in loops:
        steps.clear()
        exec(code, {"model": model, "optimizer": optimizer, "train_loader": train_loader, "F": F,
                    "clean_loader": clean_loader, "fastrw": fastrw})  # fmt: skip
        assert len(steps) == 50
