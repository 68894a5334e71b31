"""Batches as people hold them: two are joined where that is the same as two forwards, and run apart elsewhere; and an
example that is not finite adds nothing, whatever holds it."""

import collections
import copy
import types
from collections import UserDict, namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import fastrw
from fastrw import learned
from tests import oracle
from tests.on_graph import relative

pytestmark = [
    pytest.mark.filterwarnings("ignore:fastrw. this model is scored by one backward pass"),
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors", "ignore:Sparse CSR tensor support"),
]
P, CLASSES = 6, 4


def net():
    return nn.Sequential(nn.Linear(P, 5), nn.Tanh(), nn.Linear(5, CLASSES)).double()


class Recurrent(nn.Module):
    """Sequences [T, n, p] or packed."""

    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.GRU(P, 5).double(), nn.Linear(5, CLASSES).double()

    def forward(self, x):
        h = self.rnn(x)[0]
        return self.head((h if isinstance(h, torch.Tensor) else pad_packed_sequence(h)[0]).mean(0))


class Sparse(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(P, CLASSES).double())

    def forward(self, x):
        return torch.sparse.mm(x, self.w)


class Table(nn.Module):
    """A row for each place in the batch."""

    def __init__(self):
        super().__init__()
        self.layer, self.rows = nn.Linear(P, CLASSES).double(), nn.Parameter(torch.randn(8, CLASSES).double())

    def forward(self, x):
        return self.layer(x) + self.rows[torch.arange(len(x)) % 8]


def cross_entropy(z, y):
    return F.cross_entropy(z, y, reduction="none")


Pair = namedtuple("Pair", "x y")


@dataclass
class Data:
    x: object
    y: object
    tag: str = "train"


@dataclass(frozen=True, slots=True)
class Frozen:
    x: object
    y: object


@dataclass
class Derived:
    """Holds more than its fields."""

    x: object
    y: object

    def __post_init__(self):
        self.twice, self.size = 2 * self.x, len(self.y)


class Opaque:
    def __init__(self, x, y):
        self._x, self._y = [*x], y.tolist()

    def stacked(self):
        return torch.stack(self._x), torch.tensor(self._y)


class Named(dict):
    x, y = (property(lambda self, k=k: self[k]) for k in "xy")


def items(m, b):
    return cross_entropy(m(b["x"]), b["y"])


def attributes(m, b):
    return cross_entropy(m(b.x), b.y)


def pair(m, b):
    return cross_entropy(m(b[0]), b[1])


# name -> (model, (x [n, p] or [n, T, p], y) -> batch, losses_fn, T, are the two joined)
HELD = {
    "pair": (net, lambda x, y: (x, y), pair, None, True),
    "dict": (net, lambda x, y: {"x": x, "y": y}, items, None, True),
    "UserDict": (net, lambda x, y: UserDict(x=x, y=y), items, None, True),
    "OrderedDict": (net, lambda x, y: collections.OrderedDict(x=x, y=y), items, None, True),
    "defaultdict": (net, lambda x, y: collections.defaultdict(list, x=x, y=y), items, None, True),
    "dict of a class": (net, lambda x, y: Named(x=x, y=y), attributes, None, True),
    "mapping proxy": (net, lambda x, y: types.MappingProxyType({"x": x, "y": y}), items, None, True),
    "nested": (net, lambda x, y: {"a": [UserDict(x=x)], "y": (y,)},
               lambda m, b: cross_entropy(m(b["a"][0]["x"]), b["y"][0]), None, True),
    "dataclass": (net, Data, attributes, None, True),
    "frozen": (net, Frozen, attributes, None, True),
    "named tuple": (net, Pair, attributes, None, True),
    "derived": (net, Derived, lambda m, b: cross_entropy(m(b.twice).view(b.size, -1), b.y), None, False),
    "object": (net, lambda x, y: SimpleNamespace(x=x, y=y), attributes, None, False),
    "opaque": (net, Opaque, lambda m, b: pair(m, b.stacked()), None, False),
    "NumPy": (net, lambda x, y: (x.numpy(), y.numpy()),
              lambda m, b: pair(m, [torch.from_numpy(a) for a in b]), None, False),
    "list of tensors": (net, lambda x, y: ([*x], y), lambda m, b: pair(m, (torch.stack(b[0]), b[1])), None, False),
    "list of sizes": (net, lambda x, y: ([t[: 1 + i % 3] for i, t in enumerate(x)], y),
                      lambda m, b: pair(lambda x: torch.stack([m(t).mean(0) for t in x]), b), 3, False),
    "list of dicts": (net, lambda x, y: (x, [{"y": v, "boxes": torch.zeros(i % 3, 4)} for i, v in enumerate(y)]),
                      lambda m, b: cross_entropy(m(b[0]), torch.stack([t["y"] for t in b[1]])), None, False),
    "list of pairs": (net, lambda x, y: [*zip(x, y, strict=True)],
                      lambda m, b: torch.stack([cross_entropy(m(x), y) for x, y in b]), None, False),
    "[T, n, p]": (Recurrent, lambda x, y: (x.transpose(0, 1).contiguous(), y), pair, 3, False),
    "[n, n, p]": (Recurrent, lambda x, y: (x.transpose(0, 1).contiguous(), y), pair, 7, False),
    "[m, m, p]": (Recurrent, lambda x, y: (x.transpose(0, 1).contiguous(), y), pair, 4, False),
    "packed": (Recurrent,
               lambda x, y: (pack_padded_sequence(x, torch.arange(len(x), 0, -1).clamp(max=3), batch_first=True), y),
               pair, 3, False),
    "nested tensor": (net, lambda x, y: (torch.nested.nested_tensor([*x]), y),
                      lambda m, b: pair(m, (torch.nested.to_padded_tensor(b[0], 0.0), b[1])), None, False),
    "flat graphs": (net,
                    lambda x, y: SimpleNamespace(x=x.flatten(0, 1), at=torch.arange(len(x)).repeat_interleave(3), y=y),
                    lambda m, b: cross_entropy(torch.zeros(len(b.y), CLASSES).double().index_add(0, b.at, m(b.x)), b.y),
                    3, False),
}  # fmt: skip


