"""The papers' experiments: the networks are those of the papers, and every one of them takes a reweighted step."""

import pytest
import torch
from torch import nn

import fastrw
from bench.papers.models import MODELS, make_model
from fastrw.testing.models import resnet, wide_resnet


@pytest.mark.parametrize("name, millions, convolutions", [("wrn28_10", 36.5, 25), ("resnet32", 0.47, 31)])
def test_size_is_the_papers(name, millions, convolutions):
    with torch.device("meta"):
        model = MODELS[name]((3, 32, 32), 10)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)
    assert sum(isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3) for m in model.modules()) == convolutions


@pytest.mark.parametrize("model", [
    wide_resnet((3, 8, 8), 10, depth=10, widen=1, dropout=0.3), resnet((3, 8, 8), 10, widths=(16, 32, 64)),
    make_model("convnet", (3, 8, 8), 10, 0), make_model("lenet", (3, 8, 8), 10, 0),
], ids=["wide", "resnet", "convnet", "lenet"])  # fmt: skip
def test_reweighted_step(model):
    torch.manual_seed(0)
    batch, val_batch = ((torch.randn(n, 3, 8, 8), torch.arange(n) % 10) for n in (12, 6))
    out = fastrw.Reweighter(model).backward(batch, val_batch)
    assert out.weights.sum() == pytest.approx(1, abs=1e-5) and all(p.grad is not None for p in model.parameters())


def test_parameters_are_of_the_seed_alone():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first, second, other = (make_model("convnet", (3, 8, 8), 10, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first[0].weight, other[0].weight)
