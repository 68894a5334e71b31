"""What public packages do, each kind without the package: graph networks, recommenders, spiking nets, adjoints."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

import fastrw
from tests.on_graph import apart, exact, relative, truth
from tests.test_field import Net, every_word, rows, sequences

pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")


class Mixed(torch.autograd.Function):
    """Its arguments are tensors, numbers and strings, in any order."""

    @staticmethod
    def forward(ctx, power, x, kind, data, weight, flag=True):
        ctx.save_for_backward(x, data, weight)
        ctx.power = power
        return x**power * weight + data

    @staticmethod
    def backward(ctx, g):
        x, _, weight = ctx.saved_tensors
        return None, g * weight * ctx.power * x ** (ctx.power - 1), None, None, (g * x**ctx.power).sum(0), None


def test_a_function_of_tensors_and_other_arguments():
    torch.manual_seed(0)
    model = Net(lambda net, h: Mixed.apply(3, net.inner(h), "kind", torch.ones(6).double(), net.gate)).double()
    assert every_word(model, rows) == {"layerwise"}


class Adjoint(torch.autograd.Function):
    """Solves backwards for its gradients, in steps whose length depends on their norm: not quite linear."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x @ weight

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        return g @ weight.T, x.T @ g * (1 + 1e-4 * torch.tanh(g.norm()))


def test_a_backward_that_is_not_quite_linear():
    """Scores are those of single examples, and the gradient is that of the weighted losses."""
    torch.manual_seed(0)
    model = Net(lambda net, h: Adjoint.apply(h, net.inner.weight)).double()
    for _ in range(3):
        losses, val_loss = apart(model, rows(6), rows(3))
        s, w, _ = truth(losses, val_loss)
        expected = torch.autograd.grad(losses, [*model.parameters()], w, retain_graph=True, allow_unused=True)
        model.zero_grad()
        out = fastrw.backward(losses, val_loss)
        assert relative(out.scores, s) <= 1e-10 and out.method == "layerwise"
        for p, g in zip(model.parameters(), expected, strict=True):
            assert g is None or relative(p.grad, g) <= 1e-10


class Noisy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.sign()

    @staticmethod
    def backward(ctx, g):
        return g * torch.rand_like(g)


@pytest.mark.parametrize("method", ["auto", "per_example"])
def test_a_backward_that_draws_random_numbers_is_refused(method):
    torch.manual_seed(0)
    model = Net(lambda net, h: Noisy.apply(net.inner(h))).double()
    losses, val_loss = apart(model, rows(6), rows(3))
    state = torch.get_rng_state()
    with pytest.raises(fastrw.Refused, match="draw random numbers"):
        fastrw.backward(losses, val_loss, method=method)
    assert torch.equal(state, torch.get_rng_state()) and all(p.grad is None for p in model.parameters())


class Overwriting(torch.autograd.Function):
    """Writes to the gradient that it is given."""

    @staticmethod
    def forward(ctx, x, weight=None):
        ctx.save_for_backward(x, weight)
        return x.relu() if weight is None else x.relu() * weight

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        g[x < 0] = 0
        return (g, None) if weight is None else (g * weight, (g * x).sum(0))


@pytest.mark.parametrize("body", [
    lambda net, h: Overwriting.apply(net.inner(h), net.gate),
    lambda net, h: net.inner(Overwriting.apply(h)),
    lambda net, h: Overwriting.apply(net.inner(h).view(-1, 2, 3)).flatten(1) + net.gate,
], ids=["a parameter", "alone", "through a view"])  # fmt: skip
def test_a_backward_that_writes_to_its_gradient(body):
    torch.manual_seed(0)
    assert every_word(Net(body).double(), rows) == {"layerwise"}


def by_shared_weights(net, h):
    """A product of parameters, 6 by 6, as n is."""
    return torch.einsum("nij,nj->ni", (net.inner.weight @ net.inner.weight.T)[None].expand(len(h), -1, -1), h)


def by_antisymmetric_weights(net, h):
    W = net.inner.weight
    return F.linear(h, W - W.T - 0.1 * torch.eye(6).double())


@pytest.mark.parametrize("body", [by_shared_weights, by_antisymmetric_weights], ids=lambda body: body.__name__)
def test_products_of_parameters_of_the_size_of_the_batch_mix_nothing(body):
    torch.manual_seed(0)
    assert every_word(Net(body).double(), rows, n=6) == {"layerwise"}


class Positions(nn.Module):
    """There are as many positions as examples."""

    def __init__(self, rule):
        super().__init__()
        self.enter, self.table, self.head, self.rule = nn.Linear(8, 5), nn.Embedding(7, 5), nn.Linear(5, 3), rule

    def forward(self, x):
        h = self.enter(x).tanh()
        return self.head((h + self.rule(self.table, h)).tanh().mean(1))


