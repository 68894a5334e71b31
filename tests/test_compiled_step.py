"""`Reweighter(compile=True)`: the step as one graph gives what the eager step gives, or runs eagerly and says why.

The compiler here is mostly "aot_eager", which does all that "inductor" does but generate code; it is "eager" where the
question is what is captured, and when."""

import copy
import time
import warnings
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fastrw
from fastrw.api import compile as compiling
from fastrw.ops.tolerance import SCORE_GOAL, relative_error
from fastrw.testing import cases
from tests import oracle
from tests.deciding import Gated, Routed
from tests.tiers import covering, some

pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),  # of the tracer
    pytest.mark.filterwarnings("ignore:LSTM with projections", "ignore:Using padding='same'"),
]

# What Dynamo cannot trace, or the engine has to measure anew in each step.
EAGER = {
    "bare_one_hot", "batchnorm_cumulative", "coupled_pair", "coupled_by_data", "rows_of_different_counts",
    "embedding_sparse", "attribute_outputs", "ctc_loss", "data_dependent_branch", "custom_function",
    "custom_function_*", "checkpointed", "checkpointed_twice", "data_dependent_depth", "gradient_inside",
    "activation_hook", "scatter_rows", "checkpointed_dropout", "custom_jvp_that_misleads", "parameter_hook_scales",
    "parameter_hook_masks", "parameter_hook_watches", "module_backward_hook", "lstm_*", "gru_*", "rnn_*",
    "linear_on_packed_rows", "mixture_of_experts_top2", "spectral_norm_training", "weight_norm_by_pre_hook",
}  # fmt: skip
NAMES = [case.name for case in cases()]
EAGER_NAMES = {case.name for pattern in EAGER for case in cases(pattern)} - {"lstm_cell_loop", "gru_cell_loop"}


@pytest.fixture(autouse=True)
def forgotten():
    torch._dynamo.reset()


def gradient(model):
    return torch.cat([p.grad.to_dense().flatten() for p in model.parameters() if p.grad is not None])


def pairs(model, batch, val_batch, steps, compile="aot_eager", prepare=lambda i, model: None, other=None, **kwargs):
    """(compiled step, eager step, both models) in each of these steps of two copies of a model."""
    models = model, other or copy.deepcopy(model)
    ours = [fastrw.Reweighter(models[0], compile=compile, **kwargs), fastrw.Reweighter(models[1], **kwargs)]
    for i in range(steps):
        found = []
        for one, m in zip(ours, models, strict=True):
            prepare(i, m)
            m.zero_grad()
            torch.manual_seed(i)
            found.append(one.backward(batch, val_batch))
        yield *found, *models


def same(a, b, mine, other, limit=1e-10):
    assert (a.method, a.update) == (b.method, b.update)
    for x, y in ((a.scores, b.scores), (a.weights, b.weights), (a.losses, b.losses), (a.val_loss, b.val_loss)):
        assert y is None or relative_error(x, y) <= limit
    assert [p.grad is None for p in mine.parameters()] == [p.grad is None for p in other.parameters()]
    assert relative_error(gradient(mine), gradient(other)) <= limit
    for x, y in zip(mine.buffers(), other.buffers(), strict=True):
        assert relative_error(x.double(), y.double()) <= limit


@pytest.mark.parametrize("name", some(NAMES, 24))
def test_the_zoo(name):
    (case,) = cases(name)
    model, batch, val_batch = case.make(torch.float64)
    before = []

    def keep(i, m):
        try:
            before.append(copy.deepcopy(m))
        except RuntimeError:  # it holds what its last forward made
            before.append(m)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "fastrw: this model is scored by one backward pass per example")
        for a, b, mine, other in pairs(model, batch, val_batch, 3, prepare=keep,
                                       other=case.make(torch.float64)[0], **case.kwargs, recheck=False):  # fmt: skip
            if not case.draws:
                same(a, b, mine, other)
    if not case.draws:
        hooked = any(p._backward_hooks for p in model.parameters())  # a copy has no hooks
        s = oracle.scores(model if hooked else before[-1], batch, val_batch, **case.kwargs)
        assert relative_error(a.scores, s) <= SCORE_GOAL[torch.float64]
    assert a.compilation.used == (name not in EAGER_NAMES), a.compilation.why
    assert a.compilation.used or a.compilation.why.strip()


