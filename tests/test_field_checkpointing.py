"""Checkpointing keeps its memory and recomputes a few times, not once a node; reentrant checkpointing is refused."""

import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

import fastrw
from tests.on_graph import apart, exact, joined, relative, truth


class Live(TorchDispatchMode):
    """Bytes of the tensors that live, and the most at once."""

    def __init__(self):
        super().__init__()
        self.now, self.peak, self.known = 0, 0, set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for t in tree_leaves(out):
            if (
                isinstance(t, torch.Tensor)
                and t.layout == torch.strided
                and t.untyped_storage()._cdata not in self.known
            ):
                storage = t.untyped_storage()
                self.known.add(storage._cdata)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self.gone, storage._cdata, storage.nbytes())
        return out

    def gone(self, key, size):
        self.known.discard(key)
        self.now -= size


class Block(nn.Module):
    def __init__(self, norm, width=16):
        super().__init__()
        self.n, self.a, self.b, self.calls = norm(width), nn.Linear(width, 2 * width), nn.Linear(2 * width, width), 0

    def forward(self, h):
        self.calls += 1
        return h + self.b(self.a(self.n(h)).relu())


class Net(nn.Module):
    def __init__(self, norm=nn.LayerNorm, how="segments", dropout=0.0, blocks=8):
        super().__init__()
        self.stem, self.out, self.how, self.dropout = nn.Linear(8, 16), nn.Linear(16, 3), how, dropout
        self.blocks = nn.ModuleList(Block(norm) for _ in range(blocks))

    def forward(self, x):
        h = self.stem(x)
        for i in range(0, len(self.blocks), 2):
            h = self.segment(i, h)
        return self.out(h)

    def segment(self, i, h):
        def both(h):
            return F.dropout(self.blocks[i + 1](self.blocks[i](h)), self.dropout)

        def each(h):
            return checkpoint(self.blocks[i + 1], checkpoint(self.blocks[i], h, **kind), **kind)

        kind = {"use_reentrant": self.how == "reentrant"}
        if self.how == "plain":
            return both(h)
        if self.how == "saved elsewhere":
            with torch.autograd.graph.save_on_cpu():
                return both(h)
        if self.how == "part of the batch":
            return torch.cat([h[:2], checkpoint(both, h[2:], use_reentrant=True)])
        return checkpoint(each if self.how == "nested" else both, h, **kind)

    def calls(self):
        return sum(block.calls for block in self.blocks)


def rows(n):
    return torch.randn(n, 8).double(), torch.randint(3, (n,))


@pytest.mark.parametrize("how", ["segments", "nested", "saved elsewhere"])
@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.BatchNorm1d])
def test_every_call_is_exact(norm, how):
    torch.manual_seed(0)
    model = Net(norm, how, blocks=2).double()
    step = fastrw.Reweighter(model)
    for _ in range(3):
        batch, val_batch = rows(7), rows(4)
        for made in (apart,) if norm is nn.BatchNorm1d else (apart, joined):
            exact(*made(model, batch, val_batch))
            model.zero_grad()
        s, _, _ = truth(*apart(model, batch, val_batch))
        assert relative(step.backward(batch, val_batch).scores, s) <= 1e-10
        for method in ("auto", "tangent"):
            assert relative(fastrw.gradient_dots(model, batch, val_batch, method=method), s) <= 1e-10
        model.zero_grad()


@pytest.mark.parametrize("how", ["segments", "nested"])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.BatchNorm1d])
def test_memory_and_recomputations_are_near_those_of_an_ordinary_step(norm, dropout, how):
    torch.manual_seed(0)
    model = Net(norm, how, dropout).double()
    batch, val_batch = rows(256), rows(128)
    both = [torch.cat(pair) for pair in zip(batch, val_batch, strict=True)]
    step = fastrw.Reweighter(model)

    def cost(call):
        before = model.calls()
        with Live() as live:
            call()
        model.zero_grad()
        return live.peak, model.calls() - before

    ordinary, calls = cost(lambda: F.cross_entropy(model(both[0]), both[1]).backward())
    model.how = "plain"
    whole, _ = cost(lambda: F.cross_entropy(model(both[0]), both[1]).backward())
    model.how = how
    for call in (
        lambda: step.backward(batch, val_batch),
        lambda: fastrw.gradient_dots(model, batch, val_batch),
        lambda: fastrw.backward(*apart(model, batch, val_batch)),
    ):
        for _ in range(2):
            call()
        model.zero_grad()
        peak, count = cost(call)  # the third: nothing is measured or checked
        assert peak <= 1.5 * ordinary < whole and count <= 4 * calls


@pytest.mark.parametrize("how", ["reentrant", "part of the batch"])
def test_reentrant_checkpointing_is_refused_with_the_words_to_use(how):
    torch.manual_seed(0)
    model, batch, val_batch = Net(how=how, blocks=2).double(), rows(7), rows(4)
    data = [(batch[0][i], i % 3) for i in range(7)]
    fsr = fastrw.fsr.FSR(model, 7, 3, dataset=data, q=3, capacity=3, params="all", warmup=0)
    kept = torch.ones_like(model.stem.weight)
    for p in model.parameters():
        p.grad = None
    model.stem.weight.grad = kept.clone()
    for call in (
        lambda: fastrw.backward(*apart(model, batch, val_batch)),
        lambda: fastrw.backward(*joined(model, batch, val_batch)),
        lambda: fastrw.Reweighter(model).backward(batch, val_batch),
        lambda: fastrw.Reweighter(model, update="backward").backward(batch, val_batch),
        lambda: fastrw.meta_weights(model, batch, val_batch),
        lambda: fastrw.verify(model, batch, val_batch),
        lambda: (fsr.step(torch.arange(7), batch[0], torch.arange(7) % 3), fsr.end_epoch(),
                 fsr.step(torch.arange(7), batch[0], torch.arange(7) % 3)),
    ):  # fmt: skip
        with pytest.raises(fastrw.Refused, match="use_reentrant=False"):
            call()
        assert torch.equal(model.stem.weight.grad, kept)
        assert all(p.grad is None for p in model.parameters() if p is not model.stem.weight)
