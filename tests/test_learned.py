"""The one store of what is learned of a model: bounded, weak, and honest about ids that are used again."""

import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fastrw
from fastrw import learned
from fastrw.engine import cache


def test_the_least_recently_used_entry_goes_first():
    table = learned.Table(2)
    for key in "ab":
        table.put(key, key.upper())
    assert table.get("a") == "A"
    table.put("c", "C")
    assert (table.get("a"), table.get("b"), table.get("c")) == ("A", None, "C")
    table.drop("a")
    assert table.get("a") is None


def test_an_entry_that_speaks_of_another_tensor_is_dropped():
    table, (p, q) = learned.Table(2), (nn.Parameter(torch.zeros(1)) for _ in range(2))
    table.put("key", 1, [p])
    assert table.get("key", [p]) == 1
    assert table.get("key", [q]) is None
    assert table.get("key", [p]) is None


def made():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    return model, *((torch.randn(n, 4), torch.arange(n) % 3) for n in (6, 4))


def by_backward(model, batch, val_batch):
    x, y = map(torch.cat, zip(batch, val_batch, strict=True))
    f = F.cross_entropy(model(x), y, reduction="none")
    fastrw.backward(f[:6], f[6:].mean())


CALLS = [by_backward, fastrw.meta_weights, lambda model, *batches: fastrw.Reweighter(model).backward(*batches)]


@pytest.mark.parametrize("call", CALLS, ids=["backward", "meta_weights", "Reweighter"])
def test_what_was_learned_goes_with_its_model(call):
    model, *batches = made()
    call(model, *batches)
    owner = weakref.ref(model[0].weight)
    gc.collect()
    before = len(learned._stores)
    del model
    gc.collect()
    assert owner() is None and len(learned._stores) == before - 1


def test_plans_are_few_whatever_the_shapes(monkeypatch):
    monkeypatch.setattr(cache, "STRUCTURES", 2)
    model, batch, val_batch = made()
    for n in range(1, 7):
        fastrw.meta_weights(model, tuple(t[:n] for t in batch), val_batch)
    assert len(learned.table(model, "plans")._entries) == 2
