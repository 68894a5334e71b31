"""Memory is flat: what fifty steps leave behind is what five leave, with nobody collecting reference cycles."""

import gc
import itertools
import types
from itertools import product

import pytest
import torch
from torch import nn

import fastrw
from bench import timing
from fastrw.ops.extension import idle_workspaces
from tests.tiers import covering

EARLY, LATE = 5, 50


def mlp():
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(inplace=True), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 3)), (6,)


def convolutions():
    first = [nn.Conv2d(2, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU()]
    return nn.Sequential(*first, nn.Conv2d(4, 4, 3, stride=2), nn.Flatten(), nn.Linear(36, 3)), (2, 7, 7)


def batch_norm():
    first = [nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU()]
    return nn.Sequential(*first, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)), (2, 6, 6)


class Attentive(nn.Module):
    """Dropout, a tied weight, and a product that has no rule of its own."""

    def __init__(self):
        super().__init__()
        self.up, self.norm, self.drop = nn.Linear(6, 8), nn.LayerNorm(8), nn.Dropout(0.3)
        self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)
        self.scale = nn.Parameter(torch.ones(8))

    def forward(self, x):
        x = self.drop(self.norm(self.up(x)))
        x = x + self.attention(x, x, x, need_weights=False)[0] * self.scale
        return self.head(torch.einsum("ntd,d->nd", x, self.scale))


def attentive():
    return Attentive(), (4, 6)


WAYS = [
    ("assembled", {"update": "assembled"}),
    ("backward", {"update": "backward"}),
    ("tangent", {"method": "tangent"}),
    ("last", {"params": "last"}),
    ("every", {"every": 3}),
    ("timeline", {"timeline": True}),
]
CASES = [
    pytest.param(make, options, id=f"{make.__name__}-{name}")
    for make, (name, options) in covering(
        (make, way)
        for make, way in product((mlp, convolutions, batch_norm, attentive), WAYS)
        if not (make is batch_norm and way[0] == "assembled")  # it refuses
    )
]


def run(way, rounds):
    """What is alive after so many calls: idle workspaces and our objects, then the account of tensors' bytes."""
    found = []
    gc.collect()
    gc.disable()
    try:
        with torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True
        ) as profile:
            for stop in rounds:
                for _ in range(stop):
                    way()
                found.append((idle_workspaces(), sum(map(counts, gc.get_objects()))))
                torch.empty(timing.MARK, dtype=torch.uint8)
    finally:
        gc.enable()
    return found, timing.memory_events(profile)


def counts(thing):
    """Is it a tensor or of the package? (torch's pytree leaves empty cycles of its own at each call.)"""
    owner = thing if type(thing) is types.FunctionType else type(thing)
    return issubclass(type(thing), torch.Tensor) or str(owner.__module__).startswith("fastrw")


@pytest.mark.filterwarnings("ignore:Memory block of unknown size")
@pytest.mark.parametrize(("make", "options"), CASES)
def test_memory_is_flat(make, options):
    torch.manual_seed(0)
    model, shape = make()
    batch, val_batch = ((torch.randn(n, *shape), torch.randint(3, (n,))) for n in (8, 4))
    step, optimizer = fastrw.Reweighter(model, **options), torch.optim.SGD(model.parameters(), 1e-3)

    def way():
        optimizer.zero_grad()
        step.backward(batch, val_batch)
        optimizer.step()

    flat(way)


def test_memory_of_the_drop_in_is_flat():
    torch.manual_seed(0)
    model, shape = convolutions()
    batch, val_batch = ((torch.randn(n, *shape), torch.randint(3, (n,))) for n in (8, 4))
    flat(lambda: fastrw.meta_weights(model, batch, val_batch))


def flat(way):
    (early, late), sizes = run(way, (EARLY, LATE - EARLY))
    marks = [at for at, size in enumerate(sizes) if size == -timing.MARK]
    alive = list(itertools.accumulate(sizes))
    assert len(marks) == 2 and alive[marks[0]] == alive[marks[1]]
    assert early == late


def leak_by_graph():
    y = torch.randn(3, requires_grad=True).exp()
    y.grad_fn.metadata["output"] = y  # the graph holds its output, and that the graph


def leak_by_object():
    state = fastrw.Reweighter(nn.Linear(2, 2))
    state.itself = state


@pytest.mark.parametrize("way", [leak_by_graph, leak_by_object])
def test_a_leak_would_be_seen(way):
    with pytest.raises(AssertionError):
        flat(way)
