"""Numbers that anneal, batches unlike the others, selections of parameters, and parameters at several places."""

import itertools
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.utils.data import TensorDataset

import fastrw
from fastrw import learned
from tests import oracle
from tests.on_graph import apart, dot, relative
from tests.tiers import covering


def rows(n, p=8, classes=3):
    return torch.randn(n, p).double(), torch.randint(classes, (n,))


def net(middle=None):
    return nn.Sequential(nn.Linear(8, 6), middle or nn.Tanh(), nn.Linear(6, 3)).double()


def scaled(model, batch, by=1.0):
    return F.cross_entropy(model(batch[0]) / by, batch[1], reduction="none")


class Loss:
    def __init__(self, by):
        self.by = by

    def __call__(self, model, batch):
        return scaled(model, batch, self.by)

    def of(self, model, batch):
        return self(model, batch)


class Schedule:
    by = 1.0


def in_a_schedule(by, schedule=Schedule()):  # noqa: B008
    schedule.by = by
    return lambda model, batch: scaled(model, batch, schedule.by)


def in_a_keyword(by):
    def losses(model, batch, *, by=by):
        return scaled(model, batch, by)

    return losses


def bound_to_itself(by):
    def losses(model, batch):
        assert losses is not None
        return scaled(model, batch, by)

    return losses


KINDS = {
    "closure": lambda by: lambda model, batch: scaled(model, batch, by),
    "integer": lambda by: lambda model, batch, by=int(100 * by): scaled(model, batch, by / 100),
    "tensor": lambda by: in_a_keyword(torch.tensor(by).double()),
    "keyword": in_a_keyword,
    "schedule": in_a_schedule,
    "partial": lambda by: partial(scaled, by=by),
    "instance": Loss,
    "method": lambda by: Loss(by).of,
    "itself": bound_to_itself,
}


MIDDLES = {"joined": nn.Tanh, "norm": lambda: nn.BatchNorm1d(6), "dropout": nn.Dropout}


@pytest.mark.parametrize(("middle", "kind"), covering(itertools.product(MIDDLES, KINDS)))
def test_a_number_that_anneals_costs_nothing(kind, middle):
    """A loss made anew in every step, with another number: as many forwards as with a fixed loss, nothing learned."""
    torch.manual_seed(0)
    counts = []
    for make in (lambda by: scaled, KINDS[kind]):
        model, forwards = net(MIDDLES[middle]()), []
        model.register_forward_pre_hook(lambda *_, seen=forwards: seen.append(1))
        for step in range(40):
            losses, batch, val_batch = make(1 + step / 100), rows(7), rows(4)
            before = torch.get_rng_state()
            out = fastrw.Reweighter(model, losses_fn=losses).backward(batch, val_batch)
            if step % 13 == 0 and not any(isinstance(m, nn.Dropout | nn.BatchNorm1d) for m in model):
                after, count = torch.get_rng_state(), len(forwards)
                torch.set_rng_state(before)
                assert relative(out.scores, oracle.scores(model, batch, val_batch, losses_fn=losses)) <= 1e-10
                torch.set_rng_state(after)
                del forwards[count:]
            if step == 20:
                held = sizes(model)
        counts.append(len(forwards))
        assert sizes(model) == held
    assert counts[0] == counts[1]


def sizes(model):
    return {name: len(table._entries) for name, table in learned._stores[model].items()}


FORWARDS = []  # of a module of the tests: what hooks hold themselves is state of the model, and put back


def counted():
    FORWARDS.clear()
    return FORWARDS


def count(module, args):
    FORWARDS.append(len(args[0]))


class Picky(nn.Module):
    """Its batches must not be joined where `odd` is set."""

    def __init__(self):
        super().__init__()
        self.body, self.odd, self.sizes = net(), False, []

    def forward(self, x):
        self.sizes.append(len(x)) if not torch.is_grad_enabled() else None
        if self.odd and len(x) > 7:
            raise RuntimeError("the batch is too large")
        return self.body(x)


def test_one_batch_that_cannot_be_joined_does_not_part_the_others_for_ever():
    torch.manual_seed(0)
    model, forwards = Picky(), counted()
    model.body.register_forward_pre_hook(count)
    step = fastrw.Reweighter(model)
    for odd in [False] * 3 + [True] + [False] * 12:
        model.odd = odd
        forwards.clear()
        batch, val_batch = rows(7), rows(4)
        out = step.backward(batch, val_batch)
        last = forwards.copy()
        assert relative(out.scores, oracle.scores(model, batch, val_batch)) <= 1e-10
        assert (out.method, out.update) == ("layerwise", "assembled")
    assert last == [11]
    for _ in range(40):  # nor is a model that never joins them tried often
        model.odd = True
        step.backward(rows(7), rows(4))
    forwards.clear()
    for _ in range(20):
        step.backward(rows(7), rows(4))
    assert len(forwards) <= 42  # in the 1st, 2nd, 4th, ... call the validation forward is repeated


