"""What people's models do: each kind once, through every word. A recorder of the forward gets most of them wrong."""

import copy
from collections import UserDict
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import fastrw
from tests import oracle
from tests.on_graph import apart, exact, joined, relative

pytestmark = [
    pytest.mark.filterwarnings("ignore:fastrw. this model is scored by one backward pass"),
    pytest.mark.filterwarnings("ignore:Sparse CSR tensor support"),
]


def rows(n, p=8):
    return torch.randn(n, p).double(), torch.randint(3, (n,))


def sequences(n, T=6, p=8):
    return torch.randn(n, T, p).double(), torch.randint(3, (n,))


class Net(nn.Module):
    """`body(net, h)` between two layers; `inner` and `gate` are its to use."""

    def __init__(self, body, p=8):
        super().__init__()
        self.enter, self.inner, self.head, self.body = nn.Linear(p, 6), nn.Linear(6, 6), nn.Linear(6, 3), body
        self.gate = nn.Parameter(torch.rand(6))

    def forward(self, x):
        h = self.body(self, self.enter(x).tanh())
        return self.head(h if h.ndim == 2 else h.mean(1))


def every_word(model, data, losses=None, goal=1e-10, n=7, m=4, calls=3, meets=False):
    """fastrw.backward from two forwards and, where no examples meet, from one; gradient_dots; Reweighter."""
    losses = losses or (lambda model, batch: F.cross_entropy(model(batch[0]), batch[1], reduction="none"))
    methods = set()
    for _ in range(calls):
        batch, val_batch = data(n), data(m)
        for made in (apart,) if meets else (apart, joined):
            methods.add(exact(*made(copy.deepcopy(model), batch, val_batch, losses), goal=goal).method)
        s = oracle.scores(model, batch, val_batch, losses_fn=losses)
        found, report = fastrw.gradient_dots(model, batch, val_batch, losses_fn=losses, return_report=True)
        assert relative(found.double(), s.double()) <= goal, report
        saved, plain = oracle.state(model), copy.deepcopy(model)
        out = fastrw.Reweighter(model, losses_fn=losses).backward(batch, val_batch)
        assert relative(out.scores.double(), s.double()) <= goal
        losses(plain, batch)  # what one training forward moves, and no more
        for (name, a), b in zip(model.state_dict().items(), plain.state_dict().values(), strict=True):
            assert relative(a.double(), b.double()) <= goal, name
        oracle.put_back(saved)
        model.zero_grad()
    return methods


def by_views(net, h):
    """Writes in place, into a view, and into what has been read."""
    out = torch.zeros_like(h)
    out[:, :3].copy_(h[:, 3:])
    out[:, 3:] = net.inner(h)[:, :3]
    out += h
    z = net.inner(out).view(-1, 2, 3)
    z[:, 0].mul_(2).relu_()
    return out + net.gate * z.flatten(1)


def by_index(net, h):
    z = net.inner(h)
    keep = z > 0
    out = torch.zeros_like(z)
    out[keep] = z[keep] * z[keep]
    return out * z[torch.arange(len(z)), z.argmax(1)][:, None] + z.topk(6).values.flip(-1) + F.normalize(z)


def by_name(net, h):
    with torch.profiler.record_function("body"):
        return net.inner(h)[:, np.array([1, 0, 2, 4, 3, 5])] * torch.tensor(np.ones(6))


def by_vmap(net, h):
    return net.gate * torch.vmap(lambda z: net.inner(z).tanh())(h)


def by_jvp(net, h):
    return h + net.gate * torch.func.jvp(lambda z: net.inner(z).tanh(), (h,), (torch.ones_like(h),))[1]


def by_functionalize(net, h):
    return torch.func.functionalize(lambda z: net.inner(z).tanh_())(h)


def by_rolls(net, h):
    return net.inner(h.unflatten(1, (3, 2)).roll((1, 1), (1, 2)).flatten(1)).cumsum(1)


