"""Compiled models: scored as they are written; what is compiled is kept for the user's own calls."""

import sys
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fastrw
from tests import oracle
from tests.on_graph import apart, exact, relative, truth
from tests.test_field import rows
from tests.tiers import covering

pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of the tracer


class Net(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 6), norm(6), nn.Tanh(), nn.Linear(6, 3))

    def forward(self, x):
        return self.body(x)

    def body(self, x):
        return self.last(self.net(x))

    def last(self, z):
        return z.sin() * 2 + z


def made(way, norm, backend):
    torch.manual_seed(0)
    model = Net(norm).double()
    if way == "compile(model)":
        return torch.compile(model, backend=backend)
    if way == "model.compile()":
        model.compile(backend=backend)
    elif way == "a submodule":
        model.net[0] = torch.compile(model.net[0], backend=backend)
        model.net[3].compile(backend=backend)
    else:
        name = {"the forward": "forward", "a method": "body", "a function inside": "last"}[way]
        setattr(model, name, torch.compile(getattr(model, name), backend=backend))
    return model


class Counting:
    def __init__(self):
        self.graphs = 0

    def __call__(self, module, inputs):
        from torch._dynamo.backends.debugging import aot_eager

        self.graphs += 1
        return aot_eager(module, inputs)


WAYS = ["compile(model)", "model.compile()", "a submodule", "the forward", "a method", "a function inside"]


@pytest.mark.parametrize(("way", "norm"), covering(product(WAYS, [nn.Identity, nn.BatchNorm1d])))
def test_every_way_of_compiling_through_every_call(way, norm):
    torch._dynamo.reset()
    backend = Counting()
    model, batch, val_batch = made(way, norm, backend), rows(7), rows(4)
    with torch.compiler.set_stance("force_eager"):
        s = oracle.scores(model, batch, val_batch)
    F.cross_entropy(model(batch[0]), batch[1]).backward()  # the user's own call compiles it
    compiled = backend.graphs
    assert compiled
    model.zero_grad()
    method = "tangent" if norm is nn.BatchNorm1d else "layerwise"
    for params in (None, "last"):
        report = fastrw.explain(model, batch, val_batch, params=params)
        assert (report.method == method or params == "last") and "_orig_mod" not in str(report)
    last = [*[*model.modules()][-1].parameters()]
    with torch.compiler.set_stance("force_eager"):
        f, g = apart(model, batch, val_batch)
    assert relative(report.scores, truth(f, g, last)[0]) <= 1e-10
    for name in ("tangent", "double_backward", "per_example"):
        assert relative(fastrw.gradient_dots(model, batch, val_batch, method=name), s) <= 1e-10
    whole = way in ("compile(model)", "model.compile()")
    for update in ("auto", "backward"):
        step = fastrw.Reweighter(model, update=update)
        for _ in range(2):
            out = step.backward(batch, val_batch)
            assert relative(out.scores, s) <= 1e-10 and out.method == method
        assert (out.compilation is not None and out.compilation.used) == whole
    assert backend.graphs == compiled + 2 * whole  # those of our steps, by the user's own backend
    compiled = backend.graphs
    model.zero_grad()
    data = [(batch[0][i], int(batch[1][i])) for i in range(7)]
    for params in ("last", "all"):
        fsr = fastrw.fsr.FSR(model, 7, 3, dataset=data, q=3, capacity=3, params=params, warmup=0)
        for _ in range(2):
            fsr.step(torch.arange(7), *batch)
            fsr.end_epoch()
    model.zero_grad()
    F.cross_entropy(model(batch[0]), batch[1]).backward()
    assert backend.graphs == compiled
    with pytest.raises(fastrw.Refused, match="force_eager"):
        fastrw.backward(*apart(model, batch, val_batch))


def test_parameters_have_the_names_that_the_model_has_uncompiled():
    model = torch.compile(Net(nn.Identity).double(), backend="eager")
    batch, val_batch = rows(7), rows(4)
    found = [
        fastrw.gradient_dots(model, batch, val_batch, params=names)
        for names in (["net.0.*"], ["_orig_mod.net.0.*"], list(model._orig_mod.net[0].parameters()))
    ]
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@pytest.mark.parametrize("what", ["losses", "val_loss", "part", "loss"])
def test_graphs_that_are_compiled_in_part_are_refused(what):
    torch._dynamo.reset()
    torch.manual_seed(0)
    model, (x, y), (xv, yv) = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)).double(), rows(7), rows(4)
    whole, tail = (torch.compile(m, backend="aot_eager") for m in (model, model[1:]))
    loss = torch.compile(lambda z, y: F.cross_entropy(z, y, reduction="none"), backend="aot_eager")
    f = F.cross_entropy((whole if what == "losses" else model)(x), y, reduction="none")
    if what == "part":
        f = F.cross_entropy(tail(model[0](x)), y, reduction="none")
    elif what == "loss":
        f = loss(model(x), y)
    g = F.cross_entropy((whole if what == "val_loss" else model)(xv), yv)
    for method in ("auto", "layerwise", "tangent", "double_backward", "per_example"):
        with pytest.raises(fastrw.Refused, match=r"compiled code.*force_eager"):
            fastrw.backward(f, g, method=method)
    (f.sum() + g).backward()  # the graphs are whole


@pytest.mark.parametrize("fullgraph", [False, True])
def test_calls_inside_compiled_code_are_left_alone(fullgraph):
    torch._dynamo.reset()
    torch.manual_seed(0)
    model, batch, val_batch = Net(nn.Identity).double(), rows(7), rows(4)
    step = fastrw.Reweighter(model)
    s = oracle.scores(model, batch, val_batch)
    f, g = apart(model, batch, val_batch)
    for call in (
        lambda: step.backward(batch, val_batch).scores,
        lambda: fastrw.gradient_dots(model, batch, val_batch),
        lambda: fastrw.backward(f, g, retain_graph=True).scores,
    ):
        compiled = torch.compile(call, backend="eager", fullgraph=fullgraph)
        if fullgraph:
            with pytest.raises(torch._dynamo.exc.Unsupported, match="graph of autograd"):
                compiled()
        else:
            assert relative(compiled(), s) <= 1e-10
            exact(f, g, retain_graph=True)


def test_losses_that_are_compiled_or_close_over_what_is():
    torch._dynamo.reset()
    torch.manual_seed(0)
    model, batch, val_batch = Net(nn.Identity).double(), rows(7), rows(4)
    hidden = torch.compile(model, backend="aot_eager")
    loss = torch.compile(lambda z, y: F.cross_entropy(z, y, reduction="none"), backend="aot_eager")
    s = oracle.scores(model, batch, val_batch)
    losses = torch.compile(lambda m, b: F.cross_entropy(m(b[0]), b[1], reduction="none"), backend="aot_eager")
    for how in (
        {"loss_fn": loss},
        {"losses_fn": losses},
        {"losses_fn": lambda m, b: F.cross_entropy(hidden(b[0]), b[1], reduction="none")},
    ):
        out = fastrw.Reweighter(model, **how).backward(batch, val_batch)
        assert relative(out.scores, s) <= 1e-10 and out.method == "layerwise"


def test_nothing_of_the_compiler_is_imported_where_nothing_is_compiled(monkeypatch):
    from fastrw.api.backward import untraced
    from fastrw.api.compiled import uncompiled

    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    with uncompiled():
        assert untraced(lambda: "torch._dynamo" in sys.modules)() is False
