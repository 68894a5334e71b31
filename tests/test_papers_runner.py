"""The papers' experiments: each trial runs once, goes on where it was stopped as if it never was, is kept whole."""

import json
import math
from dataclasses import replace

import pytest
import torch

from bench.papers import convergence, sources, training
from bench.papers.command import main
from bench.papers.convergence import Lemma, constants, counterexample
from bench.papers.cost import Cost
from bench.papers.experiments import EXPERIMENTS, SCALES
from bench.papers.quick import quick
from bench.papers.sources import PapersError
from bench.papers.training import Options, Training
from bench.papers.trial import Stopped, Store
from tests.resumed import in_float64, same_state

SMALL = Training(
    "cifar10", train=60, held=20, clean=2, noise="background", flip=0.4, model="convnet", steps=8, n=20, m=10,
    optimizer="adam", lr=3e-3, fine_tune=3, points=4, probe=True,
)  # fmt: skip
FSR = replace(SMALL, method="fsr", fine_tune=0, fsr=Options(capacity=20, q=10, warmup=1, relabel=2.0, mixup=True))
KINDS = [
    *(
        replace(SMALL, method=method)
        for method in ("plain", "random", "oracle", "proportion", "resample", "clean_only")
    ),
    *(replace(SMALL, method=method, imbalance="bias", ratio=0.5) for method in ("hard_mining", "l2r")),
    replace(SMALL, method="l2r", every=3, augment=True, optimizer="sgd", schedule="cosine"),
    replace(SMALL, method="l2r", params="last", schedule="constant", weight_decay=1e-3),
    Lemma("mnist", steps=8),
    Lemma("mnist", steps=8, rule="normalised"),
    FSR,
]


pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    # BatchNorm over so few examples magnifies rounding beyond what the first step's check lets pass
    pytest.mark.filterwarnings("ignore:fastrw. this model is scored by one backward pass per example"),
]


@pytest.fixture(scope="module")
def images():
    return sources.images("cifar10", None)


