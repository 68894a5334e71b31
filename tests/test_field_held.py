"""State wherever people keep it: both forwards start from one state, and a step leaves that of one training forward."""

import collections
import itertools
import random
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fastrw
from fastrw.state import snapshot
from tests.on_graph import relative
from tests.test_field import rows

CALLS = 5
METHODS = ("auto", "tangent", "double_backward", "per_example")


def cross_entropy(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


class Net(nn.Module):
    """`body(net, h)` between two layers, after `start(net)`."""

    def __init__(self, start, body):
        super().__init__()
        self.enter, self.head, self.body = nn.Linear(8, 6).double(), nn.Linear(6, 3).double(), body
        start(self)

    def forward(self, x):
        return self.head(self.body(self, self.enter(x).tanh()))


@dataclass
class Record:
    calls: int = 0
    mean: object = None
    seen: list = field(default_factory=list)


class Slots:
    __slots__ = ("calls", "mean")

    def __init__(self):
        self.calls, self.mean = 0, torch.zeros(6).double()


class Queue:
    """A helper that is no module."""

    def __init__(self):
        self.rows, self.place, self.sums = torch.zeros(16, 6).double(), 0, np.zeros(6)

    def push(self, z):
        self.rows[(torch.arange(len(z)) + self.place) % 16] = z
        self.place = (self.place + len(z)) % 16
        self.sums += z.numpy().mean(0)
        return self.rows.mean(0) + torch.from_numpy(self.sums.copy()) + self.place


KINDS = {}


def kind(name, start, see):
    """Registers a body."""
    return lambda body: KINDS.update({name: (partial(Net, start, body), cross_entropy, see)})


def put(**attributes):
    """Sets fresh attributes: functions that make them."""
    return lambda net: [setattr(net, name, make()) for name, make in attributes.items()]


@kind("a list that grows", put(seen=list), lambda net: net.seen)
def _(net, h):
    net.seen.append(h.detach().mean())
    return h * (1 + sum(net.seen))


@kind("a counter", put(counts=collections.Counter), lambda net: dict(net.counts))
def _(net, h):
    net.counts["n"] += len(h)
    return h / (1 + net.counts["n"])


@kind("a deque", put(queue=lambda: collections.deque(maxlen=2)), lambda net: list(net.queue))
def _(net, h):
    net.queue.append(h.detach().mean(0))
    return h + torch.stack(list(net.queue)).mean(0)


@kind("a dataclass", put(record=Record), lambda net: [*vars(net.record).values()])
def _(net, h):
    record, mean = net.record, h.detach().mean(0)
    record.calls += 1
    record.mean = mean if record.mean is None else 0.9 * record.mean + 0.1 * mean
    record.seen.append(record.calls)
    return h + record.mean + sum(record.seen)


@kind("slots", put(slots=Slots), lambda net: [net.slots.calls, net.slots.mean])
def _(net, h):
    net.slots.calls += 1
    net.slots.mean += h.detach().mean(0)
    return h * net.slots.calls + net.slots.mean


kind("a helper", put(queue=Queue), lambda net: [*vars(net.queue).values()])(
    lambda net, h: h + net.queue.push(h.detach())
)


@kind("a dict that is made anew", put(cache=dict), lambda net: net.cache)
def _(net, h):
    net.cache = {**net.cache, len(net.cache): h.detach().mean()}
    return h * (1 + sum(net.cache.values()))


@kind("an output with its graph", put(last=lambda: torch.zeros(6).double()), lambda net: net.last)
def _(net, h):
    out = h + net.last.detach()
    net.last = out.mean(0)
    return out


@kind(
    "generators of Python and NumPy",
    put(draws=lambda: random.Random(3), more=lambda: {"a": np.random.default_rng(1), "b": np.random.RandomState(2)}),
    lambda net: [net.draws.getstate(), str(net.more["a"].bit_generator.state), str(net.more["b"].get_state())],
)
def _(net, h):
    return h * net.draws.random() * torch.from_numpy(net.more["a"].random(h.shape)) * net.more["b"].rand()


kind(
    "generators in a helper",
    put(helper=lambda: SimpleNamespace(all=[torch.Generator().manual_seed(1)])),
    lambda net: net.helper.all[0].get_state(),
)(lambda net, h: h * (torch.rand(h.shape, generator=net.helper.all[0]) < 0.7))


def hidden():
    return (nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)).double().requires_grad_(False),)


@kind("a teacher that is no submodule", put(teacher=hidden), lambda net: [*net.teacher[0].state_dict().values()])
def _(net, h):
    layer = net.teacher[0][0]
    layer.weight.data = 0.9 * layer.weight.data + 0.1 * net.enter.weight.data[:, :6]
    return h + net.teacher[0](h).detach()


@kind("an attribute of a layer of torch's", put(drop=lambda: nn.Dropout(0.0)), lambda net: net.drop.p)
def _(net, h):
    net.drop.p = min(0.5, net.drop.p + 0.1)
    return net.drop(h) / (1 + net.drop.p)


