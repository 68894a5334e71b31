"""fastrw.backward(losses, val_loss): losses of the user's own making, from one forward or two; exact or refused."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import fastrw
from tests.on_graph import apart, cross_entropy, exact, joined, relative, truth

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")


def images(n):
    return torch.randn(n, 2, 8, 8).double(), torch.randint(3, (n,))


def rows(n):
    return torch.randn(n, 8).double(), torch.randint(3, (n,))


def tokens(n):
    return torch.randint(20, (n, 6)), torch.randint(3, (n,))


def convolutional(norm):
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), norm(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, bias=False), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3),
    )  # fmt: skip


MODELS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)), rows),
    "group norm": (lambda: convolutional(lambda c: nn.GroupNorm(2, c)), images),
    "text": (
        lambda: nn.Sequential(nn.Embedding(20, 8), nn.LayerNorm(8), nn.GELU(), nn.Flatten(), nn.Linear(48, 3)),
        tokens,
    ),
    "batch norm": (lambda: convolutional(nn.BatchNorm2d), images),
    "batch norm that stands": (lambda: convolutional(nn.BatchNorm2d).eval(), images),
}


@pytest.mark.quick
@pytest.mark.parametrize("made", [apart, joined])
@pytest.mark.parametrize("name", MODELS)
def test_losses_of_one_forward_or_of_two(name, made):
    torch.manual_seed(0)
    make, data = MODELS[name]
    model = make().double()
    for _ in range(4):  # measured, checked, from what was learned, checked
        out = exact(*made(model, data(7), data(4)))
        assert out.method == ("tangent" if name == "batch norm" else "layerwise")
        assert out.update == ("backward" if name == "batch norm" else "assembled")
        assert out.uses and not out.weights.requires_grad


@pytest.mark.parametrize("method", ["layerwise", "tangent", "double_backward", "per_example"])
@pytest.mark.parametrize("made", [apart, joined])
def test_methods_by_name(method, made):
    torch.manual_seed(0)
    model = MODELS["mlp"][0]().double()
    for _ in range(2):
        assert exact(*made(model, rows(6), rows(3)), method=method).method == method


@pytest.mark.parametrize("update", ["assembled", "backward"])
@pytest.mark.parametrize("made", [apart, joined])
def test_updates_by_name(update, made):
    torch.manual_seed(0)
    model = MODELS["group norm"][0]().double()
    for _ in range(3):
        assert exact(*made(model, images(6), images(3)), update=update).update == update


@pytest.mark.parametrize("name", ["mlp", "batch norm"])
@pytest.mark.parametrize("made", [apart, joined])
def test_scores_by_a_few_parameters_and_gradients_for_all(name, made):
    torch.manual_seed(0)
    make, data = MODELS[name]
    model = make().double()
    for params in ([model[-1].weight], list(model[-1].parameters()), [model[0].weight, model[-1].bias]):
        for _ in range(3):
            exact(*made(model, data(7), data(4)), params)


def test_a_validation_loss_of_several_is_averaged():
    torch.manual_seed(0)
    model, batch, val_batch = MODELS["mlp"][0]().double(), rows(6), rows(3)
    f, g = cross_entropy(model, batch), cross_entropy(model, val_batch)
    s, _, _ = truth(f, g.mean())
    out = fastrw.backward(f, g)
    assert relative(out.scores, s) <= 1e-10 and relative(out.val_loss, g.mean()) <= 1e-10


def test_the_rule_for_long_tails():
    torch.manual_seed(0)
    model = MODELS["mlp"][0]().double()
    f, g = apart(model, rows(6), rows(3))
    s, _, _ = truth(f, g)
    w = s - s.min() + 1 / 6
    assert relative(fastrw.backward(f, g, normalize="shift").weights, w / w.sum()) <= 1e-10


def test_gradients_are_added_scaled_and_unscaled():
    torch.manual_seed(0)
    model = MODELS["mlp"][0]().double()
    f, g = apart(model, rows(6), rows(3))
    _, _, weighted = truth(f, g)
    fastrw.backward(f, g, scale=0.25, retain_graph=True)
    fastrw.backward(f, g, scale=0.75)
    for leaf, expected in weighted.items():
        assert relative(leaf.grad, expected) <= 1e-10


@pytest.mark.parametrize("made", [apart, joined])
def test_a_gradient_scaler_finds_what_it_expects(made):
    torch.manual_seed(0)
    model = MODELS["mlp"][0]()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    f, g = made(model, *((x.float(), y) for x, y in (rows(6), rows(3))))
    s, _, weighted = truth(f, g)
    out = fastrw.backward(f, g, scaler=scaler)
    assert relative(out.scores.double(), s) <= 1e-5
    for leaf, expected in weighted.items():
        assert relative(leaf.grad / 1024, expected) <= 1e-4


def test_parameters_of_the_loss_are_filled_too():
    torch.manual_seed(0)
    model, head = nn.Linear(8, 4).double(), nn.Linear(4, 3).double()
    temperature = nn.Parameter(torch.ones((), dtype=torch.double))

    def losses(model, batch):
        return F.cross_entropy(head(model(batch[0])) * temperature, batch[1], reduction="none")

    for params in (None, list(model.parameters())):
        exact(*apart(model, rows(6), rows(3), losses), params)
        assert head.weight.grad is not None and temperature.grad is not None


def test_sparse_gradients_stay_sparse():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(20, 5, sparse=True), nn.Flatten(), nn.Linear(30, 3)).double()
    for _ in range(2):
        exact(*apart(model, tokens(6), tokens(3)))
        assert model[0].weight.grad.is_sparse
    torch.optim.SparseAdam([model[0].weight]).step()


def test_inputs_that_require_grad_are_leaves_like_others():
    torch.manual_seed(0)
    """They are filled, but scores go by parameters unless others are named."""
    model, (x, y), val_batch = MODELS["mlp"][0]().double(), rows(6), rows(3)
    x.requires_grad_()
    for _ in range(2):
        exact(*apart(model, (x, y), val_batch), list(model.parameters()))
        exact(*joined(model, (x, y), val_batch), [x, *model.parameters()])


def test_without_parameters_scores_go_by_every_leaf():
    torch.manual_seed(0)
    w = torch.randn(8, 3, dtype=torch.double, requires_grad=True)
    for made in (apart, joined):
        exact(*made(lambda x: x @ w, rows(6), rows(3)))


def test_a_leaf_that_a_forward_makes_is_no_parameter():
    torch.manual_seed(0)
    layer = MODELS["mlp"][0]().double()

    def model(x):
        return layer(x + torch.zeros(8, dtype=torch.double, requires_grad=True))

    batch, val_batch = rows(6), rows(3)
    scores = [fastrw.backward(*made(model, batch, val_batch)).scores for made in (apart, joined)]
    assert relative(*scores) <= 1e-10


def test_the_graph_is_freed_as_a_backward_frees_it_unless_it_is_kept():
    torch.manual_seed(0)
    for name, (make, data) in MODELS.items():
        model = make().double()
        for made in (apart, joined):
            for _ in range(3):
                f, g = made(model, data(6), data(3))
                fastrw.backward(f, g, retain_graph=True)
                fastrw.backward(f, g)
                with pytest.raises(RuntimeError, match="second time"):
                    fastrw.backward(f, g)
                with pytest.raises(RuntimeError, match="second time"):
                    f.sum().backward()
        assert name


def test_a_freed_graph_that_nothing_is_read_of_says_so_in_torchs_words():
    torch.manual_seed(0)
    model, x, y = torch.nn.Linear(4, 1).double(), torch.randn(6, 4).double(), torch.randn(6).double()
    for _ in range(6):
        f = (model(x).squeeze(1) - y).square()
        fastrw.backward(f, (model(x).squeeze(1) - y).square().mean())
        for loss in (f, f * 1.0):
            with pytest.raises(RuntimeError, match="second time"):
                fastrw.backward(loss, loss.mean())


def test_a_graph_that_was_written_to_since_says_so_in_torchs_words():
    torch.manual_seed(0)
    model = MODELS["mlp"][0]().double()
    f, g = apart(model, rows(6), rows(3))
    with torch.no_grad():
        model[2].weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        fastrw.backward(f, g)
    assert all(p.grad is None for p in model.parameters())


def test_an_example_that_is_not_finite_adds_nothing():
    torch.manual_seed(0)
    for name in ("mlp", "group norm", "text"):
        make, data = MODELS[name]
        model = make().double()
        for made in (apart, joined):
            batch, val_batch = data(6), data(3)
            f, g = made(model, batch, val_batch)
            good = torch.tensor([0, 1, 2, 4, 5])
            _, w, weighted = truth(f[good], g)
            bad = f * torch.where(torch.arange(6) == 3, torch.nan, 1.0)
            for leaf in weighted:
                leaf.grad = None
            out = fastrw.backward(bad, g)
            assert out.weights[3] == 0 and relative(out.weights[good], w) <= 1e-10
            for leaf, expected in weighted.items():
                assert relative(leaf.grad, expected) <= 1e-9


class Checkpointed(nn.Module):
    def __init__(self, reentrant=False, norm=nn.LayerNorm):
        super().__init__()
        self.stem, self.out, self.reentrant = nn.Linear(8, 8), nn.Linear(8, 3), reentrant
        self.block = nn.Sequential(norm(8), nn.Linear(8, 8), nn.Tanh())

    def forward(self, x):
        return self.out(checkpoint(self.block, self.stem(x), use_reentrant=self.reentrant))


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.BatchNorm1d])
@pytest.mark.parametrize("made", [apart, joined])
def test_checkpointing_is_served(norm, made):
    torch.manual_seed(0)
    model = Checkpointed(norm=norm).double()
    for _ in range(3):
        exact(*made(model, rows(6), rows(3)))


class Reversible(torch.autograd.Function):
    """Runs a backward of its own: the parameters inside are not on the graph."""

    @staticmethod
    def forward(ctx, x, layer):
        ctx.save_for_backward(x)
        ctx.layer = layer
        return layer(x).detach()

    @staticmethod
    def backward(ctx, g):
        with torch.enable_grad():
            x = ctx.saved_tensors[0].detach().requires_grad_()
            torch.autograd.backward(ctx.layer(x), g)
        return x.grad, None


class Hidden(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.c(Reversible.apply(self.a(x), self.b))


@pytest.mark.parametrize("method", ["auto", "tangent", "double_backward", "per_example"])
@pytest.mark.parametrize("model", [Hidden, lambda: Checkpointed(reentrant=True)], ids=["reversible", "reentrant"])
def test_a_backward_within_a_backward_is_refused_and_leaves_nothing(model, method):
    torch.manual_seed(0)
    model = model().double()
    model.a = getattr(model, "a", None)
    for made in (apart, joined):
        f, g = made(model, rows(6), rows(3))
        for params in (None, [model.get_parameter(next(iter(dict(model.named_parameters()))))]):
            with pytest.raises(fastrw.Refused, match="use_reentrant=False"):
                fastrw.backward(f, g, params, method=method, retain_graph=True)
            assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("hook", [lambda g: g.clamp(-0.01, 0.01), lambda g: g.clamp(-10, 10), lambda g: 0.5 * g])
@pytest.mark.parametrize("norm", [nn.Identity, nn.BatchNorm1d])
@pytest.mark.parametrize("above", [True, False])
def test_hooks_that_change_gradients_are_refused_by_name_also_while_they_are_idle(hook, norm, above):
    torch.manual_seed(0)
    first, norm, last = nn.Linear(8, 6).double(), norm(6).double(), nn.Linear(6, 3).double()

    def losses(model, batch):
        h = first(batch[0])
        z = norm(h).tanh()
        (z if above else h).register_hook(hook)
        return F.cross_entropy(last(z), batch[1], reduction="none")

    model = nn.ModuleList([first, norm, last])
    f, g = apart(model, rows(6), rows(3), losses)
    with pytest.raises(fastrw.Refused, match="hook"):
        fastrw.backward(f, g)
    assert all(p.grad is None for p in model.parameters())


def test_hooks_of_parameters_are_refused():
    model = MODELS["mlp"][0]().double()
    model[0].weight.register_hook(lambda g: 2 * g)
    with pytest.raises(fastrw.Refused, match="hook"):
        fastrw.backward(*apart(model, rows(6), rows(3)))


BAD = [
    (lambda f, g: (f.sum(), g), ValueError, r"losses must be \[n\]"),
    (lambda f, g: (f[:, None], g), ValueError, r"losses must be \[n\]"),
    (lambda f, g: (f[:0], g), ValueError, r"losses must be \[n\]"),
    (lambda f, g: (f.detach(), g), ValueError, "losses must have a graph"),
    (lambda f, g: (f, g.detach()), ValueError, "val_loss must have a graph"),
    (lambda f, g: (f, f[None]), ValueError, r"val_loss must be a scalar or \[m\]"),
    (lambda f, g: ([1.0], g), TypeError, "losses must be a tensor"),
    (lambda f, g: (f, 1.0), TypeError, "val_loss must be a tensor"),
    (lambda f, g: (torch.arange(3), g), TypeError, "losses must be real floating point"),
    (
        lambda f, g: (f, torch.ones((), requires_grad=True) * 2),
        ValueError,
        "val_loss must depend on a selected parameter",
    ),
    (lambda f, g: (f, g, "last"), TypeError, "params must be None or tensors"),
    (lambda f, g: (f, g, []), ValueError, "params must select a tensor"),
    (lambda f, g: (f, g, [f]), ValueError, "params must be leaves that require grad"),
    (lambda f, g: (f, g, [torch.ones(2)]), ValueError, "params must be leaves that require grad"),
]
OPTIONS = [
    ({"normalize": None}, ValueError), ({"method": "fast"}, ValueError), ({"backend": "gpu"}, ValueError),
    ({"update": "now"}, ValueError), ({"scale": "1"}, TypeError), ({"scale": True}, TypeError),
    ({"score_dtype": torch.int8}, ValueError), ({"update": "assembled", "method": "tangent"}, ValueError),
]  # fmt: skip


@pytest.mark.parametrize(("broken", "error", "text"), BAD)
def test_bad_losses_and_parameters(broken, error, text):
    model = MODELS["mlp"][0]().double()
    args = broken(*apart(model, rows(6), rows(3)))
    if len(args) == 2 and text.startswith("val_loss must depend"):
        args = (*args, list(model.parameters()))
    with pytest.raises(error, match=text):
        fastrw.backward(*args)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(("options", "error"), OPTIONS)
def test_bad_options(options, error):
    model = MODELS["mlp"][0]().double()
    with pytest.raises(error, match="got"):
        fastrw.backward(*apart(model, rows(6), rows(3)), **options)


def test_compiled_losses_are_refused_before_anything_runs():
    model = torch.compile(MODELS["mlp"][0]().double(), backend="aot_eager")
    f, g = apart(model, rows(6), rows(3))
    for _ in range(2):
        with pytest.raises(fastrw.Refused, match="force_eager"):
            fastrw.backward(f, g)
    f.sum().backward()  # the graph is whole
    with torch.compiler.set_stance("force_eager"):
        exact(*apart(model, rows(6), rows(3)))


def test_the_standing_check_finds_what_was_learned_amiss():
    """At the 1st, 2nd, 4th ... call of one structure."""
    torch.manual_seed(0)
    model = MODELS["mlp"][0]().double()
    from fastrw.nodes import linear

    fastrw.backward(*apart(model, rows(6), rows(3)))
    rule = linear.Linear.score
    try:
        linear.Linear.score = lambda self, V: 2 * rule(self, V)
        with pytest.raises(fastrw.Refused, match="one gradient per example"):
            fastrw.backward(*apart(model, rows(6), rows(3)))
        assert all(p.grad is not None for p in model.parameters())  # of the first call alone
    finally:
        linear.Linear.score = rule
    exact(*apart(model, rows(6), rows(3)))


@pytest.mark.parametrize("name", ["mlp", "group norm", "text"])
def test_make_fx_traces_a_step_once_it_has_learned(name):
    from torch.fx.experimental.proxy_tensor import make_fx

    torch.manual_seed(0)
    make, data = MODELS[name]
    model = make().double()

    def step(x, y):
        f = cross_entropy(model, (x, y))
        for p in model.parameters():
            p.grad = None
        out = fastrw.backward(f[:6], f[6:].mean(), recheck=False)
        return out.weights, *(p.grad for p in model.parameters())

    step(*data(9))
    traced = make_fx(step)(*data(9))
    again = data(9)
    with torch.no_grad():
        found = traced(*again)
    for a, b in zip(found, step(*again), strict=True):
        assert relative(a, b) <= 1e-10


@pytest.mark.parametrize("of", ["losses", "one of them", "val_loss"])
def test_a_loss_made_of_the_other(of):
    torch.manual_seed(0)
    model = MODELS["mlp"][0]().double()
    for _ in range(3):
        f = cross_entropy(model, rows(6))
        g = f.mean() if of == "losses" else f[2] * 2
        if of == "val_loss":
            g = cross_entropy(model, rows(3)).mean()
            f = f * g
        exact(f, g)


def test_what_the_validation_loss_alone_reaches_is_not_filled():
    torch.manual_seed(0)
    body, head, other = nn.Linear(8, 6).double(), nn.Linear(6, 3).double(), nn.Linear(6, 2).double()
    for _ in range(3):
        h = body(torch.randn(9, 8).double()).tanh()
        f, g = F.cross_entropy(head(h[:6]), torch.arange(6) % 3, reduction="none"), other(h[6:]).square().mean()
        exact(f, g)
        assert other.weight.grad is None


@pytest.mark.parametrize("update", ["auto", "backward"])
def test_micro_batches_of_one_step_add_up(update):
    torch.manual_seed(0)
    model = MODELS["mlp"][0]().double()
    parts = [(rows(6), rows(3)) for _ in range(2)]
    expected = []
    for batch, val_batch in parts:
        expected.append(truth(*apart(model, batch, val_batch))[2])
    step = fastrw.Reweighter(model, update=update)
    for batch, val_batch in parts:
        step.backward(batch, val_batch, scale=0.5)
    for p in model.parameters():
        assert relative(p.grad, sum(found[p] for found in expected) / 2) <= 1e-10
    with pytest.raises(TypeError, match="scale must be a number"):
        step.backward(*parts[0], scale="half")


def test_checkpointing_keeps_its_saving():
    """Operands are let go with their score; the weighted gradient is an ordinary backward's, unless told otherwise."""
    torch.manual_seed(0)
    model = Checkpointed().double()
    for made in (apart, joined):
        for _ in range(3):
            out = exact(*made(model, rows(6), rows(3)))
            assert (out.method, out.update) == ("layerwise", "backward")
        assert exact(*made(model, rows(6), rows(3)), update="assembled").update == "assembled"


def test_owners_are_measured_under_deterministic_algorithms_on_a_gpu():
    from fastrw.engine.owners import repeatable

    for device, inside in (("cuda", True), ("cpu", False)):
        with pytest.raises(KeyError), repeatable(torch.device(device)):
            assert torch.are_deterministic_algorithms_enabled() == inside
            raise KeyError
        assert not torch.are_deterministic_algorithms_enabled()