def test_batches_of_other_shapes_part_no_others():
    torch.manual_seed(0)
    model, forwards = nn.Sequential(nn.AdaptiveAvgPool1d(4), nn.Flatten(), nn.Linear(12, 3)).double(), counted()
    step = fastrw.Reweighter(model)
    model[2].register_forward_pre_hook(count)

    def batch(n, length):
        return torch.randn(n, 3, length).double(), torch.randint(3, (n,))

    for length in (8, 8, 8, 12, 8):
        forwards.clear()
        assert step.backward(batch(5, length), batch(3, 8)).update == "assembled"
    assert forwards[0] == 8


SELECTIONS = {
    "parameters()": lambda m: m[2].parameters(),
    "generator": lambda m: (p for p in m[2].parameters()),
    "map": lambda m: map(lambda p: p, m[2].parameters()),
    "names": lambda m: (name for name in ["2.*"]),
    "set": lambda m: set(m[2].parameters()),
}


@pytest.mark.parametrize("kind", SELECTIONS)
def test_a_selection_may_be_a_generator(kind):
    torch.manual_seed(0)
    model, batch, val_batch, given = net(), rows(7), rows(4), SELECTIONS[kind]
    s = oracle.scores(model, batch, val_batch, params=["2.*"])
    for options in ({}, {"update": "backward"}):
        step = fastrw.Reweighter(model, params=given(model), **options)
        for _ in range(3):
            assert relative(step.backward(batch, val_batch).scores, s) <= 1e-10
        assert torch.equal(step.weights(batch, val_batch), step.weights(batch, val_batch))
    assert relative(fastrw.gradient_dots(model, batch, val_batch, params=given(model)), s) <= 1e-10
    assert relative(fastrw.meta_weights(model, batch, val_batch, params=given(model)), oracle.weights(s)) <= 1e-8
    assert fastrw.verify(model, batch, val_batch, params=given(model)).ok
    assert fastrw.explain(model, batch, val_batch, params=given(model)).uses
    if kind != "names":
        assert relative(fastrw.backward(*apart(model, batch, val_batch), given(model)).scores, s) <= 1e-10


class Odd(nn.Module):
    """Parameters of every type beside those that are trained."""

    def __init__(self):
        super().__init__()
        self.layer, self.turn = nn.Linear(8, 3), nn.Parameter(torch.randn(3, dtype=torch.cdouble))
        frozen = torch.arange(3), torch.ones(3).bool(), torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8)
        self.frozen = nn.ParameterList([nn.Parameter(t, requires_grad=False) for t in frozen])
        self.head = nn.Linear(3, 3)
        self.double()

    def forward(self, x):
        whole, flag, coarse = self.frozen
        return self.head(
            self.layer(x) * flag + whole + coarse.dequantize().double() + (self.turn * self.turn.conj()).real
        )


@pytest.mark.filterwarnings("ignore:.*quant")
@pytest.mark.parametrize("params", [None, "last", ["turn"], ["layer.*"]], ids=str)
def test_parameters_of_other_types_are_in_nobodys_way(params):
    torch.manual_seed(0)
    model, batch, val_batch = Odd(), rows(7), rows(4)
    s = oracle.scores(model, batch, val_batch, params=params)
    step = fastrw.Reweighter(model, params=params)
    for _ in range(2):
        out = step.backward(batch, val_batch)
        assert relative(out.scores, s) <= 1e-10 and (out.method, out.update) == ("layerwise", "assembled")


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_lazy_parameters_are_refused_by_name_whether_selected_or_not():
    model = nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 3)).double()
    for params in (None, "last", ["1.*"]):
        with pytest.raises(ValueError, match=r"fastrw.Reweighter: lazy parameters .* got '0.weight' uninitialised"):
            fastrw.Reweighter(model, params=params).backward(rows(5), rows(3))
    assert isinstance(model[0].weight, nn.UninitializedParameter)


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_a_scale_is_finite(scale):
    model, batch, val_batch = net(), rows(5), rows(3)
    with pytest.raises(ValueError, match=r"fastrw.Reweighter: scale must be finite, got"):
        fastrw.Reweighter(model).backward(batch, val_batch, scale=scale)
    with pytest.raises(ValueError, match=r"fastrw.backward: scale must be finite, got"):
        fastrw.backward(*apart(model, batch, val_batch), scale=scale)
    assert model[0].weight.grad is None