@kind("a buffer that the forward makes", put(), lambda net: net.late)
def _(net, h):
    if "late" not in net._buffers:
        net.register_buffer("late", torch.zeros(6).double())
    net.late = net.late + h.detach().mean(0)
    return h + net.late


@kind("a buffer that comes and goes", lambda net: net.register_buffer("mean", None), lambda net: net.mean)
def _(net, h):
    net.mean = h.detach().mean(0) if net.mean is None else None
    return h if net.mean is None else h + net.mean


def overlapping(net):
    t = torch.zeros(12).double()
    for name, view in (("a", t[:8]), ("b", t[4:]), ("c", t.expand(3, 12))):
        net.register_buffer(name, view)


@kind("buffers that share memory", overlapping, lambda net: [net.a, net.b])
def _(net, h):
    net.a.add_(h.detach().mean())
    net.b.mul_(1.1)
    return h + net.a.sum() + net.c.sum()


@kind("a sparse buffer", lambda net: net.register_buffer("A", torch.eye(6).double().to_sparse()), lambda net: net.A)
def _(net, h):
    net.A.mul_(1.1)
    return torch.sparse.mm(net.A, h.t()).t()


@kind("a buffer that grows", lambda net: net.register_buffer("all", torch.zeros(0).double()), lambda net: net.all)
def _(net, h):
    net.all.resize_(net.all.numel() + 1)[-1] = h.detach().mean()
    return h + net.all.sum()


def hooked(net):
    seen, calls = [], 0

    def hook(module, args, output):
        nonlocal calls
        calls += 1
        seen.append(output.detach().mean())
        return output * (1 + calls + seen[-1])

    net.enter.register_forward_hook(hook)
    net.see = lambda: [calls, seen]


kind("variables of a hook", hooked, lambda net: net.see())(lambda net, h: h)


def late(write, **attributes):
    """A body that begins to write in the third call."""

    def body(net, h):
        net.calls += 1
        if net.calls >= 3:
            with torch.no_grad():
                write(net)
        return h + net.key(h) + net.nest["a"][0].bias

    def start(net):
        net.calls, net.key = 0, nn.Linear(6, 6).double().requires_grad_(False)
        net.nest = {"a": [SimpleNamespace(bias=torch.zeros(6).double())]}

    return start, lambda net: [net.key.weight, net.nest["a"][0].bias], body


for name, write in {
    "in place": lambda net: net.key.weight.mul_(0.9),
    "through data": lambda net: net.key.weight.data.mul_(0.9),
    "by other data": lambda net: setattr(net.key.weight, "data", net.key.weight.data * 0.9),
    "by another parameter": lambda net: setattr(net.key, "weight", nn.Parameter(net.key.weight * 0.9, False)),
    "by a clamp": lambda net: net.key.weight.data.clamp_(-0.3 / net.calls, 0.3 / net.calls),
    "deep in a collection": lambda net: net.nest["a"][0].bias.add_(1),
}.items():
    start, see, body = late(write)
    kind(f"later, {name}", start, see)(body)


class Metric(nn.Module):
    """As torchmetrics has them: its state is no buffer."""

    def __init__(self):
        super().__init__()
        self.total, self.count, self.items = torch.zeros(()).double(), 0, []

    def forward(self, losses):
        self.total += losses.detach().sum()
        self.count += len(losses)
        self.items.append(len(losses))
        return losses * (1 + self.total / self.count)


class Trainer:
    def __init__(self, model):
        self.metrics, self.data, self.model = {"train": [Metric()]}, list(range(1000)), model
        self.steps = 0

    def losses(self, model, batch):
        self.steps += 1
        return self.metrics["train"][0](cross_entropy(model, batch)) * self.steps


def counting(metric, model, batch):
    return metric(cross_entropy(model, batch))


def in_a_closure(metric):
    calls = 0

    def losses(model, batch):
        nonlocal calls
        calls += 1
        return metric(cross_entropy(model, batch)) * calls

    return losses


class LossModule(nn.Module):
    def __init__(self, metric):
        super().__init__()
        self.metric = metric

    def forward(self, model, batch):
        return self.metric(cross_entropy(model, batch))


def with_metric(how):
    def make():
        net, metric = Net(put(), lambda net, h: h), Metric()
        return net, how(metric), lambda net: [metric.total, metric.count, metric.items]

    return make


def with_trainer():
    net = Net(put(), lambda net, h: h)
    trainer = Trainer(net)
    return net, trainer.losses, lambda net: [trainer.steps, trainer.metrics["train"][0].items, trainer.data]


METRICS = {
    "closure": with_metric(in_a_closure),
    "partial": with_metric(lambda metric: partial(counting, metric)),
    "module": with_metric(LossModule),
    "trainer": with_trainer,
}


