"""Autocast and narrow dtypes, over many seeds: the same method as in float32, and never taken for a wrong rule."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fastrw
from tests.on_graph import apart, relative, truth


def net(norm):
    layers = [layer for _ in range(2) for layer in (nn.Linear(16, 16), norm(16), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(16, 3))


def rows(n, dtype=torch.float32):
    return torch.randn(n, 16).to(dtype), torch.randint(3, (n,))


def inside(model, batch):
    with torch.autocast("cpu", torch.bfloat16):
        return F.cross_entropy(model(batch[0]).float(), batch[1], reduction="none")


def in_part(model, batch):
    with torch.autocast("cpu", torch.bfloat16):
        h = model[:-1](batch[0])
        with torch.autocast("cpu", enabled=False):
            z = model[-1](h.float())
    return F.cross_entropy(z, batch[1], reduction="none")


def plain(model, batch):
    return F.cross_entropy(model(batch[0]).float(), batch[1], reduction="none")


KINDS = {
    "inside": (inside, {}, False, torch.float32),
    "in part": (in_part, {}, False, torch.float32),
    "round": (plain, {}, True, torch.float32),
    "scaled": (plain, {"scaler": torch.amp.GradScaler("cpu", init_scale=1024.0)}, True, torch.float32),
    "bfloat16": (plain, {}, False, torch.bfloat16),
    "float16": (plain, {}, False, torch.float16),
}


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.BatchNorm1d])
@pytest.mark.parametrize("kind", KINDS)
def test_many_seeds(kind, norm):
    losses, options, outside, dtype = KINDS[kind]
    method = "tangent" if norm is nn.BatchNorm1d else "layerwise"
    for seed in range(4):
        torch.manual_seed(seed)
        model, batch, val_batch = net(norm), rows(12), rows(6)
        exact, _, _ = truth(*apart(copy.deepcopy(model).double(), *((x.double(), y) for x, y in (batch, val_batch))))
        model, batch, val_batch = model.to(dtype), *((x.to(dtype), y) for x, y in (batch, val_batch))
        step = fastrw.Reweighter(model, losses_fn=losses, **options)
        for _ in range(2):
            with torch.autocast("cpu", torch.bfloat16, enabled=outside):  # both forwards share one cache of casts
                f, g = apart(model, batch, val_batch, losses)
                narrow, _, _ = truth(f, g)
                found = [fastrw.backward(f, g, **options), step.backward(batch, val_batch)]
            for out in found:
                assert out.method == method
                assert relative(out.scores.double(), exact) <= 2 * relative(narrow, exact) + 1e-2
