"""Hooks of users: one that changes gradients is refused by name in the call in which it does; all others are served."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.graph import get_gradient_edge

import fastrw
from tests.on_graph import apart, exact, joined, relative, truth
from tests.tiers import covering

pytestmark = pytest.mark.filterwarnings("ignore:fastrw. this model is scored by one backward pass")


def rows(n, scale, dtype=torch.float64):
    return torch.randn(n, 8).to(dtype), torch.randint(3, (n,)), torch.full((n,), scale, dtype=dtype)


def losses(model, batch):
    return batch[2] * F.cross_entropy(model(batch[0]), batch[1], reduction="none")


class Hooked(nn.Module):
    """`put` may register hooks on an activation, from call `start` on."""

    def __init__(self, put, place, norm=nn.Identity, start=0):
        super().__init__()
        self.a, self.n, self.b, self.o = nn.Linear(8, 6), norm(6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.put, self.place, self.start, self.call = put, place, start, 0

    def forward(self, x):
        h = self.a(x)
        self.hook(h, "low")
        h = self.n(h).tanh()
        self.hook(h, "middle")
        h = self.o(self.b(h).relu())
        self.hook(h, "high")
        return h

    def hook(self, h, place):
        if place == self.place and self.call >= self.start:
            self.put(h, self.call)


def clip(g):
    return g.clamp(-0.5, 0.5)


def clipped(gs):
    return tuple(g if g is None else clip(g) for g in gs)


def clipped_norm(g):
    return g * (0.5 / g.norm()).clamp(max=1)


HOOKS = {
    "tensor": lambda h, call: h.register_hook(clip),
    "norm": lambda h, call: h.register_hook(clipped_norm),
    "before the node": lambda h, call: h.grad_fn.register_prehook(clipped),
    "after the node": lambda h, call: h.grad_fn.register_hook(lambda gs, _: clipped(gs)),
    "by call": lambda h, call: h.register_hook(lambda g: g * 2 if call > 2 else None),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "start", "place", "norm"),
    covering(product(HOOKS, [0, 3], ["low", "middle", "high"], [nn.Identity, nn.BatchNorm1d]), 2),
)
def test_hooks_that_are_idle_at_first_and_active_later(name, start, place, norm):
    """Exact or refused in every call, whether registered at first or later, whatever the batches do."""
    torch.manual_seed(0)
    model = Hooked(HOOKS[name], place, norm, start).double()
    step, parameters, refused = fastrw.Reweighter(model, losses_fn=losses), [*model.parameters()], 0
    for scale in (0.1, 0.1, 0.1, 5.0, 5.0):
        model.call += 1
        batch, val_batch = rows(7, scale), rows(4, scale)
        for made in (apart, joined):
            if made is joined and norm is nn.BatchNorm1d:
                continue
            model.zero_grad()
            f, g = made(model, batch, val_batch, losses)
            s, _, _ = truth(f, g)
            try:
                assert relative(fastrw.backward(f, g).scores, s) <= 1e-10
            except fastrw.UntracedUse:
                refused += 1
                assert all(p.grad is None for p in parameters)
        s, _, _ = truth(*apart(model, batch, val_batch, losses))
        assert relative(step.backward(batch, val_batch).scores, s) <= 1e-10
        assert relative(fastrw.gradient_dots(model, batch, val_batch, losses_fn=losses), s) <= 1e-10
    assert refused


def test_an_active_hook_is_found_in_a_graph_built_before_the_first_call():
    torch.manual_seed(0)
    model = Hooked(HOOKS["tensor"], "low", nn.BatchNorm1d, start=1).double()
    first = apart(model, rows(7, 0.1), rows(4, 0.1), losses)
    model.call = 1
    second = apart(model, rows(7, 5.0), rows(4, 5.0), losses)
    exact(*first)
    with pytest.raises(fastrw.UntracedUse, match="hook"):
        fastrw.backward(*second)


@pytest.mark.parametrize("pre", [True, False])
def test_module_backward_hooks_that_change_gradients(pre):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    data = rows(7, 1.0), rows(4, 1.0)
    exact(*apart(model, *data, losses))
    if pre:
        model[1].register_full_backward_pre_hook(lambda module, out: (out[0] / 2,))
    else:
        model[1].register_full_backward_hook(lambda module, into, out: (into[0] / 2,))
    with pytest.raises(fastrw.UntracedUse, match="hook"):
        fastrw.backward(*apart(model, *data, losses))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("norm", [nn.Identity, nn.BatchNorm1d])
def test_hooks_that_only_watch_are_served(norm, dtype):
    torch.manual_seed(0)
    seen = []

    def put(h, call):
        h.register_hook(lambda g: seen.append(g.norm()))
        h.register_hook(lambda g: g * 1.0)
        h.grad_fn.register_prehook(lambda gs: seen.append(gs[0].norm()))
        torch.autograd.graph.register_multi_grad_hook([h], lambda gs: seen.append(gs[0]))

    model = Hooked(put, "middle", norm).to(dtype)
    model.b.register_full_backward_hook(lambda module, into, out: seen.append(out[0].norm()))
    for _ in range(3):
        data = rows(7, 1.0, dtype), rows(4, 1.0, dtype)
        out = fastrw.Reweighter(model, losses_fn=losses).backward(*data)
        assert out.method == ("tangent" if norm is nn.BatchNorm1d else "layerwise")
        if dtype is torch.float64:
            exact(*apart(model, *data, losses))
    assert seen


def test_no_hook_costs_nothing_and_a_watched_graph_is_looked_at(monkeypatch):
    from fastrw.engine import run

    torch.manual_seed(0)
    looks, look = [], run._look_for_hooks
    monkeypatch.setattr(run, "_look_for_hooks", lambda *args: (looks.append(1), look(*args)))
    model = Hooked(lambda h, call: h.register_hook(lambda g: None), "low", start=5).double()
    step = fastrw.Reweighter(model, losses_fn=losses)
    for model.call in range(5):
        step.backward(rows(7, 1.0), rows(4, 1.0))
    assert not looks
    for model.call in range(5, 8):
        step.backward(rows(7, 1.0), rows(4, 1.0))
    assert len(looks) == 3


def test_hooks_where_gradients_are_accumulated():
    """A backward for given inputs does not run those on the node: refused. Those of the tensor run in their place."""
    torch.manual_seed(0)
    model = nn.Linear(8, 3).double()
    data = rows(7, 1.0), rows(4, 1.0)
    node, seen = get_gradient_edge(model.weight).node, []
    handle = node.register_hook(lambda *grads: seen.append(grads))
    with pytest.raises(fastrw.UntracedUse, match="accumulated"):
        fastrw.backward(*apart(model, *data, losses))
    handle.remove()
    for p in model.parameters():
        p.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.clone()))
    for update in ("assembled", "backward"):
        exact(*apart(model, *data, losses), update=update)
        assert len(seen) == 2 and any(torch.equal(g, model.weight.grad) for g in seen)
        seen.clear()
        model.zero_grad()
        fastrw.Reweighter(model, losses_fn=losses, update=update).backward(*data)
        assert len(seen) == 2
        seen.clear()


class Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, g):
        return -0.3 * g


@pytest.mark.parametrize("norm", [nn.Identity, nn.BatchNorm1d])
def test_a_reversal_by_a_function_is_no_hook(norm):
    torch.manual_seed(0)
    model = nn.ModuleList([nn.Linear(8, 6), norm(6), nn.Linear(6, 3)]).double()

    def reversed_losses(model, batch):
        z = model[2](Reversal.apply(model[1](model[0](batch[0])).tanh()))
        return F.cross_entropy(z, batch[1], reduction="none")

    for _ in range(3):
        exact(*apart(model, rows(7, 1.0), rows(4, 1.0), reversed_losses))


def test_hooks_on_activations_in_a_step_that_looks_at_each_batch_alone():
    """Registered without asking whether there is a graph."""
    torch.manual_seed(0)
    model = Hooked(lambda h, call: h.register_hook(lambda g: None), "middle").double()
    step = fastrw.Reweighter(model, losses_fn=losses)
    for _ in range(4):
        assert step.backward(rows(7, 1.0), rows(4, 1.0)).update == "assembled"
