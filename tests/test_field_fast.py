"""Models in which no operation mixes the batch are cut where they take their parameters, by every call; sizes of
parameters that are those of the batch deceive nobody."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, prune

import fastrw
from fastrw.engine import owners
from tests import oracle
from tests.on_graph import apart, exact, joined, relative

SIZES = [(16, 8), (7, 4)]  # 16 and 24 = 16 + 8 are widths of the layers here
W = 16


def cross_entropy(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def fast(model, data, losses=cross_entropy, n=16, m=8, calls=2, joins=True):
    """By every word: exact, layerwise and assembled."""
    for _ in range(calls):
        batch, val_batch = data(n), data(m)
        for made in (apart, joined) if joins else (apart,):
            out = exact(*made(model, batch, val_batch, losses))
            assert (out.method, out.update) == ("layerwise", "assembled"), out.refused
        s = oracle.scores(model, batch, val_batch, losses_fn=losses)
        found, report = fastrw.gradient_dots(model, batch, val_batch, losses_fn=losses, return_report=True)
        assert relative(found, s) <= 1e-10 and report.method == "layerwise", report
        saved = oracle.state(model)
        out = fastrw.Reweighter(model, losses_fn=losses).backward(batch, val_batch)
        assert relative(out.scores, s) <= 1e-10
        assert (out.method, out.update) == ("layerwise", "assembled"), out.refused
        oracle.put_back(saved)
        model.zero_grad()


def sequences(n, T=5, p=8):
    return torch.randn(n, T, p).double(), torch.randint(3, (n,))


def rows(n, p=8):
    return torch.randn(n, p).double(), torch.randint(3, (n,))


def images(n):
    return torch.randn(n, 3, 8, 8).double(), torch.randint(3, (n,))


class Net(nn.Module):
    """`body(net, h)` between two layers."""

    def __init__(self, body, images=False):
        super().__init__()
        self.enter = nn.Conv2d(3, W, 3, padding=1) if images else nn.Linear(8, W)
        self.inner = nn.Conv2d(W, W, 3, padding=1) if images else nn.Linear(W, W)
        self.other, self.wide, self.head, self.body = nn.Linear(W, W), nn.Linear(W, 3 * W), nn.Linear(W, 3), body
        self.gate, self.square, self.table = (nn.Parameter(torch.rand(s)) for s in ((W,), (5, 5), (9, 2)))
        self.place = torch.randint(9, (9,))

    def forward(self, x):
        h = self.body(self, self.enter(x).tanh())
        return self.head(h.mean((2, 3)) if h.ndim == 4 else h.mean(1) if h.ndim == 3 else h)


def by_order(net, h):
    best = torch.take_along_dim(net.inner(h), h.argsort(1), 1).sort(-1).values
    return best.flip(1) + h.gather(1, h.sum(-1).topk(5, 1).indices[..., None].expand_as(h)).cummax(1).values


def by_assignment(net, h):
    out, z = torch.zeros_like(h), net.inner(h)
    out[h > 0] = z[h > 0]
    out[z.sum(-1) > 0] = net.gate
    return net.other(out.masked_scatter(h > 0, z[h > 0] * 2)) + F.pad(z, (0, 0, 1, 1))[:, 1:-1]


def by_loop(net, h):
    return torch.stack([net.other(net.inner(h[i, : 1 + i % 4]).softmax(0)).mean(0) for i in range(len(h))])


def by_writes(net, h):
    out = torch.empty_like(h)
    for i in range(len(h)):
        out[i] = net.inner(h[i])
    return out


def by_windows(net, h):
    """Swin's: shifted windows of 3, a table of biases."""
    x = F.pad(h, (0, 0, 0, 1)).roll(-1, 1).view(-1, 3, W)
    q, k, v = net.wide(x).view(-1, 3, 3, 2, W // 2).permute(2, 0, 3, 1, 4)
    attention = (q @ k.mT + net.table[net.place].view(3, 3, 2).permute(2, 0, 1)).softmax(-1)
    return (attention @ v).transpose(1, 2).reshape(len(h), 6, W).roll(1, 1)


def by_bias(net, h):
    q, k, v = (t[:, None] for t in net.wide(h).chunk(3, -1))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=net.square.expand(len(h), 1, 5, 5))[:, 0]


