"""Whole steps, timing, results, the run on a GPU: no number for what is wrong, results written whole or not at all."""

import functools
import itertools
import json
import os
import sys

import pytest
import torch
from torch import nn

import bench
from bench import compiled, end_to_end, goals, peers, record, roof, steps, timing
from bench.floors import floors
from bench.models import MODELS, Model, images
from fastrw.testing.models import mlp

TINY = ["-n", "4", "-m", "2", "--rounds", "1", "--threads", "1"]


@pytest.fixture(autouse=True)
def quick_and_alone(monkeypatch):
    """A small roof, no compiler; the number of threads as it was before the test."""
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")
    monkeypatch.setattr(roof, "measure", functools.partial(roof.measure, size=256, rounds=1))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def rows_of(folder, *words, model="lenet"):
    """Run end_to_end on one model with few examples; its exit status and its rows."""
    status = bench.main(["end_to_end", model, *TINY, "--json", str(folder / "result.json"), *words])
    return status, json.loads((folder / "result.json").read_text())["runs"][0]["rows"]


def test_end_to_end_gives_every_variant_a_number_or_a_reason(tmp_path):
    ours = [name for name in steps.STEPS if name not in ("plain", *compiled.EAGER, *peers.PEERS)]
    status, rows = rows_of(tmp_path, "--plot", str(tmp_path / "ratios.png"), "--methods", *ours, model="mlp")
    assert [row["method"] for row in rows] == ["plain", *ours]
    for row in rows:
        if row["why"] is None:
            assert row["ratio"] > 0 and row["floor"] >= 1 and len(row["seconds"]["samples"]) == 1
            assert row["peak_ratio"] > 0.8  # every variant ends with the same gradients in memory as a plain step
        else:
            assert row["seconds"] is row["ratio"] is row["peak_ratio"] is None
    assert status == 0
    assert {row["method"] for row in rows if row["why"] is None} >= {"plain", "torch.func.jvp", "vmap(grad)"}
    assert (tmp_path / "ratios.png").read_bytes().startswith(b"\x89PNG")


def test_a_compiled_step_is_timed_beside_the_compiled_plain_one(tmp_path, capsys, monkeypatch):
    """Takes over 10 s on a busy machine: of three models, two to be checked and one to be timed, two steps are
    compiled."""
    monkeypatch.setitem(MODELS, "mlp", Model(functools.partial(mlp, 6, 4, 1), images(6)))
    status, rows = rows_of(tmp_path, "--methods", "Reweighter", compiled.REWEIGHTER, model="mlp")
    assert status == 0 and [row["method"] for row in rows] == [
        "plain",
        "Reweighter",
        compiled.PLAIN,
        compiled.REWEIGHTER,
    ]
    *_, plain, ours = rows
    assert ours["why"] is None and ours["base"] == compiled.PLAIN and plain["base"] == "plain"
    assert ours["ratio"] == pytest.approx(ours["seconds"]["median"] / plain["seconds"]["median"])
    assert ours["to_plain"] == pytest.approx(ours["ratio"] * plain["ratio"])
    assert ours["goal"] == goals.COMPILED * ours["floor"]
    assert ours["compiling"]["seconds"] > 0 and ours["compiling"]["beside"] == "Reweighter"
    assert f"{compiled.REWEIGHTER}: compiling took" in capsys.readouterr().out


def test_a_step_that_runs_eagerly_gets_no_number_as_a_compiled_one(tmp_path, monkeypatch):
    def refuse(*_):
        raise RuntimeError("no such code")

    monkeypatch.setattr(compiled, "BACKEND", refuse)
    status, rows = rows_of(tmp_path, "--methods", compiled.REWEIGHTER, model="mlp")
    assert status == 0 and rows[-1]["why"].startswith("not compiled: ") and rows[-1]["ratio"] is None


def row(median):
    return {"method": "", "seconds": {"median": median}}