def drawn(n, T=None):
    return torch.randn(*((n, P) if T is None else (n, T, P))).double(), torch.randint(CLASSES, (n,))


def were_joined(model):
    return bool(learned.table(model, "batches that are alike")._entries)


def right(model, losses_fn, batch, val_batch, goal=1e-10, **kwargs):
    """One step, against one autograd.grad an example; what it returned."""
    twin = copy.deepcopy(model)
    params = [*twin.parameters()]
    V = torch.autograd.grad(losses_fn(twin, val_batch).mean(), params)
    each = [torch.autograd.grad(f, params, retain_graph=True) for f in losses_fn(twin, batch)]
    s = torch.stack([sum((g * v).sum() for g, v in zip(gs, V, strict=True)) for gs in each])
    model.zero_grad()
    out = fastrw.Reweighter(model, losses_fn=losses_fn, **kwargs).backward(batch, val_batch)
    assert relative(out.scores, s) <= goal
    for p, *gs in zip(model.parameters(), *each, strict=True):
        assert relative(p.grad, sum(w * g for w, g in zip(out.weights, gs, strict=True))) <= goal
    return out


@pytest.mark.parametrize("m", [4, 7])
@pytest.mark.parametrize("name", HELD)
def test_batches_are_joined_where_that_is_the_same(name, m):
    torch.manual_seed(0)
    make, held, losses_fn, T, joins = HELD[name]
    model = make()
    for _ in range(3):
        out = right(model, losses_fn, held(*drawn(7, T)), held(*drawn(m, T)))
        assert (out.method, out.update) == ("layerwise", "assembled")
        assert were_joined(model) == joins


def by_rank(m, b):
    return pair(m, b) * torch.arange(len(b[1]))


def by_size(m, b):
    return pair(m, b) / len(b[1])


def by_frequency(m, b):
    return pair(m, b) * torch.bincount(b[1], minlength=CLASSES)[b[1]]


def of_centred_rows(m, b):
    return pair(m, (b[0] - b[0].mean(0), b[1]))


def of_sorted(m, b):
    assert bool((b[0][:-1, 0] >= b[0][1:, 0]).all()), "rows must be sorted"
    return pair(m, b)


def sorted_rows(n):
    x, y = drawn(n)
    return x[x[:, 0].argsort(descending=True)], y


def weighted(n):
    return {"x": drawn(n)[0], "y": drawn(n)[1], "w": torch.ones(CLASSES).double()}


def sparse(layout):
    return lambda n: {"x": drawn(n)[0].relu().to_sparse(layout=layout), "y": drawn(n)[1]}


def ring(n):
    """As many edges as nodes."""
    x, y = drawn(n)
    return {"x": x, "edges": torch.stack([torch.arange(n), torch.arange(n).roll(1)], 1), "y": y}