@pytest.mark.parametrize("update", ["auto", "assembled", "backward"])
@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("scaler", [None, 8.0])
def test_micro_batches_add_up(update, every, scaler):
    """The gradient of k micro-batches with scale 1/k is the mean of theirs."""
    torch.manual_seed(0)
    model, batches, val_batch = net(), [rows(5) for _ in range(4)], rows(3)
    whole = [torch.zeros_like(p) for p in model.parameters()]
    for scale in (1.0, 0.25):
        grad_scaler = None if scaler is None else torch.amp.GradScaler("cpu", init_scale=scaler)
        step = fastrw.Reweighter(model, update=update, every=every, scaler=grad_scaler)
        model.zero_grad()
        for batch in batches:
            step.backward(batch, val_batch, scale=scale)
            if scale == 1:
                for sum_, p in zip(whole, model.parameters(), strict=True):
                    sum_ += p.grad / 4
                model.zero_grad()
    for sum_, p in zip(whole, model.parameters(), strict=True):
        assert relative(p.grad, sum_) <= 1e-12


class Twice(nn.Module):
    """One layer under two names."""

    def __init__(self):
        super().__init__()
        one = nn.Linear(8, 8)
        self.a, self.b, self.head = one, one, nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.b(self.a(x).tanh()).tanh())


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)
        self.b.weight = self.a.weight

    forward = Twice.forward


class Named(nn.Module):
    """One parameter under two names."""

    def __init__(self):
        super().__init__()
        self.v = self.w = nn.Parameter(torch.randn(8, 8) / 3)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head((x @ self.w).tanh() @ self.v)


class Listed(nn.Module):
    """Its forward refers to its parameters by a list of its own."""

    def __init__(self):
        super().__init__()
        self.a, self.head = nn.Linear(8, 8), nn.Linear(8, 4)
        self.own = [self.a.weight, self.a.bias]

    def forward(self, x):
        return self.head(F.linear(x, *self.own).tanh())


class Replaced(nn.Module):
    """Its forward puts another module in the place of one."""

    def __init__(self):
        super().__init__()
        self.a, self.head = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x):
        new = nn.Linear(1, 1)
        new._parameters = dict(self.a._parameters)
        self.a = new
        return self.head(self.a(x).tanh())


class Headless(nn.Module):
    """Its last layer runs twice."""

    def __init__(self):
        super().__init__()
        self.a, self.head = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.a(self.head(x)).tanh())


class Turned(nn.Module):
    def __init__(self):
        super().__init__()
        self.turn, self.a, self.head = (
            nn.Parameter(torch.randn(4, dtype=torch.cdouble)),
            nn.Linear(8, 4),
            nn.Linear(4, 4),
        )

    def forward(self, x):
        return self.head((self.a(x) * self.turn).abs())


def layers(first, last=None):
    return nn.Sequential(first, nn.Tanh(), last or nn.Linear(8, 4))


PLACES = {
    **{made.__name__: made for made in (Twice, Tied, Named, Listed, Replaced, Headless, Turned)},
    "weight norm": lambda: layers(parametrizations.weight_norm(nn.Linear(8, 8))),
    "weight norm last": lambda: layers(nn.Linear(8, 8), parametrizations.weight_norm(nn.Linear(8, 4))),
    "orthogonal": lambda: layers(parametrizations.orthogonal(nn.Linear(8, 8))),
    "pruned": lambda: layers(prune.l1_unstructured(nn.Linear(8, 8), "weight", 0.3)),
    "scripted": lambda: layers(nn.Linear(8, 8)),
}