def test_compiling_is_paid_back_by_what_a_step_saves(monkeypatch):
    kinds = {torch.float32: 6.0, torch.float64: 100.0}
    took = {(name, kind): seconds for name in compiled.EAGER for kind, seconds in kinds.items()}
    monkeypatch.setattr(compiled, "_seconds", took)
    rows = {"plain": row(0.004), compiled.PLAIN: row(0.005), "Reweighter": row(0.008), compiled.REWEIGHTER: row(0.005)}
    rows = {name: found | {"method": name} for name, found in rows.items()}
    compiled.tell_costs(rows)
    assert rows["plain"]["compiling"] is rows["Reweighter"]["compiling"] is None
    assert rows[compiled.PLAIN]["compiling"] == {"seconds": 6.0, "beside": "plain", "steps": None}
    assert rows[compiled.REWEIGHTER]["compiling"]["steps"] == pytest.approx(2000)
    never, after = compiled.costs(rows.values())
    assert never == "plain, compiled: compiling took 6 s, never paid back: not faster than plain"
    assert after == "Reweighter, compiled: compiling took 6 s, paid back after 2,000 steps beside Reweighter"
    del rows["Reweighter"]
    compiled.tell_costs(rows)
    assert rows[compiled.REWEIGHTER]["compiling"] == {"seconds": 6.0, "beside": None, "steps": None}


@pytest.mark.parametrize("words", [(), ("--methods", compiled.PLAIN)])
def test_what_compiles_for_minutes_is_measured_where_it_is_named(tmp_path, monkeypatch, words):
    asked = []

    def measure(name, case, methods, *_):
        asked.extend(methods)
        return []

    monkeypatch.setattr(end_to_end, "measure", measure)
    monkeypatch.setattr(end_to_end, "table", lambda *_: "")
    rows_of(tmp_path, *words, model="transformer")
    assert (compiled.PLAIN in asked) == bool(words)


def wrong_scores(model, batch, val_batch):
    scores, served_by = steps.forward_mode(model, batch, val_batch)
    return 1.001 * scores, served_by


def wrong_gradient(model, batch, val_batch):
    found = steps.forward_mode(model, batch, val_batch)
    next(model.parameters()).grad.mul_(1.001)
    return found


def wrong_in_float32_alone(model, batch, val_batch):
    scores, served_by = steps.forward_mode(model, batch, val_batch)
    return scores * (1.001 if scores.dtype == torch.float32 else 1), served_by


def nan_scores(model, batch, val_batch):
    scores, served_by = steps.forward_mode(model, batch, val_batch)
    return scores * float("nan"), served_by


@pytest.mark.quick
@pytest.mark.parametrize("step", [wrong_scores, wrong_gradient, wrong_in_float32_alone, nan_scores])
def test_end_to_end_gives_a_wrong_variant_no_number(tmp_path, monkeypatch, step):
    monkeypatch.setitem(steps.STEPS, "torch.func.jvp", step)
    status, rows = rows_of(tmp_path, "--methods", "torch.func.jvp")
    assert status == 1
    assert rows[1]["why"].startswith("wrong") and rows[1]["seconds"] is None and rows[1]["ratio"] is None


def test_end_to_end_says_why_a_variant_cannot_run(tmp_path, monkeypatch):
    def refuse(*_):
        raise NotImplementedError("no such product. And more words")

    monkeypatch.setitem(steps.STEPS, "torch.func.jvp", refuse)
    status, rows = rows_of(tmp_path, "--methods", "torch.func.jvp")
    assert status == 0
    assert rows[1]["why"] == "NotImplementedError: no such product" and rows[1]["seconds"] is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_end_to_end_measures_the_other_malloc_in_another_process(tmp_path):
    words = ["lenet", *TINY, "--methods", "double_backward", "--malloc", "both", "--json", str(tmp_path / "both.json")]
    assert end_to_end.main(words) == 0
    runs = json.loads((tmp_path / "both.json").read_text())["runs"]
    assert [run["malloc"] for run in runs] == ["default", "retain"]
    assert all(row["ratio"] > 0 for run in runs for row in run["rows"])