def mlp(*layers, last=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), *layers, nn.Tanh(), nn.Linear(8, last)).double()


def rows(n, seed=0):
    generator = torch.Generator().manual_seed(seed + n)
    x = torch.randn(n, 6, dtype=torch.float64, generator=generator)
    return x, torch.randint(3, (n,), generator=generator)


class Scaled(nn.Module):
    """What its Python reads may change between calls."""

    def __init__(self):
        super().__init__()
        self.net, self.factor, self.twice = mlp(), 1.0, False

    def forward(self, x):
        return self.net(x) * self.factor * (2 if self.twice else 1) * FACTOR


FACTOR = 1.0


def change_global(model):
    global FACTOR
    FACTOR = 3.0


def replace_parameter(model):
    model.net[0].weight = nn.Parameter(model.net[0].weight.detach() * 2)


CHANGES = {
    "attribute": lambda model: setattr(model, "factor", 2.0),
    "branch": lambda model: setattr(model, "twice", True),
    "global": change_global,
    "parameter": replace_parameter,
    "data": lambda model: setattr(model.net[0].weight, "data", model.net[0].weight.data * 2),
    "in place": lambda model: model.net[0].weight.data.mul_(2),
    "frozen": lambda model: model.net[0].weight.requires_grad_(False),
    "layer": lambda model: model.net.__setitem__(1, nn.Sigmoid()),
    "mode": lambda model: model.eval(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_python_reads_may_change(change, monkeypatch):
    monkeypatch.setitem(globals(), "FACTOR", 1.0)

    def prepare(i, model):
        if i == 3:
            CHANGES[change](model)

    steps = pairs(Scaled(), rows(7), rows(4), 6, "eager", prepare=prepare, recheck=False)
    for i, (a, b, mine, other) in enumerate(steps):
        if i != 3 or change != "global":  # of two models, one sees it earlier
            same(a, b, mine, other)
        assert a.compilation.used or i in (0, 3), a.compilation.why


def test_shapes_are_compiled_one_by_one_and_told():
    model, other = mlp(), mlp()
    ours, eager = fastrw.Reweighter(model, compile="aot_eager", recheck=False), fastrw.Reweighter(other)
    for n in (7, 7, 5, 5, 7, 5):
        model.zero_grad(), other.zero_grad()
        same(ours.backward(rows(n), rows(4)), out := eager.backward(rows(n), rows(4)), model, other)
        assert out.compilation is None
    about = ours.backward(rows(7), rows(4)).compilation
    assert about.used and about.graphs == 2 and about.recompilations == 1 and about.seconds > 0 and not about.why


@pytest.mark.parametrize("dynamic", [None, True])
def test_more_shapes_than_torch_compiles_run_eagerly(dynamic):
    model, other = mlp(), mlp()
    ours = fastrw.Reweighter(model, compile="eager", dynamic=dynamic, recheck=False)
    eager = fastrw.Reweighter(other)
    for _ in range(2):
        for n in range(4, 14):
            for _ in range(2):
                model.zero_grad(), other.zero_grad()
                same(a := ours.backward(rows(n), rows(3)), eager.backward(rows(n), rows(3)), model, other)
            assert a.compilation.used == (n < 12), (n, a.compilation)
    assert a.compilation.graphs == 8 and "few kinds and shapes" in a.compilation.why


LAYERS = {"plain": (), "batch_norm": (nn.BatchNorm1d(8),)}


OPTIONS = [
    {"update": "backward"}, {"method": "tangent"}, {"params": "last"}, {"every": 2}, {"normalize": "shift"},
    {"backend": "reference"}, {"score_dtype": torch.float32},
]  # fmt: skip
ASSEMBLED = {"params": ["0.*"], "update": "assembled"}  # of examples that are not coupled


@pytest.mark.parametrize(("layers", "kwargs"), [*covering(product(LAYERS, OPTIONS)), ("plain", ASSEMBLED)], ids=str)
def test_options(layers, kwargs):
    limit = 1e-5 if "score_dtype" in kwargs else 1e-10
    for a, b, mine, other in pairs(mlp(*copy.deepcopy(LAYERS[layers])), rows(7), rows(4), 6, **kwargs):
        if b.scores is None:
            assert a.scores is None and a.method == "plain"
            assert relative_error(gradient(mine), gradient(other)) <= limit
        else:
            same(a, b, mine, other, limit)
    assert a.compilation.used, a.compilation.why
    assert len(a.uses) == len(b.uses) and [u.form for u in a.uses] == [u.form for u in b.uses]


def test_gradients_are_accumulated_times_a_factor_and_a_scaler():
    model, other = mlp(), mlp()
    scalers = [torch.amp.GradScaler("cpu", init_scale=8.0) for _ in range(2)]
    ours = fastrw.Reweighter(model, compile="aot_eager", scaler=scalers[0])
    eager = fastrw.Reweighter(other, scaler=scalers[1])
    for i, scale in enumerate((1.0, 1.0, 0.5, 0.25, 0.5, 1.0)):
        if i == 4:
            for scaler in scalers:
                scaler.update(32.0)
        same(a := ours.backward(rows(7, i), rows(4), scale=scale), eager.backward(rows(7, i), rows(4), scale=scale),
             model, other)  # fmt: skip
    assert a.compilation.used and a.compilation.graphs == 2, a.compilation


@pytest.mark.parametrize("within", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(within, dtype):
    """Casts of weights are not constants: weights move."""
    model = mlp(nn.LayerNorm(8)).float()
    other = copy.deepcopy(model)
    batch, val_batch = ((x.float(), y) for x, y in (rows(7), rows(4)))
    ours, eager = fastrw.Reweighter(model, compile="aot_eager"), fastrw.Reweighter(other)

    def step(i):
        for m in (model, other):
            m.zero_grad()
            if not within:  # else torch uses a cast that it keeps
                m[0].weight.data.mul_(1.1)
        a, b = ours.backward(batch, val_batch), eager.backward(batch, val_batch)
        assert relative_error(a.scores, b.scores) <= 2e-2 and relative_error(gradient(model), gradient(other)) <= 2e-2
        assert a.compilation.used == (i > 0), a.compilation.why

    if within:
        with torch.autocast("cpu", dtype):
            for i in range(5):
                step(i)
    else:
        for i in range(5):
            with torch.autocast("cpu", dtype):
                step(i)
    model.zero_grad()
    assert ours.backward(batch, val_batch).compilation.used


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("of", ["batch", "val_batch"])
def test_examples_that_are_not_finite(layers, of):
    model = mlp(*copy.deepcopy(LAYERS[layers]))
    other = copy.deepcopy(model)
    ours, eager = fastrw.Reweighter(model, compile="aot_eager", recheck=False), fastrw.Reweighter(other, recheck=False)
    for i in range(5):
        batch, val_batch = rows(7), rows(4)
        if i == 3:
            (batch if of == "batch" else val_batch)[0][2] = torch.nan
        model.zero_grad(), other.zero_grad()
        a, b = ours.backward(batch, val_batch), eager.backward(batch, val_batch)
        assert torch.equal(a.scores.isfinite(), b.scores.isfinite()) and a.nonfinite == b.nonfinite
        assert torch.allclose(a.weights, b.weights) and torch.allclose(gradient(model), gradient(other))
        assert all(p.grad.isfinite().all() for p in model.parameters())
        assert a.compilation.used or i in (0, 3, 4)  # BatchNorm: after one, it waits a little


def test_rows_that_take_another_way_are_noticed():
    torch.manual_seed(0)
    model = Routed(6).double()
    other = copy.deepcopy(model)
    ours, eager = fastrw.Reweighter(model, compile="aot_eager", recheck=False), fastrw.Reweighter(other)
    used = []
    for seed in (0, 0, 0, 1, 0, 0, 0, 0, 1, 0):
        model.zero_grad(), other.zero_grad()
        same(a := ours.backward(rows(7, seed), rows(4)), eager.backward(rows(7, seed), rows(4)), model, other)
        used.append(a.compilation.used)
    assert used == [False, True, True, False, False, False, False, True, False, False]  # after one, it waits a little


def test_a_gate_that_opens_is_noticed():
    def prepare(i, model):
        if i == 3:
            model.gate.data += 0.5

    for i, (a, b, mine, other) in enumerate(
        pairs(Gated(6).double(), rows(7), rows(4), 6, prepare=prepare, recheck=False)
    ):
        same(a, b, mine, other)
        assert a.compilation.used == (i in (1, 2)) or i > 3, (i, a.compilation)


def test_a_batch_may_validate_itself_and_then_not():
    model, other = mlp(nn.BatchNorm1d(8)), mlp(nn.BatchNorm1d(8))
    ours, eager = fastrw.Reweighter(model, compile="aot_eager", recheck=False), fastrw.Reweighter(other)
    for i in range(6):
        batch = rows(6)
        val_batch = batch if i < 3 else rows(6, seed=9)
        model.zero_grad(), other.zero_grad()
        same(a := ours.backward(batch, val_batch), eager.backward(batch, val_batch), model, other)
    assert a.compilation.used and a.compilation.graphs == 1


def test_random_draws_are_those_of_the_graph():
    """Dropout: the training forward draws as an ordinary one, then the validation forward draws others."""
    model = mlp(nn.Dropout(0.4))
    ours, batch, val_batch = fastrw.Reweighter(model, compile="aot_eager", recheck=False), rows(7), rows(4)
    for i in range(5):
        model.zero_grad()
        torch.manual_seed(i)
        out = ours.backward(batch, val_batch)
    assert out.compilation.used, out.compilation.why
    torch.manual_seed(4)
    f = F.cross_entropy(model(batch[0]), batch[1], reduction="none")
    g = F.cross_entropy(model(val_batch[0]), val_batch[1])
    params = list(model.parameters())
    V = torch.autograd.grad(g, params)
    s = [
        sum((u * v).sum() for u, v in zip(torch.autograd.grad(one, params, retain_graph=True), V, strict=True))
        for one in f
    ]
    assert relative_error(out.scores, torch.stack(s)) <= 1e-10
    expected = torch.autograd.grad(f, params, out.weights)
    assert relative_error(gradient(model), torch.cat([g.flatten() for g in expected])) <= 1e-10


class Noting(nn.Module):
    """Leaves tensors behind."""

    def __init__(self, norm):
        super().__init__()
        self.net = mlp(norm)

    def forward(self, x):
        y = self.net(x)
        self.balance = y.detach().square().mean()
        return y


@pytest.mark.parametrize("norm", [nn.Identity, lambda: nn.BatchNorm1d(8)])
def test_a_module_that_leaves_tensors_behind(norm):
    for a, b, mine, other in pairs(Noting(norm()), rows(7), rows(4), 5):
        same(a, b, mine, other)
        assert torch.allclose(mine.balance, other.balance)


def test_a_compiler_that_errs_is_not_used(monkeypatch):
    """Wrong from the first, or in a later step."""
    calls = []
    for wrong_from in (0, 2):

        def compiled(self, graph, wrong_from=wrong_from):
            def run(*tensors):
                calls.append(1)
                found = list(graph(*tensors))
                if len(calls) > wrong_from:
                    found[1] = found[1] + 0.1
                return found

            return run

        monkeypatch.setattr(compiling.Compiler, "__call__", compiled)
        calls.clear()
        for i, (a, b, mine, other) in enumerate(pairs(mlp(), rows(7), rows(4), 5)):
            same(a, b, mine, other)
            assert i < 2 or (not a.compilation.used and "numbers" in a.compilation.why), (i, a.compilation)


def test_a_failed_call_leaves_all_as_it_was():
    model = mlp(nn.BatchNorm1d(8))
    ours = fastrw.Reweighter(model, compile="aot_eager", recheck=False)
    for _ in range(3):
        model.zero_grad()
        ours.backward(rows(7), rows(4))
    before, grads = copy.deepcopy(model.state_dict()), gradient(model)
    for batch in (
        (torch.zeros(7, 5, dtype=torch.float64), rows(7)[1]),
        (rows(7)[0], rows(5)[1]),
        (rows(7)[0], rows(7)[1] + 9),
    ):
        with pytest.raises((RuntimeError, ValueError, IndexError)):
            ours.backward(batch, rows(4))
        assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
        assert torch.equal(grads, gradient(model))
    assert ours.backward(rows(7), rows(4)).compilation.used


def test_torch_compile_may_be_switched_off():
    model = mlp()
    ours = fastrw.Reweighter(model, compile="aot_eager", recheck=False)
    for i in range(4):
        with torch.compiler.set_stance("force_eager" if i == 2 else "default"):
            used = ours.backward(rows(7), rows(4)).compilation.used
        assert used == (i in (1, 3))


@pytest.mark.parametrize(
    ("kwargs", "rule"),
    [({"compile": 3}, "compile must"), ({"compile": "no such compiler"}, "compile must"),
     ({"compile": True, "method": "per_example"}, "one graph"), ({"compile": True, "timeline": True}, "one graph"),
     ({"compile": True, "mode": "fast"}, "mode must"), ({"compile": False, "mode": "reduce-overhead"}, "compile=True"),
     ({"compile": True, "mode": "default", "options": {"trace.enabled": False}}, "mode or options"),
     ({"compile": True, "dynamic": 1}, "dynamic must"), ({"compile": True, "options": 3}, "options must")],
    ids=str,
)  # fmt: skip
def test_bad_arguments(kwargs, rule):
    with pytest.raises((TypeError, ValueError), match=rule):
        fastrw.Reweighter(mlp(), **kwargs)


@pytest.mark.parametrize("slow", ["compiled", "recorded"])
def test_on_a_cpu_the_faster_of_compiled_code_and_the_graph_runs(slow, monkeypatch):
    def compiled(self, graph):
        forward = graph.forward

        def waiting(*tensors):
            time.sleep(0.02)
            return forward(*tensors)

        if slow == "recorded":
            graph.forward = waiting
        return waiting if slow == "compiled" else lambda *tensors: forward(*tensors)

    monkeypatch.setattr(compiling.Compiler, "__call__", compiled)
    for a, b, mine, other in pairs(mlp(nn.BatchNorm1d(8)), rows(7), rows(4), 4, compile=True):
        same(a, b, mine, other)
    assert a.compilation.used
    assert a.compilation.by == ("the recorded graph" if slow == "compiled" else "inductor")


@pytest.mark.parametrize("backend", [True, "aot_eager"], ids=str)
def test_code_that_gives_other_numbers_never_runs(backend, monkeypatch):
    """On a CPU the recorded graph runs in its place, where the compiler is torch's own; else an eager step."""

    def compiled(self, graph):
        return lambda *tensors: [t * 1.01 if t.is_floating_point() else t for t in graph(*tensors)]

    monkeypatch.setattr(compiling.Compiler, "__call__", compiled)
    for a, b, mine, other in pairs(mlp(nn.BatchNorm1d(8)), rows(7), rows(4), 4, compile=backend):
        same(a, b, mine, other)
    if backend is True:
        assert a.compilation.used and a.compilation.by == "the recorded graph"
    else:
        assert not a.compilation.used and "must give the numbers of the step as written" in a.compilation.why


def test_memory_of_replays_is_not_kept(monkeypatch):
    """A CUDA graph writes its results where those of the step before were."""

    def replayed(self, graph):
        kept = []

        def run(*tensors):
            found = graph(*tensors)
            if not kept:
                kept.extend(t.clone() for t in found)
            for t, new in zip(kept, found, strict=True):
                t.copy_(new)
            return kept

        return run

    monkeypatch.setattr(compiling.Compiler, "__call__", replayed)
    model = mlp(nn.BatchNorm1d(8))
    step = fastrw.Reweighter(model, compile=True, mode="reduce-overhead")
    eager = fastrw.Reweighter(copy.deepcopy(model))
    outs = []
    for i in range(6):
        mine, other = step.backward(rows(7, i), rows(4)), eager.backward(rows(7, i), rows(4))  # gradients accumulate
        same(mine, other, model, eager.model)
        outs.append((mine, mine.scores.clone(), mine.losses.clone()))
    assert all(torch.equal(out.scores, s) and torch.equal(out.losses, f) for out, s, f in outs)


class Reshaped(nn.Module):
    """A reshape is another operation while operations are watched: a view."""

    def __init__(self):
        super().__init__()
        self.enter, self.leave = nn.Linear(6, 9).double(), nn.Linear(4, 3).double()

    def forward(self, x):
        return self.leave(self.enter(x)[:, :8].reshape(len(x), 2, 4).sin().sum(1))


def test_operations_that_are_made_otherwise_while_they_are_watched():
    torch.manual_seed(0)
    for a, b, mine, other in pairs(Reshaped(), rows(7), rows(4), 4):
        same(a, b, mine, other)
    assert a.compilation.used, a.compilation.why