@pytest.mark.parametrize(
    ("make", "data", "losses_fn", "m"),
    [
        (net, drawn, by_rank, 4),
        (net, drawn, by_size, 4),
        (net, drawn, by_frequency, 4),
        (net, drawn, of_centred_rows, 4),
        (net, sorted_rows, of_sorted, 4),
        (Table, drawn, pair, 4),
        (Sparse, sparse(torch.sparse_csr), items, 4),
        (Sparse, sparse(torch.sparse_coo), items, 4),
        (net, weighted, lambda m, b: F.cross_entropy(m(b["x"]), b["y"], b["w"], reduction="none"), 4),
        (net, ring, lambda m, b: items(
            lambda x: m(x).index_add(0, b["edges"][:, 1], m(x)[b["edges"][:, 0]]), b), 4),
        (net, lambda n: {"x": drawn(n)[0], "y": drawn(n)[1], "size": n},
         lambda m, b: items(lambda x: m(x).view(b["size"], -1), b), 7),
        (net, lambda n: {"x": drawn(n)[0], "y": drawn(n)[1], "names": [*map(str, range(n))]}, items, 4),
    ],
)  # fmt: skip
def test_batches_run_apart_where_joined_they_are_others(make, data, losses_fn, m):
    torch.manual_seed(0)
    model = make()
    for _ in range(3):
        out = right(model, losses_fn, data(7), data(m))
        assert (out.method, out.update) == ("layerwise", "assembled")
    assert not were_joined(model)


def test_a_batch_of_another_size_is_compared_anew():
    """With 8 rows before them, the validation rows have the places that they have alone; with 7 they do not."""
    torch.manual_seed(0)
    model = Table()
    for n in (8, 8, 7, 8, 6):
        right(model, pair, drawn(n), drawn(4))


def test_one_unsuitable_batch_is_forgotten():
    torch.manual_seed(0)
    model = net()
    step = fastrw.Reweighter(model, losses_fn=lambda m, b: pair(m, (b[0].double(), b[1])))
    x, y = drawn(4)
    step.backward(drawn(7), (x.float(), y))
    assert not were_joined(model)
    step.backward(drawn(7), drawn(4))
    assert were_joined(model)


@pytest.mark.parametrize("word", ["meta_weights", "Reweighter"])
@pytest.mark.parametrize("flat", [False, True])
def test_targets_that_are_no_rows(word, flat):
    """A dict for each image, some without boxes; the labels of all sequences in one row, as CTC takes them."""
    torch.manual_seed(0)

    def boxes(n):
        return drawn(n)[0], [{"labels": torch.arange(i % 3), "boxes": torch.zeros(i % 3, 4)} for i in range(n)]

    def texts(n):
        return torch.randn(9, n, P).double(), torch.randint(1, CLASSES, (2 * n,))

    def by_count(output, targets):
        return (output**2).mean(1) * torch.tensor([1.0 + len(t["labels"]) for t in targets])

    def ctc(output, targets):
        n = output.shape[1]
        return F.ctc_loss(output.log_softmax(-1), targets, torch.full((n,), 9), torch.full((n,), 2), reduction="none")

    data, loss_fn = (texts, ctc) if flat else (boxes, by_count)
    model = net()
    for _ in range(2):
        batch, val_batch = data(7), data(4)
        params = [*model.parameters()]
        V = torch.autograd.grad(loss_fn(model(val_batch[0]), val_batch[1]).mean(), params)
        f = loss_fn(model(batch[0]), batch[1])
        each = [torch.autograd.grad(one, params, retain_graph=True) for one in f]
        s = torch.stack([sum((g * v).sum() for g, v in zip(gs, V, strict=True)) for gs in each])
        if word == "meta_weights":
            found = fastrw.gradient_dots(model, batch, val_batch, loss_fn=loss_fn)
        else:
            found = fastrw.Reweighter(model, loss_fn=loss_fn).backward(batch, val_batch).scores
        assert relative(found, s) <= 1e-10


# examples that are not finite


def root(m, b, losses_fn, zero):
    """Of a loss that is 0 for one example: finite, but its slope is not."""
    f = losses_fn(m, b)
    return (f * (1 - zero)).sqrt() if len(f) == len(zero) else f