def by_ellipsis(net, h):
    q = net.inner(h)[:, None].expand(-1, 3, -1)
    return torch.einsum("...qd,...kd->...qk", q, q).softmax(-1) @ q


def by_float32(net, h):
    return (net.gate.float().exp() * F.softplus(net.inner(h).float() + net.gate)).double()


def by_empty_rows(net, h):
    first = torch.zeros(len(h), dtype=torch.long)  # every row goes to the first expert
    return torch.cat([layer(h[first == k]) for k, layer in enumerate((net.inner, nn.Linear(6, 6).double()))])


class Complex(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w, self.o = nn.Parameter(torch.randn(2, 3, dtype=torch.cdouble)), nn.Linear(4, 3)

    def forward(self, x):
        return self.o(torch.fft.irfft(torch.fft.rfft(x.view(-1, 2, 4)) * self.w, n=4).mean(1))


forward_mode = pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # torch's own, in the user's forward
BODIES = [by_views, by_index, by_name, by_vmap, by_functionalize, by_rolls, by_ellipsis, by_empty_rows]
BODIES.append(pytest.param(by_jvp, marks=forward_mode))


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_kinds_of_forward(body):
    torch.manual_seed(0)
    assert "layerwise" in every_word(Net(body).double(), rows)


def test_float32_within_float64():
    torch.manual_seed(0)
    every_word(Net(by_float32).double(), rows, goal=1e-5)


def test_a_complex_parameter():
    torch.manual_seed(0)
    for _ in range(2):
        for made in (apart, joined):
            exact(*made(Complex().double(), rows(6), rows(3)))


def each(model, batch):
    return torch.stack([F.cross_entropy(model(x[None])[0], y) for x, y in zip(*batch, strict=True)])


def stacked(model, batch):
    z = model(batch[0])
    return torch.stack([F.cross_entropy(z[i], batch[1][i]) for i in range(len(z))])


def ctc(model, batch):
    z, n = model(batch[0]).log_softmax(-1).expand(4, -1, -1), len(batch[1])
    targets = batch[1][:, None].clamp(min=1)
    return F.ctc_loss(z, targets, torch.full((n,), 4), torch.ones(n, dtype=torch.long), reduction="none")


@pytest.mark.parametrize("losses", [each, stacked, ctc], ids=lambda f: f.__name__)
def test_losses_that_loop_or_have_no_second_derivative(losses):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 6), nn.GELU(), nn.Linear(6, 3)).double()
    assert every_word(model, rows, losses) == {"layerwise"}
    model.insert(1, nn.BatchNorm1d(6).double())
    if losses is not each:
        assert every_word(model, rows, losses, meets=True) == {"tangent"}


class Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w):
        return w.sign()

    @staticmethod
    def backward(ctx, g):
        return g


