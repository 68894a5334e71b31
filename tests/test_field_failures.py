"""Errors that an ordinary backward does not raise are refusals of a method; all others reach the user as they are."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

import fastrw
from tests.on_graph import apart, exact, joined, relative, truth
from tests.test_field import rows

pytestmark = pytest.mark.filterwarnings("ignore:fastrw. this model is scored by one backward pass")


def function(name, backward, **members):
    """tanh, with a backward of its own, whose argument is the derivative."""

    def forward(ctx, x):
        ctx.save_for_backward(1 - x.tanh() ** 2)
        ctx.alive = True
        return x.tanh()

    def own(ctx, g):
        return backward(ctx, g, ctx.saved_tensors[0])

    return type(name, (torch.autograd.Function,), {"forward": staticmethod(forward), "backward": staticmethod(own)})


def once(ctx, g, d):
    del ctx.alive
    return g * d


def not_zero(ctx, g, d):
    if not g.any():
        raise ValueError("a gradient of zero")
    return g * d


def not_large(ctx, g, d):
    if g.abs().max() > 100:
        raise FloatingPointError("exploded")
    return g * d


def of_numpy(ctx, g, d):
    return torch.from_numpy(np.multiply(g.numpy(), d.numpy()))


def contiguous(ctx, g, d):
    return (g.view(-1) * d.view(-1)).view(d.shape)


def by_autograd(ctx, g, d):
    with torch.enable_grad():
        u = d.detach().requires_grad_()
        return torch.autograd.grad(u.square() / 2, u, g)[0]


def broken(ctx, g, d):
    raise KeyError("the user's own")


class Net(nn.Module):
    def __init__(self, backward, norm=nn.Identity, low=True):
        super().__init__()
        self.a, self.n, self.o, self.low = nn.Linear(8, 6), norm(6), nn.Linear(6, 3), low
        self.function = function(backward.__name__, backward)

    def forward(self, x):
        h = self.a(x)
        h = self.n(self.function.apply(h)) if self.low else self.function.apply(self.n(h))
        return self.o(h)


def each_call(model, batch, val_batch):
    """Name of a call -> what it gives."""
    yield "apart", lambda: fastrw.backward(*apart(model, batch, val_batch)).scores
    yield "joined", lambda: fastrw.backward(*joined(model, batch, val_batch)).scores
    for update in ("auto", "backward"):
        yield update, lambda update=update: fastrw.Reweighter(model, update=update).backward(batch, val_batch).scores
    for method in ("auto", "layerwise", "tangent", "double_backward", "per_example"):
        yield method, lambda method=method: fastrw.gradient_dots(model, batch, val_batch, method=method)


@pytest.mark.parametrize("low", [True, False])
@pytest.mark.parametrize("norm", [nn.Identity, nn.BatchNorm1d])
@pytest.mark.parametrize("backward", [not_zero, not_large, of_numpy, contiguous, by_autograd])
def test_functions_that_stand_only_what_an_ordinary_backward_does(backward, norm, low):
    torch.manual_seed(0)
    model, batch, val_batch = Net(backward, norm, low).double(), rows(7), rows(4)
    s, _, _ = truth(*apart(model, batch, val_batch))
    for name, call in each_call(model, batch, val_batch):
        if name == "joined" and norm is nn.BatchNorm1d:
            continue
        for _ in range(2):
            try:
                assert relative(call(), s) <= 1e-9, name
            except fastrw.Refused as refusal:
                assert name in ("layerwise", "tangent", "double_backward"), refusal
            model.zero_grad()


@pytest.mark.parametrize("norm", [nn.Identity, nn.BatchNorm1d])
def test_a_graph_that_allows_one_backward_is_refused_by_name(norm):
    torch.manual_seed(0)
    model, batch, val_batch = Net(once, norm).double(), rows(7), rows(4)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    for _, call in each_call(model, batch, val_batch):
        with pytest.raises(fastrw.Refused, match=r"more than one backward|differentiable"):
            call()
    assert all(p.grad is None for p in model.parameters())
    F.cross_entropy(model(batch[0]), batch[1]).backward()
    del before


def test_selective_checkpointing_is_refused_by_name():
    """It allows one backward only."""

    def policy(ctx, op, *args, **kwargs):
        saves = op == torch.ops.aten.addmm.default
        return CheckpointPolicy.MUST_SAVE if saves else CheckpointPolicy.PREFER_RECOMPUTE

    torch.manual_seed(0)
    model, inner = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 3)).double(), nn.Linear(8, 8).double()

    def losses(model, batch):
        h = checkpoint(
            lambda h: inner(h).relu(), model[0](batch[0]), use_reentrant=False,
            context_fn=lambda: create_selective_checkpoint_contexts(policy),
        )  # fmt: skip
        return F.cross_entropy(model[1](h), batch[1], reduction="none")

    with pytest.raises(fastrw.Refused, match="selective checkpointing"):
        fastrw.backward(*apart(model, rows(6), rows(3), losses))
    with pytest.raises(fastrw.Refused, match="selective checkpointing"):
        fastrw.Reweighter(model, losses_fn=losses).backward(rows(6), rows(3))


def test_errors_of_the_users_own_reach_the_user():
    torch.manual_seed(0)
    model, batch, val_batch = Net(broken).double(), rows(7), rows(4)
    for name, call in each_call(model, batch, val_batch):
        with pytest.raises(
            (KeyError, fastrw.Refused) if name == "double_backward" else KeyError, match="the user's own"
        ):
            call()

    def raising(model, batch):
        raise LookupError("in the loss")

    for call in (
        lambda: fastrw.meta_weights(model, batch, val_batch, losses_fn=raising),
        lambda: fastrw.Reweighter(model, losses_fn=raising).backward(batch, val_batch),
    ):
        with pytest.raises(LookupError, match="in the loss"):
            call()
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
def test_memory_that_is_full_is_no_refusal(error):
    def full(ctx, g, d):
        raise error("out of memory")

    model, batch, val_batch = Net(full).double(), rows(7), rows(4)
    for _, call in each_call(model, batch, val_batch):
        with pytest.raises(error):
            call()


def test_what_fails_only_later_is_refused_and_measured_anew():
    torch.manual_seed(0)
    limit = [1e30]

    def later(ctx, g, d):
        if g.abs().max() > limit[0]:
            raise FloatingPointError("exploded")
        return g * d

    model = Net(later, nn.BatchNorm1d).double()
    step = fastrw.Reweighter(model)
    for limit[0] in (1e30, 1e30, 1e30, 10.0, 10.0):
        batch, val_batch = rows(7), rows(4)
        s, _, _ = truth(*apart(model, batch, val_batch))
        assert relative(step.backward(batch, val_batch).scores, s) <= 1e-9
        exact(*apart(model, batch, val_batch), goal=1e-9)
