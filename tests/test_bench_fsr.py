"""The benchmark of FSR's step: every variant gets a number, a wrong one none, and its literal step is Algorithm 1."""

import json

import pytest
import torch

import bench
from bench import fsr as fsr_bench
from fastrw.ops.tolerance import relative_error
from tests import fsr_reference as reference

TINY = ["fsr", "lenet", "-b", "10", "-q", "20", "--rounds", "1", "--threads", "1"]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A small dataset; the number of threads as it was before the test."""
    monkeypatch.setattr(fsr_bench, "HELD", 200)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.quick
def test_every_variant_gets_a_number(tmp_path):
    assert bench.main([*TINY, "--json", str(tmp_path / "fsr.json")]) == 0
    result = json.loads((tmp_path / "fsr.json").read_text())
    assert [row["way"] for row in result["rows"]] == ["plain", *fsr_bench.VARIANTS] and result["bench"] == "fsr"
    for row in result["rows"]:
        assert row["ratio"] > 0 and row["floor"] >= 1 and row["peak_ratio"] > 0.5 and not row["red"]


def test_a_wrong_variant_gets_no_number(tmp_path, monkeypatch):
    literal = fsr_bench.algorithm_1
    monkeypatch.setattr(fsr_bench, "algorithm_1", lambda *args: 1.001 * literal(*args))
    assert bench.main([*TINY, "--ways", "FSR", "--json", str(tmp_path / "fsr.json")]) == 1
    row = json.loads((tmp_path / "fsr.json").read_text())["rows"][1]
    assert row["red"] and "ratio" not in row and row["error"] > 1e-4


@pytest.mark.parametrize("last", [True, False])
def test_the_literal_step_is_algorithm_1(last):
    model, (x, y) = reference.made(), reference.data()
    theirs = reference.Algorithm1(model, x, y, meta="head" if last else "all", decay=0.01)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=0.01)
    for start in (0, 20):  # without a momentum buffer, and with one
        index, reward = torch.arange(start, start + 20), torch.arange(40, 50)
        found = theirs.step(index, reward, rng=torch.get_rng_state())
        optimizer.zero_grad()
        batch = (x[index], y[index])
        scores = fsr_bench.algorithm_1(model, batch, (x[reward], y[reward]), optimizer, last)
        assert relative_error(scores, found["scores"]) <= 1e-10
        optimizer.step()
        for p, q in zip(model.parameters(), theirs.model.parameters(), strict=True):
            assert relative_error(p, q) <= 1e-10