class Shared(nn.Module):
    """One module at two places, its weight through a straight-through estimator."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.own = layer, nn.Linear(8, 8)

    def forward(self, x):
        return self.own(F.linear(x, Sign.apply(self.layer.weight), self.layer.bias)).tanh()


def test_a_module_at_two_places_stays_what_it_was():
    torch.manual_seed(0)
    one = nn.Linear(8, 8)
    model = nn.Sequential(Shared(one), Shared(one), nn.Linear(8, 3)).double()
    weight, value = one.weight, one.weight.detach().clone()
    every_word(model, rows)
    for method in ("tangent", "double_backward", "per_example"):
        fastrw.gradient_dots(model, rows(5), rows(3), method=method)
    assert one.weight is weight and isinstance(one.weight, nn.Parameter) and torch.equal(weight, value)


class Packed(nn.Module):
    def __init__(self, pruned=False):
        super().__init__()
        self.r, self.o = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3)
        if pruned:
            prune.l1_unstructured(self.r, "weight_hh_l0", 0.3)

    def forward(self, x, lengths=None):
        if lengths is None:
            return self.o(self.r(x)[0][:, -1])
        out, _ = self.r(pack_padded_sequence(x, lengths, batch_first=True))
        return self.o(pad_packed_sequence(out, batch_first=True, total_length=x.shape[1])[0].mean(1))


def test_packed_rows_of_other_lengths_are_measured_anew():
    torch.manual_seed(0)
    model = Packed().double()

    def losses(model, batch):
        return F.cross_entropy(model(batch[0], batch[1]), batch[2], reduction="none")

    def batch(lengths):
        return torch.randn(len(lengths), 8, 4).double(), torch.tensor(lengths), torch.randint(3, (len(lengths),))

    for lengths in ([4] * 6, [4] * 6, [6, 6, 4, 4, 2, 2], [8, 5, 5, 3, 2, 1], [7, 4, 4, 4, 3, 3], [6, 6, 4, 4, 2, 2]):
        given = batch(lengths), batch([4, 4, 4])
        assert exact(*apart(model, *given, losses)).method == "layerwise"
        s = oracle.scores(model, *given, losses_fn=losses)
        assert relative(fastrw.gradient_dots(model, *given, losses_fn=losses), s) <= 1e-10
        assert relative(fastrw.Reweighter(model, losses_fn=losses).backward(*given).scores, s) <= 1e-10


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_weights_that_a_hook_sets_anew_at_each_forward(dtype):
    torch.manual_seed(0)
    model = Packed(pruned=True)
    model(torch.randn(2, 7, 4))
    model.to(dtype)
    for _ in range(3):
        batch, val_batch = ((torch.randn(n, 7, 4).to(dtype), torch.randint(3, (n,))) for n in (6, 3))
        exact(*apart(model, batch, val_batch), goal=1e-10 if dtype == torch.float64 else 1e-5)


def test_unpadded_rows():
    torch.manual_seed(0)

    def losses(model, batch):
        x, keep, y = batch
        h = model[0](x[keep]).tanh()
        return F.cross_entropy(model[1](torch.segment_reduce(h, "mean", lengths=keep.sum(1))), y, reduction="none")

    model = nn.ModuleList([nn.Linear(8, 6), nn.Linear(6, 3)]).double()
    for lengths in ([6, 6, 4, 4, 2, 2], [2, 2, 4, 4, 6, 6], [4] * 6):
        keep = torch.arange(6) < torch.tensor(lengths)[:, None]
        val = torch.arange(6) < torch.tensor([[3], [5], [1]])
        batches = ((sequences(len(k))[0], k, torch.randint(3, (len(k),))) for k in (keep, val))
        exact(*apart(model, *batches, losses))


def test_block_diagonal_masks_of_floats():
    """Examples packed into one row of attention: nothing but zeros keeps them apart."""
    torch.manual_seed(0)
    model = Net(lambda net, h: h, p=8).double()

    def losses(model, batch):
        x, owner = batch
        q = model.enter(x)
        mask = torch.where(owner[:, None] == owner, 0.0, -torch.inf).double()
        h = model.inner((q @ q.T + mask).softmax(-1) @ q)
        member = F.one_hot(owner, int(owner.max()) + 1).double()
        return (member.T @ model.head(h).pow(2).sum(1, keepdim=True)).flatten()

    for sizes in ([2, 2, 2, 2], [3, 1, 3, 1], [1, 1, 1, 5], [2, 2, 2, 2]):
        owner = torch.arange(4).repeat_interleave(torch.tensor(sizes))
        exact(*apart(model, (torch.randn(8, 8).double(), owner), (torch.randn(8, 8).double(), owner), losses))


def test_gates_that_open_later():
    """What has no gradient at the first call has an owner, or none, at the next."""
    torch.manual_seed(0)
    for side in (
        lambda net, h: net.inner(h).relu(),
        lambda net, h: net.inner(h - h.mean(0)),
        lambda net, h: h.roll(1, 0),
    ):
        model = Net(lambda net, h, side=side: h + net.gate * side(net, h)).double()
        for gate in (0.0, 0.0, 1.0, 0.5, 0.0):
            nn.init.constant_(model.gate, gate)
            losses, val_loss = apart(model, rows(7), rows(4))
            exact(losses, val_loss)
            with pytest.raises(RuntimeError, match="second time"):  # freed, also by a call that had to measure again
                losses.sum().backward()


def test_a_scale_that_hides_a_use_at_first():
    torch.manual_seed(0)
    model = Net(lambda net, h: h + net.gate * F.relu(net.inner(h), inplace=True)).double()
    for gate in (1e-9, 1.0):
        nn.init.constant_(model.gate, gate)
        every_word(model, sequences)


@pytest.mark.parametrize("kind", [dict, UserDict])
def test_batches_of_any_mapping_with_anything_in_them(kind):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)).double()

    def losses(model, batch):
        return F.cross_entropy(model(batch["x"].to_dense()), batch["y"], reduction="none")

    for more in ({}, {"id": np.arange(3)}, {"sparse": True}):
        x, y = rows(7)
        xv, yv = rows(4)
        if more.pop("sparse", False):
            x, xv = x.to_sparse_csr(), xv.to_sparse_csr()
        batch, val_batch = kind(x=x, y=y, **more), kind(x=xv, y=yv, **more)
        s = oracle.scores(model, batch, val_batch, losses_fn=losses)
        out = fastrw.Reweighter(model, losses_fn=losses).backward(batch, val_batch)
        assert relative(out.scores, s) <= 1e-10 and (out.method, out.update) == ("layerwise", "assembled")


def test_data_parallel():
    torch.manual_seed(0)
    every_word(nn.DataParallel(nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)).double()), rows)


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.BatchNorm1d])
@pytest.mark.parametrize("place", ["round the call", "inside"])
def test_autocast(norm, place):
    """Its cache of cast weights is not in the way."""
    torch.manual_seed(0)
    layers = [layer for _ in range(3) for layer in (nn.Linear(32, 32), norm(32), nn.ReLU())]
    net = nn.Sequential(*layers, nn.Linear(32, 3))

    def losses(model, batch):
        with torch.autocast("cpu", torch.bfloat16, enabled=place == "inside" or torch.is_autocast_enabled("cpu")):
            return F.cross_entropy(model(batch[0]).float(), batch[1], reduction="none")

    batch, val_batch = ((torch.randn(n, 32), torch.randint(3, (n,))) for n in (16, 8))
    step = fastrw.Reweighter(net, losses_fn=losses)
    for _ in range(4):
        with torch.autocast("cpu", torch.bfloat16, enabled=place != "inside"):
            out = step.backward(batch, val_batch)
        assert out.method == ("tangent" if norm is nn.BatchNorm1d else "layerwise")


def test_several_processes_are_refused_with_the_way_out(monkeypatch):
    model = nn.Linear(8, 3).double()
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    for call in (
        lambda: fastrw.backward(*apart(model, rows(5), rows(3))),
        lambda: fastrw.meta_weights(model, rows(5), rows(3)),
        lambda: fastrw.Reweighter(model).backward(rows(5), rows(3)),
    ):
        with pytest.raises(fastrw.Refused, match=r"torch\.distributed with 2"):
            call()
    assert model.weight.grad is None


def test_a_synchronised_norm_is_refused_by_name():
    model = nn.Sequential(nn.Linear(8, 6), nn.SyncBatchNorm(6), nn.Linear(6, 3)).double()
    with pytest.raises(fastrw.Refused, match=r"SyncBatchNorm '1'"):
        fastrw.meta_weights(model, rows(5), rows(3))
    with pytest.raises(fastrw.Refused, match=r"SyncBatchNorm '1'"):
        fastrw.Reweighter(model).backward(rows(5), rows(3))
    model.eval()
    every_word(model, rows)


def test_a_share_of_a_parameter_is_refused(tmp_path):
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, distribute_module

    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        model = distribute_module(nn.Linear(8, 3).double(), mesh)
        assert type(model.weight.data).__name__ == "DTensor" and Replicate
        with pytest.raises(fastrw.Refused, match="DTensor"):
            fastrw.meta_weights(model, rows(5), rows(3))
    finally:
        dist.destroy_process_group()


def test_rows_written_in_an_order_that_changes():
    """Which slice a write filled is not on the graph."""
    torch.manual_seed(0)

    def by_order(net, h):
        out = torch.zeros_like(h)
        for k, i in enumerate(net.order):
            out[i] = h[k].sin()
        return net.inner(out)

    model = Net(by_order).double()

    def losses(model, batch):
        model.order = range(len(batch[1])) if straight else reversed(range(len(batch[1])))
        return F.cross_entropy(model(batch[0]), batch[1], reduction="none")

    for straight in (True, True, False, True, False, False, False):  # noqa: B007
        exact(*apart(model, rows(6), rows(3), losses))


def test_rows_of_a_table_that_the_batch_makes():
    torch.manual_seed(0)
    model = Net(lambda net, h: net.inner(F.embedding(net.idx, h))).double()
    for order in ([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5], [5, 3, 1, 0, 2, 4], [0, 1, 2, 3, 4, 5]):
        val = rows(3)

        def losses(model, batch, order=order):
            model.idx = torch.tensor(order)[: len(batch[1])] % len(batch[1])
            return F.cross_entropy(model(batch[0]), batch[1], reduction="none")

        exact(*apart(model, rows(6), val, losses))


def test_slices_picked_in_an_order_that_changes():
    torch.manual_seed(0)

    def picked(net, h):
        return net.inner(torch.stack([h[i] for i in net.order]))

    model = Net(picked).double()
    for order in ([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [2, 0, 1, 4, 3, 5]):

        def losses(model, batch, order=order):
            model.order = [i for i in order if i < len(batch[1])]
            return F.cross_entropy(model(batch[0]), batch[1], reduction="none")

        exact(*apart(model, rows(6), rows(3), losses))


def test_a_partial_is_a_losses_fn_like_any_other():
    """Its batch may be anything: only the default loss knows of (inputs, targets)."""

    def losses(model, batch, power):
        return (model(batch["x"]) - batch["y"]).abs().pow(power).sum(1)

    torch.manual_seed(0)
    model = nn.Linear(5, 3).double()
    batch, val_batch = ({"x": torch.randn(n, 5).double(), "y": torch.randn(n, 3).double()} for n in (6, 4))
    f = partial(losses, power=3)
    s = oracle.scores(model, batch, val_batch, losses_fn=f)
    assert relative(fastrw.gradient_dots(model, batch, val_batch, losses_fn=f), s) <= 1e-10
    assert relative(fastrw.Reweighter(model, losses_fn=f).backward(batch, val_batch).scores, s) <= 1e-10


def test_sizes_of_a_parameter_that_are_those_of_the_batch_mix_nothing():
    """A weight [4, 6, 5] seen through views, with 6 training and 4 validation examples."""
    torch.manual_seed(0)
    model = nn.Module()
    model.weight = nn.Parameter(torch.randn(4, 6, 5).double())
    model.forward = lambda x: torch.einsum("bij,ijk->bk", x, model.weight)
    batch, val_batch = ((torch.randn(n, 4, 6).double(), torch.arange(n) % 5) for n in (6, 4))
    s = oracle.scores(model, batch, val_batch)
    found, report = fastrw.gradient_dots(model, batch, val_batch, method="layerwise", return_report=True)
    assert relative(found, s) <= 1e-10 and report.method == "layerwise"