@pytest.mark.parametrize(("rule", "expected"), [
    (lambda table, h: F.normalize(table(torch.arange(1, 7))) * 0.5, "layerwise"),
    (lambda table, h: table(torch.arange(6)) * h.mean(0), "tangent"),
], ids=["a slice", "a mean"])  # fmt: skip
def test_positions_as_many_as_examples(rule, expected):
    torch.manual_seed(0)
    assert every_word(Positions(rule).double(), sequences, n=6, meets=expected == "tangent") == {expected}


def test_examples_that_are_compared_meet_whatever_the_number_of_pairs():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)).double()

    def losses(model, batch):
        z, (i, j) = model(batch[0]), torch.triu_indices(len(batch[1]), len(batch[1]), 1)
        near = (z[i] - z[j]).square().sum(1)
        return z.new_zeros(len(z)).index_add(0, i, near).index_add(0, j, (1 - near).relu())

    assert every_word(model, rows, losses, meets=True) == {"tangent"}


@pytest.mark.parametrize("sizes", [(3, 5, 4, 6), (6, 4, 5, 3), (3, 5, 4, 6), (5, 3, 6, 4)])
def test_graphs_of_a_batch_are_measured_anew_where_their_sizes_change(sizes):
    """n graphs side by side, of as many nodes in all: who owns a node is told by indices alone."""
    torch.manual_seed(0)

    def graphs(sizes):
        owner = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
        first = torch.tensor(sizes).cumsum(0) - torch.tensor(sizes)
        node = torch.arange(len(owner))
        edges = torch.stack([node, first[owner] + (node - first[owner] + 1) % torch.tensor(sizes)[owner]])
        return torch.randn(len(owner), 8).double(), edges, owner, torch.randint(3, (len(sizes),))

    def losses(model, batch):
        x, (start, end), owner, y = batch
        h = model.enter(x)
        h = h.index_add(0, end, model.inner(h)[start].tanh())
        return F.cross_entropy(model.head(h.new_zeros(len(y), 6).index_add(0, owner, h)), y, reduction="none")

    model = Net(None).double()
    for now in ((4, 4, 5, 5), sizes):
        s = None
        for made in (graphs(now), graphs(now)):
            val = graphs((3, 4))
            out = exact(*apart(model, made, val, losses), recheck=False)
            assert out.method == "layerwise"
            s = fastrw.gradient_dots(model, made, val, losses_fn=losses)
            assert relative(s, out.scores) <= 1e-10


def by_sparse(A, h):
    return torch.sparse.mm(A.to_sparse_csr(), h)


def by_coordinates(A, h):
    return torch.sparse.addmm(h.new_zeros(len(A), 6), A.to_sparse(), h)


def by_product(A, h):
    return (A[..., None] * h).sum(1)


def by_where(A, h):
    return torch.where(A[..., None] != 0, h, 0.0).sum(1)


def by_mask(A, h):
    return h[None].masked_fill(A[..., None] == 0, -9).amax(1)


def by_sums_of_products(A, h):
    return torch.addcmul(h.new_zeros(()), A[..., None], h).sum(1)


@pytest.mark.parametrize("rule", [by_sparse, by_coordinates, by_product, by_where, by_mask, by_sums_of_products])
def test_neighbours_that_zeros_of_a_matrix_choose(rule):
    """The first n nodes have losses; to whom the others belong is told by nothing but zeros."""
    torch.manual_seed(0)
    model, n = Net(None).double(), 5

    def losses(order):
        A = (
            torch.zeros(n, 3 * n)
            .double()
            .index_put((torch.arange(2 * n) % n, n + order), torch.rand(2 * n).double() + 1)
        )
        h = model.enter(torch.randn(3 * n, 8).double()).tanh()
        return F.cross_entropy(model.head(rule(A, h)), torch.randint(3, (n,)), reduction="none")

    order = torch.arange(2 * n)
    for now in (order, order, order.flip(0), torch.randperm(2 * n), order):
        val_loss = losses(torch.randperm(2 * n)).mean()
        assert exact(losses(now), val_loss, recheck=False).method == "layerwise"


def test_a_number_of_one_example_that_zeros_choose():
    torch.manual_seed(0)
    model = Net(None).double()

    def losses(batch, chosen):
        h = model.enter(batch[0]).tanh()
        one = F.one_hot(torch.tensor(chosen), len(h)).double()
        return F.cross_entropy(model.head(h), batch[1], reduction="none") + one * model.inner(h[chosen]).sum()

    for chosen in (1, 1, 3, 0, 1):
        exact(losses(rows(6), chosen), losses(rows(3), 0).mean(), recheck=False)