def by_causal_mask(net, h):
    """As Hugging Face makes it of an attention mask."""
    kept = torch.ones(len(h), 5).bool()
    kept[0, 0] = False
    mask = torch.ones(5, 5).tril().bool() & kept[:, None, None]
    mask = torch.zeros(mask.shape).double().masked_fill(~mask, torch.finfo(torch.float64).min)
    q, k, v = (t.unflatten(-1, (2, -1)).transpose(1, 2) for t in net.wide(h).chunk(3, -1))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


def by_einsum(net, h):
    z = torch.einsum("...d,ed->...e", h, net.inner.weight)
    return torch.einsum("...qd,...kd->...qk", z, h).softmax(-1) @ z


def by_router(net, h):
    x, out = h.flatten(0, 1), torch.zeros_like(h.flatten(0, 1))
    gates, experts = x[:, :2].softmax(-1).topk(1, -1)
    for k, layer in enumerate((net.inner, net.other)):
        row, slot = (experts == k).nonzero(as_tuple=True)
        out = out.index_add(0, row, layer(x[row]) * gates[row, slot, None])
    return out.view_as(h)


def by_spectrum(net, h):
    z = torch.fft.rfft(net.inner(h), dim=1) * torch.polar(net.gate, net.gate)
    return torch.fft.irfft(z, n=5, dim=1)


SEQUENCES = [by_order, by_assignment, by_loop, by_writes, by_windows, by_bias, by_causal_mask, by_einsum, by_router,
             by_spectrum]  # fmt: skip


@pytest.mark.parametrize(("n", "m"), SIZES)
@pytest.mark.parametrize("body", SEQUENCES, ids=lambda body: body.__name__)
def test_sequences(body, n, m):
    torch.manual_seed(0)
    fast(Net(body).double(), sequences, n=n, m=m)


def by_crops(net, h):
    at = torch.randint(3, (len(h), 2)).tolist()
    return net.inner(torch.stack([one[:, i : i + 5, j : j + 5] for one, (i, j) in zip(h, at, strict=True)]))


def by_flips(net, h):
    flipped, h = torch.rand(len(h)) < 0.5, h.clone()
    h[flipped] = h[flipped].flip(-1)
    return net.inner(h)


def by_erasing(net, h):
    h = h.clone()
    for k in range(len(h)):
        i, j = torch.randint(5, (2,)).tolist()
        h[k, :, i : i + 3, j : j + 3] = 0
    return net.inner(h)


def by_jitter(net, h):
    mean = h.mean((1, 2, 3), keepdim=True)
    return net.inner((h - mean) * torch.rand(len(h), 1, 1, 1).double() + mean)


