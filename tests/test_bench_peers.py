"""Whole steps of other libraries and in other settings: each exact, or with its reason; goals beside the ratios."""

import functools
import importlib.util
import json
import subprocess
import sys
import weakref

import pytest
import torch
from torch import nn

import bench
from bench import end_to_end, exactness, goals, models, peers, roof, steps, twins
from bench.models import MODELS
from bench.peers import PEERS
from fastrw.engine.weights import shift
from fastrw.testing import models as networks

TINY = ["-n", "4", "-m", "2", "--rounds", "1", "--threads", "1"]


@pytest.fixture(autouse=True)
def quick_and_alone(monkeypatch):
    monkeypatch.setattr(roof, "measure", functools.partial(roof.measure, size=256, rounds=1))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def rows_of(folder, *words, model="lenet"):
    status = bench.main(["end_to_end", model, *TINY, "--json", str(folder / "result.json"), *words])
    result = json.loads((folder / "result.json").read_text())
    assert result["complete"]
    return status, {row["method"]: row for row in result["runs"][0]["rows"]}


def installed(name):
    if importlib.util.find_spec(PEERS[name]) is None:
        pytest.skip(f"{name} is not installed: pip install -e .[peers]")
    return name


@pytest.mark.filterwarnings("ignore")  # a peer's own
@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("model", ["lenet", "transformer"])
def test_a_peer_is_exact_and_leaves_no_hooks(name, model):
    model, batch, val_batch = MODELS[model].make(n=4, m=2)
    before = [*map(id, model.parameters())]
    errors, served_by = exactness.check(steps.STEPS[installed(name)], exactness.truths(model, batch, val_batch))
    assert max(errors) < 1e-5 and served_by.startswith(PEERS[name])
    for _ in range(2):
        model.zero_grad()
        steps.STEPS[name](model, batch, val_batch)
    assert [*map(id, model.parameters())] == before
    for module in model.modules():
        assert not module._forward_hooks and not module._backward_hooks
    assert all(getattr(p, "grad_sample", None) is None for p in model.parameters())


@pytest.mark.parametrize("name", ["Opacus", "TorchJD"])
def test_a_peer_that_cannot_run_a_model_says_why(tmp_path, name):
    status, rows = rows_of(tmp_path, "--methods", installed(name), model="resnet32_bn")
    assert status == 0
    assert "BatchNorm" in rows[name]["why"] and rows[name]["ratio"] is None and not rows[name]["red"]


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_that_is_not_installed_says_so(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, PEERS[name], None)
    status, rows = rows_of(tmp_path, "--methods", name)
    assert status == 0
    assert rows[name]["why"].startswith("not installed") and "pip install -e .[peers]" in rows[name]["why"]


def test_no_peer_is_imported_before_its_turn():
    assert set(peers.steps()) == set(PEERS) and "bench.peers" in sys.modules
    script = "import sys, bench.end_to_end; sys.exit(any(p in sys.modules for p in ('opacus', 'torchjd', 'torchopt')))"
    assert subprocess.run([sys.executable, "-c", script], cwd=end_to_end.record.ROOT).returncode == 0


def test_a_twin_shares_parameters_and_goes_with_its_model():
    made = twins.Twins(lambda twin: twin.register_forward_hook(lambda *_: None))
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    twin, _ = made.of(model)
    assert made.of(model)[0] is twin and twin is not model
    assert [*map(id, model.parameters())] == [*map(id, twin.parameters())]
    assert twin[1].running_mean is not model[1].running_mean and not model._forward_hooks
    gone = weakref.ref(model)
    del model
    assert gone() is None


def test_all_weights_positive_is_checked_against_its_own_rule(tmp_path):
    status, rows = rows_of(tmp_path, "--methods", "Reweighter", "all weights positive")
    row = rows["all weights positive"]
    assert status == 0 and row["why"] is None
    assert row["goal"] == pytest.approx(rows["Reweighter"]["ratio"] + goals.NOTHING_TO_SKIP)
    assert (shift(torch.randn(20)) > 0).all()