@pytest.mark.parametrize("name", end_to_end.on_this("cpu"))
def test_models_are_the_same_at_every_call(name):
    (model, batch, val_batch), (again, *_) = MODELS[name].make(n=3, m=2), MODELS[name].make(n=3, m=2)
    assert all(map(torch.equal, model.parameters(), again.parameters()))
    assert model(batch[0]).shape[0] == 3 and len(val_batch[1]) == 2


def test_floors_by_hand():
    model, n, m = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)), 6, 2
    found = floors(model, (torch.randn(n, 8), torch.zeros(n).long()), (torch.randn(m, 8), torch.zeros(m).long()))
    first, second = 2 * n * 8 * 16, 2 * n * 16 * 4
    plain, weight_gradient, activation_backward = 2 * first + 3 * second, first + second, second
    tangent = plain + (plain - first - second) + m / n * plain
    scores = 2 * n * m * (8 + 16) + 2 * n * m * (16 + 4)  # gram is the cheaper form of both
    layerwise = plain + activation_backward + m / n * (plain - weight_gradient) + scores
    assert found["plain"] == 1
    assert found["tangent"] == pytest.approx(tangent / plain)
    assert found["layerwise"] == pytest.approx(layerwise / plain)
    assert all(p.grad is None for p in model.parameters())


def test_interleave_rotates_the_order():
    order = []
    runs = {name: lambda name=name: order.append(name) for name in "abc"}
    times = timing.interleave(runs, 3, warmup=0)
    assert "".join(order) == "abc" + "abc" + "bca" + "cab"
    assert all(len(times[name].samples) == 3 for name in runs)


def test_interleave_ends_a_slow_variant_early(monkeypatch):
    seconds = [0]
    monkeypatch.setattr(timing, "clock", lambda: sum(seconds))
    runs = {"quick": lambda: None, "slow": lambda: seconds.append(2)}
    times = timing.interleave(runs, 6, patience=3)
    assert len(times["quick"].samples) == 6 and len(times["slow"].samples) == 3


def test_timing_quotes_median_and_quartiles():
    times = timing.Timing(9.0, (1.0, 2.0, 3.0, 4.0, 100.0))
    assert times.median == 3 and times.quartiles == (2, 4)
    assert timing.Timing(9.0, (1.0,)).quartiles == (1, 1)


def test_peak_memory_counts_what_lives_at_once():
    def one_after_the_other():
        for _ in range(3):
            torch.ones(2**20)

    def together():
        [torch.ones(2**20) for _ in range(3)]

    kept = []

    def replaced():
        kept[:] = [torch.ones(2**20), torch.ones(2**18)]

    assert timing.peak_memory(one_after_the_other) == 4 * 2**20
    assert timing.peak_memory(together) == 12 * 2**20
    assert timing.peak_memory(replaced) == 5 * 2**20  # the new ones beside the old
    assert timing.peak_memory(replaced, before=kept.clear) == 5 * 2**20
    assert timing.peak_memory(lambda: None) == 0


def test_peak_memory_is_that_of_an_ordinary_step():
    calls = itertools.count(3)

    def checked_in_the_fourth_and_the_fifth():
        torch.ones(2**20 if next(calls) in (4, 5) else 2**18)

    assert timing.peak_memory(checked_in_the_fourth_and_the_fifth, before=lambda: torch.ones(2**19)) == 2**20


def test_results_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "new" / "result.json"
    record.write_json(path, {"good": 1})

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        record.write_json(path, {"bad": 2})
    assert json.loads(path.read_text()) == {"good": 1}
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.quick
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_gpu_says_what_is_missing(capsys, tmp_path):
    assert bench.main(["gpu", "--out", str(tmp_path)]) != 0
    said = capsys.readouterr().err
    assert said.startswith("bench.gpu: needs a GPU") and said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_end_to_end_refuses_an_unknown_model(capsys):
    with pytest.raises(SystemExit) as ended:
        bench.main(["end_to_end", "alexnet"])
    assert ended.value.code == 2 and "alexnet" in capsys.readouterr().err