def by_drop_path(net, h):
    kept = torch.randperm(len(h))[: len(h) // 2]
    h = torch.index_add(h, 0, kept, net.inner(h[kept]), alpha=2.0)
    return h + net.inner(h) * torch.bernoulli(torch.full((len(h), 1, 1, 1), 0.5).double())


def by_dropout(net, h):
    return F.dropout2d(net.inner(F.alpha_dropout(h, 0.2, True)), 0.2) + F.conv2d(
        h, F.dropout(net.inner.weight), padding=1
    )


def by_sampling(net, h):
    move = net.inner(h)[:, :2].permute(0, 2, 3, 1)
    grid = F.affine_grid(torch.eye(2, 3).double().expand(len(h), 2, 3), list(h.shape), align_corners=False)
    value, where = F.max_pool2d(F.grid_sample(h, grid + 0.1 * move, align_corners=False), 2, return_indices=True)
    return F.interpolate(F.max_unpool2d(value, where, 2), size=5, mode="bilinear")


def by_modulation(net, h):
    """StyleGAN 2's: a kernel for each example."""
    n, c, height, width = h.shape
    kernel = net.inner.weight * net.other(h.mean((2, 3)))[:, None, :, None, None]
    kernel = kernel * kernel.square().sum((2, 3, 4), keepdim=True).add(1e-8).rsqrt()
    h = F.conv2d(h.reshape(1, n * c, height, width), kernel.flatten(0, 1), padding=1, groups=n)
    return h.view(n, c, height, width)


def by_standardised_weights(net, h):
    kernel = F.batch_norm(net.inner.weight.view(1, W, -1), None, None, training=True).view_as(net.inner.weight)
    return F.conv2d(h, kernel, net.inner.bias * 0.3, padding=1)


IMAGES = [by_crops, by_flips, by_erasing, by_jitter, by_drop_path, by_dropout, by_sampling, by_modulation,
          by_standardised_weights]  # fmt: skip
DRAW = {by_crops, by_flips, by_erasing, by_jitter, by_drop_path, by_dropout}


@pytest.mark.parametrize(("n", "m"), SIZES)
@pytest.mark.parametrize("body", IMAGES, ids=lambda body: body.__name__)
def test_images(body, n, m):
    torch.manual_seed(0)
    fast(Net(body, images=True).double(), images, n=n, m=m, calls=1 if body in DRAW else 2)


class Adapted(nn.Module):
    """A frozen layer and what is trained beside it."""

    def __init__(self, kind):
        super().__init__()
        self.layer, self.head, self.kind = nn.Linear(8, W).requires_grad_(False), nn.Linear(W, 3), kind
        self.a, self.b, self.scale = (nn.Parameter(torch.randn(s)) for s in ((2, 8), (W, 2), (W,)))
        self.left, self.right = nn.Parameter(torch.randn(4, 2)), nn.Parameter(torch.randn(4, 4))
        self.register_buffer("mask", torch.rand(W, 8).round())

    def forward(self, x):
        frozen = self.layer.weight
        match self.kind:
            case "dora":
                weight = frozen + self.b @ self.a
                weight = self.scale[:, None] * weight / weight.norm(dim=1, keepdim=True)
            case "lokr":
                weight = frozen + torch.kron(self.left, self.right)
            case "loha":
                weight = frozen + (self.b @ self.a) * (self.b @ self.a).tanh()
            case "oft":
                skew, one = self.right - self.right.mT, torch.eye(4).double()
                turn = torch.linalg.solve(one + skew, one - skew)
                weight = frozen @ torch.block_diag(turn, turn)
            case "masked":
                weight = (self.b @ self.a) * self.mask
            case "ia3":
                return self.head(self.layer(x) * self.scale)
        return self.head(F.linear(x, weight, self.layer.bias).tanh())


def layers(first):
    return nn.Sequential(first, nn.Tanh(), nn.Linear(W, 3)).double()


PARAMETERS = {
    **{kind: (lambda kind=kind: Adapted(kind).double()) for kind in ("dora", "lokr", "loha", "oft", "masked", "ia3")},
    "weight norm": lambda: layers(parametrizations.weight_norm(nn.Linear(8, W))),
    "spectral norm": lambda: layers(parametrizations.spectral_norm(nn.Linear(8, W)).eval()),
    "quantised": lambda: Net(lambda net, h: F.linear(h, Sign.apply(net.inner.weight))).double(),
    "pruned": lambda: layers(prune.l1_unstructured(nn.Linear(8, W), "weight", 0.3)),
}


@pytest.mark.parametrize(("n", "m"), [*SIZES, (11, 5)])
@pytest.mark.parametrize("kind", PARAMETERS)
def test_what_is_made_of_parameters_mixes_nothing(kind, n, m):
    torch.manual_seed(0)
    fast(PARAMETERS[kind](), rows, n=n, m=m)


def test_a_frozen_model_with_a_prompt():
    class Prompted(nn.Module):
        def __init__(self):
            super().__init__()
            self.prompt = nn.Parameter(torch.randn(3, 8))
            self.body, self.head = nn.TransformerEncoderLayer(8, 2, W, 0.0, batch_first=True), nn.Linear(8, 3)
            self.body.requires_grad_(False)

        def forward(self, x):
            return self.head(self.body(torch.cat([self.prompt.expand(len(x), -1, -1), x], 1))[:, 0])

    torch.manual_seed(0)
    fast(Prompted().double(), sequences)


def dice(model, batch):
    z, y = model(batch[0]).softmax(1), F.one_hot(batch[1], 3).double()
    return torch.stack([1 - 2 * (z[i] * y[i]).sum() / (z[i] + y[i]).sum() for i in range(len(z))])


def matched(model, batch):
    """A detector's: each target takes its nearest output."""
    found = []
    for z, y in zip(model(batch[0]), batch[1], strict=True):
        targets = torch.arange(int(y) + 1).double()
        found.append(F.l1_loss(z[(z[:, None] - targets).abs().argmin(0)], targets))
    return torch.stack(found)


def written(model, batch):
    z = model(batch[0])
    found = torch.zeros(len(z), dtype=z.dtype)
    for i in range(len(z)):
        found[i] += F.cross_entropy(z[i], batch[1][i])
    return found


def ctc(model, batch):
    z = model(batch[0])[:, None].expand(-1, 4, -1).log_softmax(-1)
    each = zip(z, batch[1].clamp(min=1), strict=True)
    return torch.stack([F.ctc_loss(one, y[None], torch.tensor(4), torch.tensor(1), reduction="sum") for one, y in each])


def penalised(model, batch):
    """It takes gradients itself."""
    x = batch[0].clone().requires_grad_()
    z = model(x)
    (g,) = torch.autograd.grad(z.square().sum(), x, create_graph=True)
    return F.cross_entropy(z, batch[1], reduction="none") + g.square().sum(1)


def with_an_unused_scalar(model, batch):
    z = model(batch[0])
    model.auxiliary = (z - z.mean(0)).square().sum()
    return F.cross_entropy(z, batch[1], reduction="none")


LOSSES = [dice, matched, written, ctc, penalised, with_an_unused_scalar]


@pytest.mark.parametrize("losses", LOSSES, ids=lambda losses: losses.__name__)
def test_losses(losses):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, W), nn.GELU(), nn.Linear(W, 3)).double()
    if losses is with_an_unused_scalar:
        for made in (apart, joined):
            assert exact(*made(model, rows(7), rows(4), losses)).update == "assembled"
    else:
        fast(model, rows, losses, 7, 4)