def test_channels_last_has_its_own_baseline(tmp_path):
    names = "plain, channels_last", "Reweighter, channels_last"
    status, rows = rows_of(tmp_path, "--methods", *names)
    plain, ours = (rows[name] for name in names)
    assert status == 0 and ours["base"] == names[0] and plain["base"] == "plain"
    assert ours["ratio"] == pytest.approx(ours["seconds"]["median"] / plain["seconds"]["median"])
    seen = []

    def look(model, batch, val_batch):
        seen.extend([batch[0], next(p for p in model.parameters() if p.ndim == 4)])
        return steps.plain(model, batch, val_batch)

    model, batch, val_batch = MODELS["resnet32_gn"].make(n=3, m=2)
    twins.channels_last(look)(model, batch, val_batch)
    assert all(t.is_contiguous(memory_format=torch.channels_last) for t in seen) and batch[0].is_contiguous()
    mlp, batch, val_batch = MODELS["mlp"].make(n=3, m=2)
    with pytest.raises(twins.CannotRun):
        twins.channels_last(steps.plain)(mlp, batch, val_batch)


@pytest.mark.parametrize("extension", ["on", "off"])
def test_goals_stand_beside_what_they_are_for(extension):
    def row(method, ratio, served_by="layerwise, assembled"):
        return {"model": "lenet", "method": method, "ratio": ratio, "served_by": served_by}

    rows = [row("plain", 1.0, "plain"), row("Reweighter", 1.2), row("all weights positive", 1.3),
            row("update=backward", 1.9, "layerwise, backward"), row("params=last", None, None),
            row("torch.func.jvp", 2.0, "torch.func.jvp")]  # fmt: skip
    goals.set_goals(rows, extension, "cpu")
    found = [(row["goal"], row["memory_goal"]) for row in rows]
    last = (1.06, None) if extension == "on" else (None, None)
    whole = 1.08 if extension == "on" else 1.45
    assert found == [(None, None), (whole, 1.35), (pytest.approx(1.28), 1.35), (None, 1.10), last, (None, None)]
    goals.set_goals(rows, extension, "cuda")
    assert all(row["goal"] is None and row["memory_goal"] is None for row in rows)
    assert goals.missed(1.2, 1.1) and not goals.missed(1.0, 1.1)
    assert not goals.missed(None, 1.1) and not goals.missed(3.0, None)


def test_end_to_end_measures_without_the_extension_in_another_process(tmp_path):
    words = ["--methods", "Reweighter", "double_backward", "--extension", "off"]
    status, rows = rows_of(tmp_path, *words)
    run = json.loads((tmp_path / "result.json").read_text())["runs"][0]
    assert status == 0 and run["extension"] == "off"
    assert list(rows) == ["plain", "Reweighter"] and rows["Reweighter"]["goal"] == 1.45


@pytest.mark.parametrize(
    "words", [["--rounds", "0"], ["--patience", "0"], ["--methods", "magic"], ["--extension", "?"]]
)
def test_end_to_end_refuses_bad_words(words, capsys):
    with pytest.raises(SystemExit) as ended:
        end_to_end.main(["lenet", *words])
    assert ended.value.code == 2 and words[0] in capsys.readouterr().err


def test_end_to_end_says_when_there_is_no_extension(monkeypatch, capsys):
    monkeypatch.setattr(end_to_end.extension, "reason", "it is not built")
    monkeypatch.delenv("FASTRW_DISABLE_EXTENSION", raising=False)
    with pytest.raises(SystemExit):
        end_to_end.main(["lenet", "--extension", "both"])
    assert "it is not built; take --extension off" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "millions"), [("wrn28_10", 36.5), ("vit_s", 22.05), ("gpt2_small", 124.4)])
def test_large_models_have_their_size(name, millions):
    assert MODELS[name].large and name not in models.on_this("cpu") and name in models.on_this("cuda")
    with torch.device("meta"):
        model = MODELS[name].build()
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=3e-3)


SMALL = {
    "wide resnet": models.Model(
        lambda: networks.wide_resnet((3, 16, 16), 10, depth=10, widen=1), models.images(3, 16, 16), n=9, m=3, large=True
    ),
    "vit": models.Model(
        lambda: networks.VisionTransformer(16, 2, 2, patch=8, size=16, classes=5), models.images(3, 16, 16), 5, n=9, m=3
    ),
    "gpt": models.Model(
        lambda: networks.LanguageModel(16, 2, 2, vocabulary=50, longest=8), lambda n: torch.randint(50, (n, 7)), 50,
        n=9, m=3, positions=(7,),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_the_step_is_exact_on_small_ones_of_the_large_models(name):
    model, batch, val_batch = SMALL[name].make()
    assert len(SMALL[name].small(batch, val_batch)[0][1]) == (4 if SMALL[name].large else 9)
    truths = exactness.truths(model, batch, val_batch)
    for name in ("Reweighter", "update=backward"):
        exactness.check(steps.STEPS[name], truths)