@pytest.mark.parametrize(
    ("name", "update", "method"),
    [(name, update, "auto") for name in HELD for update in ("auto", "backward")]
    + [(name, "auto", method) for name in ("pair", "[n, n, p]", "opaque")
       for method in ("tangent", "double_backward", "per_example")],
)  # fmt: skip
@pytest.mark.parametrize("bad", ["nan", "inf", "slope"])
def test_an_example_that_is_not_finite_adds_nothing(name, bad, update, method):
    torch.manual_seed(0)
    make, held, losses_fn, T, _ = HELD[name]
    model, (x, y), val_batch = make(), drawn(7, T), held(*drawn(4, T))
    x[2], marred = 0.1, x.clone()
    marred[2] = 0.1 if bad == "slope" else float(bad)
    wrapped, zero = losses_fn, torch.zeros(7).double().index_fill(0, torch.tensor([2]), 1.0)
    if bad == "slope":

        def wrapped(m, b):
            return root(m, b, losses_fn, zero)

    params = [*model.parameters()]
    V = torch.autograd.grad(losses_fn(model, val_batch).mean(), params)
    f = losses_fn(model, held(x, y))
    each = [torch.autograd.grad(one, params, retain_graph=True) for one in (f.sqrt() if bad == "slope" else f)]
    s = torch.stack([sum((g * v).sum() for g, v in zip(gs, V, strict=True)) for gs in each])
    out = fastrw.Reweighter(model, losses_fn=wrapped, update=update, method=method).backward(held(marred, y), val_batch)
    kept = out.scores.isfinite()  # the sums of double_backward and per_example may lose others too
    assert not kept[2] and (kept.sum() == 6 or method in ("double_backward", "per_example"))
    w = torch.where(kept, s.clamp(min=0), 0)
    w = w / w.sum() if w.any() else w
    assert (out.weights - w).norm() <= 1e-10
    for p, *gs in zip(params, *each, strict=True):
        assert (p.grad - sum(wi * g for wi, g in zip(w, gs, strict=True))).norm() <= 1e-10


@pytest.mark.parametrize(
    ("update", "method"),
    [("auto", "auto"), ("backward", "auto"), ("assembled", "auto"), ("auto", "per_example"), ("auto", "tangent"),
     ("backward", "double_backward")],
)  # fmt: skip
def test_backward_of_losses_that_are_not_finite(method, update):
    """They are left out, or the call says no: never nan in .grad."""
    torch.manual_seed(0)
    model, (x, y), val_batch = net(), drawn(7), drawn(4)
    x[2] = float("nan")
    try:
        out = fastrw.backward(pair(model, (x, y)), pair(model, val_batch).mean(), method=method, update=update)
    except fastrw.Refused:
        assert method != "auto" or update == "backward"  # nothing is left to run again
        assert all(p.grad is None for p in model.parameters())
    else:
        assert out.weights[2] == 0 and all(p.grad.isfinite().all() for p in model.parameters())


def test_hooks_of_an_optimizer_see_no_example_that_is_not_finite():
    torch.manual_seed(0)
    model, (x, y), val_batch = net(), drawn(7), drawn(4)
    seen = []
    for p in model.parameters():
        p.register_post_accumulate_grad_hook(lambda p: seen.append(bool(p.grad.isfinite().all())))
    x[2] = float("nan")
    fastrw.Reweighter(model, losses_fn=pair).backward((x, y), val_batch)
    assert seen == [True] * 4


class Masked(nn.Module):
    """The room of an expert is shared by the batch, by a mask that multiplies: the graph never changes."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 6).double(), nn.Linear(6, 3).double()

    def forward(self, x, chosen):
        one = F.one_hot(chosen, 3)
        keep = ((one.cumsum(0) * one).sum(1) <= 6).to(x.dtype)
        return self.last(self.first(x).tanh() * keep[:, None])


def test_examples_that_compete_for_room_in_some_batches_only():
    torch.manual_seed(0)
    model = Masked()

    def losses(model, batch):
        return F.cross_entropy(model(batch[0], batch[2]), batch[1], reduction="none")

    step = fastrw.Reweighter(model, losses_fn=losses)
    for first in (2, 3, 5, 6, 4, 6):  # rows of expert 0
        chosen = torch.where(torch.arange(8) < first, 0, 1 + torch.arange(8) % 2)
        batch, val_batch = ((torch.randn(n, 6).double(), torch.randint(3, (n,)), chosen[:n]) for n in (8, 4))
        s = oracle.scores(model, batch, val_batch, losses_fn=losses)
        assert relative(step.backward(batch, val_batch).scores, s) <= 1e-10


JOINED = []  # sizes of the forwards: a global, because what a hook holds is put back


def test_as_many_labels_as_examples_are_no_sum_across_examples():
    """The loss counts labels, along a dimension that has the size of the batch."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3).double()

    def losses(model, batch):
        x, y = batch
        f = F.cross_entropy(model(x).mT, y, reduction="none")
        return f.sum(1) / (y != -100).sum(1)

    step = fastrw.Reweighter(model, losses_fn=losses)
    model.register_forward_pre_hook(lambda module, args: JOINED.append(len(args[0])))
    for _ in range(3):
        batch, val_batch = ((torch.randn(n, 7, 4).double(), torch.randint(3, (n, 7))) for n in (7, 4))
        s = oracle.scores(model, batch, val_batch, losses_fn=losses)
        JOINED.clear()
        assert relative(step.backward(batch, val_batch).scores, s) <= 1e-10
    assert JOINED == [11]