def made(name):
    """Always the same: (model, losses_fn, what can be seen of its state)."""
    torch.manual_seed(0)
    if name in METRICS:
        return METRICS[name]()
    make, losses, see = KINDS[name]
    return make(), losses, see


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a.to_dense(), b.to_dense())
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return a == b if not isinstance(a, np.ndarray) else bool((a == b).all())


def after(name, history):
    """The same model after these training forwards, and its state as it then is."""
    model, losses, see = made(name)
    for seed, batch in enumerate(history):
        torch.manual_seed(seed)
        losses(model, batch)
    torch.manual_seed(len(history))
    return model, losses, see


def truth(name, history, batch, val_batch):
    model, losses, _ = after(name, history)
    V = torch.autograd.grad(losses(model, val_batch).mean(), [p for p in model.parameters() if p.requires_grad])
    model, losses, _ = after(name, history)
    params = [p for p in model.parameters() if p.requires_grad]
    each = [torch.autograd.grad(f, params, retain_graph=True) for f in losses(model, batch)]
    return torch.stack([sum((g * v).sum() for g, v in zip(gs, V, strict=True)) for gs in each])


@pytest.mark.parametrize("name", [*KINDS, *METRICS])
def test_what_a_forward_moves_is_put_back_and_moves_once(name):
    model, losses, see = made(name)
    step, history = fastrw.Reweighter(model, losses_fn=losses), []
    torch.manual_seed(9)
    data = [(rows(7), rows(4)) for _ in range(CALLS)]
    for k, (batch, val_batch) in enumerate(data):
        s = truth(name, history, batch, val_batch)
        if k in (1, 2):
            for method in METHODS:
                torch.manual_seed(k)
                found = fastrw.gradient_dots(model, batch, val_batch, losses_fn=losses, method=method)
                assert relative(found, s) <= 1e-10, method
                expected, _, see_expected = after(name, history)
                assert same(see(model), see_expected(expected)), method
        torch.manual_seed(k)
        assert relative(step.backward(batch, val_batch).scores, s) <= 1e-10
        history.append(batch)
        expected, _, see_expected = after(name, history)
        assert same(see(model), see_expected(expected))


@pytest.mark.parametrize("write", [lambda p: p.mul_(0.9), lambda p: p.data.mul_(0.9)], ids=["in place", "data"])
def test_a_parameter_too_large_to_watch_is_refused_once_by_name(write, monkeypatch):
    """In the call in which it first is written; the next one is exact."""
    monkeypatch.setattr(snapshot, "FEW_ELEMENTS", 0)
    start, _, body = late(lambda net: write(net.key.weight))
    net = Net(start, body)
    step = fastrw.Reweighter(net, losses_fn=cross_entropy)
    for _ in range(2):
        step.backward(rows(7), rows(4))
    with pytest.raises(fastrw.Refused, match=r"'key\.weight'.*fastrw\.backward"):
        step.backward(rows(7), rows(4))
    for _ in range(3):
        before = net.key.weight.clone()
        fastrw.meta_weights(net, rows(7), rows(4), losses_fn=cross_entropy)
        assert torch.equal(net.key.weight, before)


def powers():
    x = 1.0
    while True:
        yield (x := x * 0.9)


@pytest.mark.parametrize("make", [itertools.count, powers])
def test_what_cannot_be_put_back_is_refused_by_name(make):
    net = Net(put(source=make), lambda net, h: h * next(net.source))
    for method in METHODS:
        with pytest.raises(fastrw.Refused, match=r"'source'.*fastrw\.backward"):
            fastrw.meta_weights(net, rows(7), rows(4), method=method, losses_fn=cross_entropy)


FORWARDS = [0]


@pytest.mark.parametrize("method", METHODS)
def test_what_cannot_be_seen_is_refused_where_it_changes_the_losses(method):
    def body(net, h):
        FORWARDS[0] += 1
        return h * FORWARDS[0]

    with pytest.raises(fastrw.Refused, match=r"one state.*fastrw\.backward"):
        fastrw.meta_weights(Net(put(), body), rows(7), rows(4), method=method, losses_fn=cross_entropy)


def test_an_error_of_the_forward_is_the_one_to_see():
    """Even where its state cannot be put back."""

    def body(net, h):
        next(net.source)
        raise KeyError("mine")

    net = Net(put(source=itertools.count, seen=list), body)
    with pytest.raises(KeyError, match="mine"):
        fastrw.meta_weights(net, rows(7), rows(4), losses_fn=cross_entropy)


def test_the_rest_is_put_back_where_something_cannot_be():
    def body(net, h):
        next(net.source)
        net.seen.append(1)
        return net.norm(h) * torch.rand(6)

    net = Net(put(source=itertools.count, seen=list, norm=lambda: nn.BatchNorm1d(6).double()), body)
    batch, val_batch = rows(7), rows(4)
    before, state = torch.get_rng_state(), {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(fastrw.Refused, match="'source'"):
        fastrw.meta_weights(net, batch, val_batch, losses_fn=cross_entropy)
    assert torch.equal(before, torch.get_rng_state()) and net.seen == []
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in state.items())