def looked_ahead(model, params, batch, reward, eta=0.1, decay=0.3):
    """FSR's scores and reward loss, by one gradient per example; the parameters are written in place."""
    f = F.cross_entropy(model(batch[0]), batch[1], reduction="none")
    each = [oracle.gradient(one, params) for one in f]
    kept = [p.detach().clone() for p in params]
    with torch.no_grad():
        for p, *gradients in zip(params, *each, strict=True):
            p -= eta * (sum(gradients) / len(each) + decay * p)
    reward_loss = F.cross_entropy(model(reward[0]), reward[1])
    V = [eta * (v + decay * p.detach()) for v, p in zip(oracle.gradient(reward_loss, params), params, strict=True)]
    with torch.no_grad():
        for p, value in zip(params, kept, strict=True):
            p.copy_(value)
    return torch.stack([sum(map(dot, one, V)) for one in each]), reward_loss.detach()


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("kind", PLACES)
def test_fsr_and_verify_keep_every_parameter_and_are_right(kind):
    for params in ("all", "last", "first"):
        torch.manual_seed(0)
        model = PLACES[kind]().double()
        if kind == "scripted":
            model[0] = torch.jit.script(model[0])
        if kind == "Listed":
            model.own = [model.a.weight, model.a.bias]
        chosen = list(model.parameters()) if params == "all" else oracle.selected(model, "last")
        chosen = list(model.parameters())[:1] if params == "first" else chosen
        (x, _), y = rows(20), torch.arange(20) % 4
        ours = fastrw.fsr.FSR(model, 20, 4, dataset=TensorDataset(x, y), q=6, capacity=8, warmup=0, weight_decay=0.3,
                              params=iter(chosen) if params == "first" else params)  # fmt: skip
        reward = ours.dictionary.fetch(6)
        ours.dictionary.fetch = lambda q, reward=reward: reward
        before = [(name, p, p.data_ptr(), p.detach().clone()) for name, p in named(model)]
        for index in (torch.arange(5), torch.arange(5, 11)):
            s, reward_loss = looked_ahead(model, chosen, (x[index], y[index]), (x[reward], y[reward]))
            out = ours.step(index, x[index], y[index])
            assert relative(out.scores, s) <= 1e-10 and relative(out.reward_loss, reward_loss) <= 1e-10
        if kind not in ("Replaced", "scripted"):
            assert fastrw.verify(model, (x[:5], y[:5]), (x[5:8], y[5:8])).ok
        for (name, p, where, value), (_, now) in zip(before, named(model), strict=True):
            assert now is p and type(p) is nn.Parameter and p.is_leaf, name
            assert p.data_ptr() == where and torch.equal(p.detach(), value), name


def named(model):
    return list(model.named_parameters(remove_duplicate=False))


def test_fsr_looks_ahead_under_autocast_too():
    """Casts of the weights before the look-ahead are kept by autocast."""
    torch.manual_seed(0)
    model, (x, _), y, found = layers(nn.Linear(8, 8)), rows(20), torch.arange(20) % 4, []
    for cached in (True, False):
        ours = fastrw.fsr.FSR(model, 20, 4, dataset=TensorDataset(x.float(), y), q=6, capacity=8, warmup=0,
                              params="all", eta=1.0)  # fmt: skip
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=cached):
            found.append(ours.step(torch.arange(5), x[:5].float(), y[:5]).reward_loss)
    assert torch.equal(*found)


def test_fsr_takes_a_scale():
    torch.manual_seed(0)
    gradients = []
    for scale, params in itertools.product((1.0, 0.25), ("last", "all")):
        torch.manual_seed(0)
        model, (x, _), y = layers(nn.Linear(8, 8)).double(), rows(20), torch.arange(20) % 4
        ours = fastrw.fsr.FSR(model, 20, 4, dataset=TensorDataset(x, y), q=6, capacity=8, warmup=0, params=params)
        ours.step(torch.arange(5), x[:5], y[:5], scale=scale)
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]) / scale)
    assert relative(gradients[2], gradients[0]) <= 1e-12 and relative(gradients[3], gradients[1]) <= 1e-12
    with pytest.raises(TypeError, match=r"fastrw.FSR.step: scale must be a number, got str"):
        ours.step(torch.arange(5), x[:5], y[:5], scale="1")


@pytest.mark.filterwarnings("ignore:fastrw. this model is scored by one backward pass")
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")
@pytest.mark.parametrize("layout", [torch.strided], ids=str)  # torch.jagged takes ten seconds to import
def test_nested_tensors_inside_a_model_are_scored_one_by_one(layout):
    class Nested(nn.Module):
        def __init__(self):
            super().__init__()
            self.enter, self.head = nn.Linear(8, 6), nn.Linear(6, 3)

        def forward(self, x):
            parts = torch.nested.as_nested_tensor([one[: 2 + i % 3] for i, one in enumerate(x)], layout=layout)
            return self.head(torch.stack([h.mean(0) for h in self.enter(parts).unbind()]))

    torch.manual_seed(0)
    model = Nested().double()
    batch, val_batch = ((torch.randn(n, 5, 8).double(), torch.randint(3, (n,))) for n in (5, 3))
    s = oracle.scores(model, batch, val_batch)
    for _ in range(2):
        assert relative(fastrw.gradient_dots(model, batch, val_batch), s) <= 1e-10
        out = fastrw.Reweighter(model).backward(batch, val_batch)
        assert relative(out.scores, s) <= 1e-10 and out.method == "per_example"
        assert relative(fastrw.backward(*apart(model, batch, val_batch)).scores, s) <= 1e-10
    with pytest.raises(fastrw.Refused, match="gradients must not be nested tensors, got one at Linear"):
        fastrw.gradient_dots(model, batch, val_batch, method="layerwise")