class Quantised(nn.Module):
    """A codebook that follows the batches."""

    def __init__(self):
        super().__init__()
        self.enter, self.head = nn.Linear(8, W), nn.Linear(W, 3)
        self.register_buffer("book", torch.randn(5, W))

    def forward(self, x):
        h = self.enter(x)
        nearest = torch.cdist(h, self.book).argmin(-1)
        found = self.book[nearest]
        with torch.no_grad():
            self.book.lerp_(F.one_hot(nearest, 5).to(h.dtype).mT @ h, 0.01)
        return self.head(h + (found - h).detach())


def test_a_codebook():
    torch.manual_seed(0)
    fast(Quantised().double(), rows)


class Graphs(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.enter, self.inner, self.head, self.score = (
            nn.Linear(8, W),
            nn.Linear(W, W),
            nn.Linear(W, 3),
            nn.Linear(W, 1),
        )
        self.kind = kind

    def pass_on(self, h, edges):
        a, b = edges
        match self.kind:
            case "index_add":
                return torch.zeros_like(h).index_add(0, b, h.index_select(0, a))
            case "scatter_reduce":
                return torch.zeros_like(h).scatter_reduce(0, b[:, None].expand(-1, W), h[a], "amax")
            case "segments":
                order, counts = b.argsort(stable=True), torch.bincount(b, minlength=len(h))
                return torch.segment_reduce(h[a[order]], "sum", lengths=counts)
            case "sparse":
                ones = torch.ones(len(a)).double()
                return torch.sparse_coo_tensor(edges.flip(0), ones, (len(h),) * 2, check_invariants=True) @ h
            case "attention":
                weight = self.score(h[a] + h[b]).exp()
                total = torch.zeros(len(h), 1).double().index_add(0, b, weight)
                return torch.zeros_like(h).index_add(0, b, h[a] * weight) / (total + 1)

    def forward(self, graphs):
        x, edges, owner, n = graphs
        h = self.enter(x).tanh()
        h = h + self.inner(self.pass_on(h, edges)).tanh()
        return self.head(torch.zeros(n, W).double().index_add(0, owner, h))


def graphs(n):
    sizes = torch.randint(2, 6, (n,))
    owner, first = torch.arange(n).repeat_interleave(sizes), sizes.cumsum(0) - sizes
    a = torch.randint(len(owner), (3 * len(owner),))
    b = first[owner[a]] + torch.randint(60, a.shape) % sizes[owner[a]]
    return (torch.randn(len(owner), 8).double(), torch.stack([a, b]), owner, n), torch.randint(3, (n,))


@pytest.mark.parametrize("kind", ["index_add", "scatter_reduce", "segments", "sparse", "attention"])
def test_graphs(kind):
    torch.manual_seed(0)
    fast(Graphs(kind).double(), graphs, joins=False)


class Ensemble(nn.Module):
    """Four models in one, by vmap."""

    def __init__(self):
        super().__init__()
        made = [nn.Sequential(nn.Linear(8, W), nn.LayerNorm(W), nn.Tanh(), nn.Linear(W, 3)) for _ in range(4)]
        stacked, _ = torch.func.stack_module_state(made)
        self.names, self.stacked = list(stacked), nn.ParameterList([nn.Parameter(t.detach()) for t in stacked.values()])
        self.one = [made[0].to("meta")]  # not a part of this model

    def forward(self, x):
        def call(parameters, x):
            return torch.func.functional_call(self.one[0], parameters, (x,))

        return torch.vmap(call, (0, None))(dict(zip(self.names, self.stacked, strict=True)), x).mean(0)


def test_an_ensemble_by_vmap():
    torch.manual_seed(0)
    for n, m in SIZES:
        fast(Ensemble().double(), rows, n=n, m=m)


class Complex(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.layer, self.turn = nn.Linear(4, W, dtype=torch.cdouble), nn.Parameter(torch.randn(W, dtype=torch.cdouble))
        self.conv, self.head, self.kind = nn.Conv1d(1, W, 3, dtype=torch.cdouble), nn.Linear(W, 3).double(), kind

    def forward(self, x):
        z = torch.view_as_complex(x.view(-1, 4, 2))
        if self.kind == "conv":
            return self.head((self.conv(z[:, None]).mean(-1) + self.turn).abs())
        z = self.layer(z) * self.turn
        return self.head(
            torch.complex(z.real.relu(), z.imag).abs() if self.kind == "linear" else (z @ z.mH).real[:, :1] + z.imag
        )


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_complex_layers(kind):
    torch.manual_seed(0)
    model = Complex(kind)
    fast(model, rows)
    batch, val_batch = rows(6), rows(3)
    for params in (None, "last", ["turn"], ["layer.*", "head.*"]):
        s = oracle.scores(model, batch, val_batch, params=params)
        for method in ("layerwise", "tangent", "double_backward", "per_example"):
            found = fastrw.gradient_dots(model, batch, val_batch, params=params, method=method)
            assert relative(found, s) <= 1e-10, (params, method)
    assert fastrw.verify(model, batch, val_batch).ok
    model._apply(lambda t: t.to(torch.cfloat if t.is_complex() else torch.float32))
    batch, val_batch = ((x.float(), y) for x, y in (batch, val_batch))
    assert fastrw.verify(model, batch, val_batch).ok


def test_a_selection_that_no_loss_depends_on_scores_nothing():
    torch.manual_seed(0)
    model = nn.ModuleDict({"used": nn.Linear(8, 3), "idle": nn.Linear(8, 3)}).double()

    def losses(model, batch):
        return cross_entropy(model["used"], batch)

    for method in ("auto", "tangent", "double_backward", "per_example"):
        s = fastrw.gradient_dots(model, rows(5), rows(3), losses_fn=losses, params=["idle.*"], method=method)
        assert torch.equal(s, torch.zeros(5).double())


class Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w):
        return w.sign()

    @staticmethod
    def backward(ctx, g):
        return g


class Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x @ w.mT

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return g @ w, g.mT @ x


def whys(body, n=7, bn=False):
    torch.manual_seed(0)
    model = Net(body)
    model.norm = nn.BatchNorm1d(W)
    report = fastrw.explain(model.double(), rows(n), rows(4))
    return report, {use.op: use.why for use in report.uses}


def test_explain_says_for_each_use_why_the_cut_is_not_lower():
    report, why = whys(lambda net, h: F.linear(h, Sign.apply(net.inner.weight)))
    assert why["AddmmBackward0"].startswith("it takes the parameter; ")
    assert why["MmBackward0"].startswith("it takes what SignBackward makes of the parameter; ")
    assert all(use.why in str(report) for use in report.uses) and report.method == "layerwise"
    _, why = whys(lambda net, h: Product.apply(h, net.inner.weight))
    assert why["ProductBackward"].startswith("a custom function takes the parameter, and hides its operands; ")
    for n in (7, W):
        report, why = whys(lambda net, h: h + net.norm(net.inner(h)).relu(), n)
        assert why["NativeBatchNormBackward0"].startswith("it mixes the batch dimension; ")
        assert why["AddBackward0"].startswith("below it, NativeBatchNormBackward0 mixes the batch dimension; ")
        assert report.refused == {"layerwise": "NativeBatchNormBackward0 mixes the batch dimension"}
    report, why = whys(lambda net, h: h - h.mean(0))
    assert why["SubBackward0"].startswith("below it, MeanBackward1 mixes the batch dimension; ")
    report, why = whys(lambda net, h: h + (h @ h.mT).tanh() @ h)
    assert any("below it, MmBackward0 mixes the batch dimension" in one for one in why.values())
    report = fastrw.explain(Net(lambda net, h: h).double(), rows(7), rows(4), method="tangent")
    assert [use.why.partition(";")[0] for use in report.uses] == ['method="tangent" cuts at the losses']


def test_what_an_expanded_parameter_is_added_to_has_a_batch_dimension():
    """The sum has the shape of the expanded parameter, and of the batch."""

    class Prompted(nn.Module):
        def __init__(self):
            super().__init__()
            self.token, self.norm, self.head = nn.Parameter(torch.randn(W)), nn.BatchNorm1d(W), nn.Linear(W, 3)

        def forward(self, x):
            return self.head(self.norm(x + self.token.expand(len(x), W)))

    torch.manual_seed(0)
    for n, m in itertools.product((7, W), (4, 8)):
        model, batch, val_batch = Prompted().double(), rows(n, W), rows(m, W)
        s = oracle.scores(model, batch, val_batch)
        out = fastrw.Reweighter(model).backward(batch, val_batch)
        assert relative(out.scores, s) <= 1e-10 and out.method == "tangent"


class ByFirst(nn.Module):
    """Classifies by the first of more positions than there are examples: others get no gradient in the last layer."""

    def __init__(self, turned):
        super().__init__()
        self.enter, self.mix, self.inner, self.head = nn.Linear(8, W), nn.Linear(W, W), nn.Linear(W, W), nn.Linear(W, 3)
        self.turned = turned

    def forward(self, x):
        h = self.enter(x).tanh()
        h = h + ((h @ h.mT).softmax(-1) @ self.mix(h))
        if self.turned:  # positions first, as nn.MultiheadAttention has them
            return self.head(self.inner(h.transpose(0, 1)).tanh()[0])
        return self.head(self.inner(h).tanh()[:, 0])


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("length", [9, 17])
def test_what_one_position_of_many_gets_is_learned_once(turned, length, monkeypatch):
    measured, measure = [], owners.measure
    monkeypatch.setattr(owners, "measure", lambda *args: measured.append(1) or measure(*args))
    torch.manual_seed(0)
    model = ByFirst(turned).double()
    step = fastrw.Reweighter(model)
    for _ in range(5):
        batch, val_batch = ((torch.randn(n, length, 8).double(), torch.randint(3, (n,))) for n in (7, 4))
        out = step.backward(batch, val_batch)
        assert relative(out.scores, oracle.scores(model, batch, val_batch)) <= 1e-10
        assert (out.method, out.update) == ("layerwise", "assembled")
    assert len(measured) == 1