@pytest.mark.parametrize(
    "trial", KINDS, ids=lambda trial: f"{trial.settings['kind']}-{getattr(trial, 'method', trial.seed)}"
)
def test_stopped_trial_goes_on_as_if_never_stopped(tmp_path, images, trial, monkeypatch):
    works, start = [], type(trial).start
    monkeypatch.setattr(type(trial), "start", lambda *args: works.append(start(*args)) or works[-1])
    with in_float64(training, convergence):
        whole = Store(tmp_path / "whole").run(trial, images)["result"]
        end, total = works[0].state_dict(), works[0].total
        for stop in (1, total // 2, total - 1):
            store, done = Store(tmp_path / f"stopped{stop}"), []
            with pytest.raises(Stopped):
                store.run(trial, images, on_step=lambda at, _, done=done: done.append(at),
                          stopped=lambda done=done, stop=stop: done[-1] == stop)  # fmt: skip
            assert store.find(trial, images) is None
            torch.manual_seed(stop)  # whatever the process did between must not matter
            again = store.run(trial, images)["result"]
            same_state(works[-1].state_dict(), end)
            same_state(again, whole)
            assert [file.suffix for file in store.folder.iterdir()] == [".json"]


def test_finished_trial_is_not_run_again(tmp_path, images, monkeypatch):
    store = Store(tmp_path)
    kept = store.run(SMALL, images)
    monkeypatch.setattr(Training, "start", None)
    assert store.run(SMALL, images) == kept
    assert store.find(replace(SMALL, seed=1), images) is None


def test_key_is_of_settings_and_images(images):
    other = replace(images, x=images.x + 1)
    keys = {SMALL.key(images), SMALL.key(other), replace(SMALL, lr=1e-3).key(images), Lemma("mnist").key(images)}
    assert len(keys) == 4 and SMALL.key(images) == replace(SMALL).key(images)
    assert "every" not in SMALL.settings  # a default that a new setting brings changes no key


def test_broken_files_are_told(tmp_path, images):
    store = Store(tmp_path)
    store.folder.mkdir()
    partial = store.folder / f"{SMALL.key(images)}.pt"
    partial.write_bytes(b"no state")
    with pytest.raises(PapersError, match="must be a state that a run saved"):
        store.run(SMALL, images)
    partial.with_suffix(".json").write_text("{")
    with pytest.raises(PapersError, match="must be a result that a run wrote"):
        store.run(SMALL, images)


def test_what_is_kept_of_a_training(tmp_path, images):
    found = Store(tmp_path).run(replace(SMALL, method="l2r"), images)["result"]
    assert sum(map(sum, found["confusion"])) == 450 and 0 <= found["accuracy"] <= 1
    assert [point[0] for point in found["curve"]] == [2, 4, 6, 8]
    assert {"stopped", "fine_tuned", "stopped_fine_tuned", "probe", "auc", "zero_share"} <= found.keys()
    mixed = found["probe"]["mixed"]
    assert sum(each["zero"] + sum(each["counts"]) for each in mixed.values()) == 20
    json.dumps(found)


def test_early_stopping_takes_the_best_held_out_point(images):
    work = SMALL.start(images)
    while work.done < work.total:
        work.step()
    best = max(point[2] for point in work.watch.curve)
    assert work.watch.best_held == best


def test_cost_is_a_ratio_turn_by_turn(tmp_path):
    rows = Store(tmp_path).run(Cost(n=12, m=4, ways=("Reweighter", "FSR"), rounds=3), None)["result"]["rows"]
    assert rows["plain"]["ratio"] == 1 and all(row["ratio"] > 0 and row["memory"] > 0 for row in rows.values())


# Lemma 1


def test_constants_bound_the_problem():
    """L: no pair of points has a steeper change of ∇G; σ: no gradient is longer. Sought by many random parameters."""
    work = Lemma("mnist").start(sources.images("mnist", None))
    x, y = work.x_val.requires_grad_(False), work.y_val
    torch.manual_seed(0)
    with_bias = torch.cat([x, x.new_ones(len(x), 1)], 1)

    def slope(weight):
        error = (with_bias @ weight.T).softmax(1) - torch.nn.functional.one_hot(y, 10)
        return error.T @ with_bias / len(x), error.norm(dim=1) * with_bias.norm(dim=1)

    for size in (0.01, 0.1, 1.0):
        a = size * torch.randn(10, x.shape[1] + 1, dtype=torch.float64)
        b = a + 1e-3 * torch.randn_like(a)
        assert (slope(a)[0] - slope(b)[0]).norm() <= work.L * (a - b).norm()
        assert slope(a)[1].max() <= work.sigma
    assert constants(x, x)[0] == pytest.approx(work.L)


def test_step_is_equation_30():
    """θ - (α/n) Σ_i max(∇G·∇f_i, 0) ∇f_i with one gradient an example."""
    work = Lemma("mnist", n=7).start(sources.images("mnist", None))
    parameters = list(work.model.parameters())
    for _ in range(3):
        before = [p.detach().clone() for p in parameters]
        torch.manual_seed(work.done)
        index = torch.randperm(len(work.y))[:7]
        loss = torch.nn.functional.cross_entropy
        G = torch.autograd.grad(loss(work.model(work.x_val), work.y_val), parameters)
        expected = [p.clone() for p in before]
        for i in index:
            f = torch.autograd.grad(loss(work.model(work.x[i][None]), work.y[i][None]), parameters)
            s = sum((a * b).sum() for a, b in zip(G, f, strict=True)).clamp(min=0)
            expected = [p - work.bound / 7 * s * g for p, g in zip(expected, f, strict=True)]
        work.step()
        for p, e in zip(parameters, expected, strict=True):
            torch.testing.assert_close(p.detach(), e, rtol=1e-10, atol=1e-14)


def test_validation_loss_never_rises_at_the_bound():
    work = Lemma("mnist", steps=60).start(sources.images("mnist", None))
    while work.done < work.total:
        work.step()
    assert work.rises == 0 and work.loss < work.first


def test_lemma_as_printed_fails_on_equal_examples():
    for n in (2, 5, 20, 100):
        found = counterexample(n, start=0.6)
        assert found["safe"] <= found["before"]
    assert counterexample(20)["lemma"] > 10 * counterexample(20)["before"]
    assert math.isclose(counterexample(1)["lemma"], counterexample(1)["safe"])


# The experiments


def test_every_experiment_has_trials_at_both_scales():
    for experiment in EXPERIMENTS.values():
        for scale in SCALES:
            trials = experiment.trials(scale)
            assert trials and len(set(trials)) == len(trials)
            assert {trial.data for trial in trials} == {experiment.data}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_runs_on_digits_and_is_told(tmp_path, name):
    out = ["--out", str(tmp_path), "--threads", "1", "--device", "cpu"]
    assert main(["run", name, "--quick", "--seeds", "2", *out]) == 0
    document = json.loads((tmp_path / f"{name}.json").read_text())
    trials = set(map(quick, (t for t in EXPERIMENTS[name].trials("cpu") if t.seed < 2)))
    assert len(document["trials"]) == len(trials)
    assert document["command"].startswith(f"python -m bench.papers run {name} --scale cpu") and document["versions"]
    files = ["--markdown", str(tmp_path / "R.md"), "--html", str(tmp_path / "R.html")]
    assert main(["report", "--results", str(tmp_path), *files]) == 0
    for file in ("R.md", "R.html"):
        assert EXPERIMENTS[name].title in (tmp_path / file).read_text().replace("&#x27;", "'")
