"""The demo: its images, how it spoils them, that an interrupted run goes on as if never stopped, and what it says."""

import json
import os
import pickle
import signal
from argparse import ArgumentParser
from itertools import islice

import numpy as np
import pytest
import torch

from fastrw.cli import main
from fastrw.cli.demo import add_arguments
from fastrw.demo import data, noise, session, train
from fastrw.demo.learners import DoubleBackward
from fastrw.demo.models import make_model
from fastrw.demo.resume import replacing
from fastrw.demo.session import Session
from fastrw.demo.settings import DemoError, Settings
from fastrw.demo.train import METHODS
from tests.image_files import pictures, write_cifar, write_idx, write_jpeg, write_npz
from tests.resumed import in_float64, same_state
from tests.tiers import some

SHORT = Settings(steps=4, seeds=1, batch_size=20, clean_per_class=2)


pytestmark = pytest.mark.usefixtures("one_thread")


# Sources


def test_digits_are_real_and_need_no_file():
    images = data.load(None)
    assert images.x.shape == (1797, 8, 8, 1) and images.classes == 10 and images.x_test is None


@pytest.mark.parametrize("shape", [(28, 28), (32, 32, 3), (3, 32, 32)])
@pytest.mark.parametrize("named", ["file", "folder"])
def test_npz_is_read(tmp_path, shape, named):
    write_npz(tmp_path, *shape)
    images = data.load(str(tmp_path / "images.npz" if named == "file" else tmp_path))
    x, y = pictures(60, *shape)
    x = x[..., None] if len(shape) == 2 else x.transpose(0, 2, 3, 1) if shape[0] == 3 else x
    assert np.array_equal(images.x, x) and np.array_equal(images.y, y) and len(images.x_test) == 20


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("below", [".", "raw", "MNIST/raw"])
def test_idx_is_read_where_torchvision_puts_it(tmp_path, compress, below):
    write_idx(tmp_path / below, compress)
    images = data.load(str(tmp_path))
    x, y = pictures(60, 28, 28)
    assert np.array_equal(images.x[..., 0], x) and np.array_equal(images.y, y)
    assert np.array_equal(images.x_test[..., 0], pictures(20, 28, 28)[0])


def test_idx_file_names_its_folder(tmp_path):
    write_idx(tmp_path)
    assert len(data.load(str(tmp_path / "train-images-idx3-ubyte")).x) == 60


@pytest.mark.parametrize("labels", [b"labels", b"fine_labels"])
@pytest.mark.parametrize("below", [".", "cifar-10-batches-py"])
def test_cifar_batches_are_read(tmp_path, labels, below):
    write_cifar(tmp_path / below, labels)
    images = data.load(str(tmp_path))
    x, y = pictures(60, 32, 32, 3)
    assert np.array_equal(images.x, x) and np.array_equal(images.y, y) and len(images.x_test) == 20


def test_cifar_batch_that_calls_something_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.system, ("exit 1",)

    write_cifar(tmp_path)
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({b"data": Trap()}, protocol=2))
    with pytest.raises(DemoError, match="has no place in a batch of images"):
        data.load(str(tmp_path))


def test_jpeg_npz_is_decoded(tmp_path):
    kept = write_jpeg(tmp_path)
    images = data.load(str(tmp_path / "images.npz"))
    assert images.x.shape == kept.shape and np.abs(images.x.astype(int) - kept).max() <= 3


# Noise


@pytest.fixture(scope="module")
def digits():
    return data.load(None)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.4, 0.9])
def test_flip_changes_exactly_the_share(share):
    y = np.arange(505) % 10
    labels = noise.flip(np.random.default_rng(0), y, 10, share)
    assert (labels != y).sum() == round(share * 505)
    assert labels.min() >= 0 and labels.max() <= 9


def test_flip_reaches_every_other_class():
    labels = noise.flip(np.random.default_rng(0), np.zeros(500, int), 10, 0.99)
    assert set(labels) == set(range(10))


def test_clean_examples_are_balanced_and_apart(digits):
    clean, rest = noise.clean_split(np.random.default_rng(0), digits.y, 10, 10)
    assert np.array_equal(np.bincount(digits.y[clean]), [10] * 10)
    assert np.array_equal(np.sort(np.concatenate([clean, rest])), np.arange(len(digits.y)))


def test_thin_reaches_the_imbalance():
    y = np.repeat(np.arange(10), 1000)
    kept = noise.thin(np.random.default_rng(0), y, np.arange(len(y)), 10, 5.0)
    counts = np.sort(np.bincount(y[kept]))
    assert counts[0] == 200 and counts[-1] == 1000 and len(np.unique(kept)) == len(kept)
    assert np.allclose(counts[1:] / counts[:-1], 5 ** (1 / 9), rtol=0.01)


def test_task_keeps_train_clean_and_test_apart(digits):
    """Images are identified by their pixels: none is both in the training and in the test set, none appears twice."""
    task = noise.make_task(digits, Settings(), 3)
    raw = digits.x.reshape(len(digits.x), -1)
    whole = {row.tobytes(): label for row, label in zip(raw, digits.y, strict=True)}
    assert len(whole) == len(raw)

    def originals(x: torch.Tensor) -> list[bytes]:
        flat = x.flatten(1).double().numpy()
        low, high = flat.min(), flat.max()  # pixels are 0..16, and both ends are there
        return [row.tobytes() for row in np.round((flat - low) / (high - low) * 16)]

    train_set, test_set = originals(task.x), originals(task.x_test)
    assert len({*train_set, *test_set}) == len(train_set) + len(test_set)
    truth = torch.tensor([whole[image] for image in train_set])
    assert torch.equal(truth, task.true) and torch.equal(truth[-100:], task.y[-100:])
    assert torch.equal(task.x_clean, task.x[-100:]) and torch.equal(task.y_clean, task.y[-100:])
    assert torch.equal(torch.tensor([whole[image] for image in test_set]), task.y_test)
    assert int((truth != task.y).sum()) == round(0.4 * (len(truth) - 100))


# Methods and models


@pytest.fixture
def make_run(digits):
    return lambda name: train.Run(name, noise.make_task(digits, SHORT, 0), SHORT, 0)


@pytest.mark.parametrize("name", METHODS)
def test_weights_are_a_share_of_one(make_run, name):
    _, w = make_run(name).learn()
    assert w.shape == (20,) and w.min() >= 0 and torch.isclose(w.sum(), torch.tensor(1.0)) and not w.requires_grad


def test_inverse_frequency_gives_each_class_the_same(make_run):
    run = make_run("inverse frequency")
    index, w = run.learn()
    y, counts = run.task.y[index], torch.bincount(run.task.y)
    assert torch.allclose(w / w[0], counts[y[0]] / counts[y])


def test_algorithm_1_moves_the_parameters_as_fastrw_does(digits):
    task = noise.make_task(digits, SHORT, 0)
    ours, theirs = (train.Run("fastrw", task, SHORT, 0) for _ in range(2))
    for each in (ours, theirs):
        each.optimizer = torch.optim.SGD(
            each.model.parameters(), 1.0
        )  # Adam would blow up rounding where gradients are 0
    theirs.learner = DoubleBackward(theirs.model)
    ours.step()
    theirs.step()
    before = train.Run("fastrw", task, SHORT, 0).model.parameters()
    for p, q, p0 in zip(ours.model.parameters(), theirs.model.parameters(), before, strict=True):
        assert not torch.equal(p, p0)
        assert (p - q).norm() <= 1e-4 * (p - p0).norm()


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 11), (1, 28, 28), (1, 16, 16), (3, 28, 28), (3, 32, 32)])
def test_model_fits_its_images_and_its_seed(shape):
    model = make_model(shape, 7, 0)
    assert model(torch.zeros(2, *shape)).shape == (2, 7)
    same, other = (make_model(shape, 7, seed).state_dict() for seed in (0, 1))
    assert all(torch.equal(p, same[name]) for name, p in model.state_dict().items())
    assert not torch.equal(same["0.weight"], other["0.weight"])


def test_auc_is_of_right_against_flipped(make_run):
    run = make_run("fastrw")
    flipped, record = run.task.y != run.task.true, run.weights
    run.curve.append((0, 0.0))
    record.times[:] = 2
    record.sums[:] = 1 - flipped.double()
    assert run.result()["auc"] == 1
    record.sums[:] = flipped.double()
    assert run.result()["auc"] == 0
    record.times[flipped] = record.sums[flipped] = 0
    assert run.result()["auc"] is None


# Saving and going on


def learned(session: Session) -> list[dict]:
    """Takes the steps that are left; what every run is at its end."""
    return [run.state_dict() for run in session.advance() if run.done]


@pytest.mark.parametrize("taken", some([1, 6, 17, 20], 2))
def test_resume_goes_on_as_if_never_stopped(digits, tmp_path, taken):
    with in_float64(session, noise):
        whole = Session(SHORT, digits)
        ends = learned(whole)
        first = Session(SHORT, digits)
        for _ in islice(first.advance(), taken):
            pass
        first.save(tmp_path / "run.pt")
        resumed = Session.resume(tmp_path / "run.pt")
        same_state(learned(resumed), ends[taken // 4 :])
        same_state(resumed.results, whole.results)


def test_interrupted_save_leaves_the_old_one_whole(digits, tmp_path, monkeypatch):
    session = Session(SHORT, digits)
    session.save(tmp_path / "run.pt")
    before = (tmp_path / "run.pt").read_bytes()

    def half(state, file):
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(KeyboardInterrupt):
        session.save(tmp_path / "run.pt")
    assert (tmp_path / "run.pt").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["run.pt"]


def test_replacing_writes_the_whole(tmp_path):
    with replacing(tmp_path / "new" / "file") as temporary:
        temporary.write_text("all of it")
        assert not (tmp_path / "new" / "file").exists()
    assert (tmp_path / "new" / "file").read_text() == "all of it"


def test_resume_refuses_other_images(tmp_path):
    write_npz(tmp_path, 8, 8)
    Session(Settings(data=str(tmp_path / "images.npz"), clean_per_class=2)).save(tmp_path / "run.pt")
    x, y = pictures(60, 8, 8)
    np.savez(tmp_path / "images.npz", x_train=255 - x, y_train=y, x_test=x, y_test=y)
    with pytest.raises(DemoError, match="--resume needs the images"):
        Session.resume(tmp_path / "run.pt")


# The command

QUICK = ["demo", "--quick", "--batch-size", "20", "--steps", "4"]


def test_quick_run_writes_pictures_and_result(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")  # names stand on one line
    assert main([*QUICK, "--out", str(tmp_path)]) == 0
    for name in ("weights.png", "accuracy.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["command"] == "python -m fastrw demo --seeds 1 --steps 4 --batch-size 20"
    assert result["versions"]["torch"] == torch.__version__
    rows = {row["method"]: row for row in result["rows"]}
    assert [*METHODS, "double backward"] == [*rows] and len(rows["fastrw"]["auc"]) == 1
    assert rows["plain"]["step_to_plain"] == 1 and rows["double backward"]["step_to_algorithm_1"] == 1
    said = capsys.readouterr()
    assert all(name in said.out for name in METHODS) and "Traceback" not in said.err


@pytest.mark.quick
def test_json_prints_the_result_alone(tmp_path, capsys):
    assert main([*QUICK, "--json", "--flip", "0", "--out", str(tmp_path)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "result.json").read_text())
    assert printed["rows"][0]["auc"] == []


def test_ctrl_c_saves_and_resume_ends_as_if_never_stopped(tmp_path, capsys, monkeypatch):
    step, taken = train.Run.step, []

    def step_and_stop(self):
        step(self)
        taken.append(self.name)
        if len(taken) == 6:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(train.Run, "step", step_and_stop)
    monkeypatch.delenv("FORCE_COLOR", raising=False)  # the command is read from what is said
    assert main([*QUICK, "--out", str(tmp_path)]) == 130
    said = capsys.readouterr().err
    assert len(taken) == 6 and not (tmp_path / "result.json").exists()
    file = tmp_path / "interrupted.pt"
    assert f"python -m fastrw demo --resume {file} --out {tmp_path}" in said
    monkeypatch.undo()
    assert main(["demo", "--resume", str(file), "--out", str(tmp_path)]) == 0
    assert main([*QUICK, "--out", str(tmp_path / "whole")]) == 0
    results = [json.loads((place / "result.json").read_text()) for place in (tmp_path, tmp_path / "whole")]
    assert visited(results[0]) == visited(results[1]) and results[0]["command"] == results[1]["command"]


def visited(result: dict) -> list:
    """Which runs a result contains, and the steps after which each was evaluated."""
    return [[curve["method"], curve["seed"], [step for step, _ in curve["curve"]]] for curve in result["curves"]]


def _other_keys(folder):
    np.savez(folder / "images.npz", images=np.zeros((4, 8, 8)), labels=np.zeros(4, int))


def _one_class(folder):
    np.savez(folder / "images.npz", **{f"{k}_{s}": np.zeros((40, 8, 8)[: 3 if k == "x" else 1], int)
                                       for k in "xy" for s in ("train", "test")})  # fmt: skip


def _few_of_a_class(folder):
    (x, y), (x_test, y_test) = pictures(60, 8, 8), pictures(20, 8, 8)
    np.savez(folder / "images.npz", x_train=x, y_train=y.clip(max=8) + (y == 9) * (np.arange(60) < 10), x_test=x_test,
             y_test=y_test)  # fmt: skip


def _not_jpeg(folder):
    arrays = {"jpeg": np.arange(9, dtype=np.uint8), "off": np.array([0, 4, 9]), "y": np.arange(2)}
    np.savez(folder / "images.npz", **{f"{key}_{s}": a for key, a in arrays.items() for s in ("train", "test")})


def _cut_idx(folder):
    write_idx(folder)
    file = folder / "t10k-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-5])


@pytest.mark.parametrize(
    ("write", "options", "rule"),
    [
        (None, ["--data", "no/such/place"], "--data must be a file or a folder that exists, got no/such/place"),
        (None, ["--data", "{}"], "--data must hold an npz file, IDX files"),
        (_other_keys, ["--data", "{}"], "must hold x_train, y_train, x_test and y_test .* got images, labels"),
        (_one_class, ["--data", "{}"], "labels must be of at least 2 classes, got 1"),
        (_few_of_a_class, ["--data", "{}"], "more training examples than --clean-per-class = 10, got 1 of class 9"),
        (_not_jpeg, ["--data", "{}"], "must hold JPEG images of one size"),
        (_cut_idx, ["--data", "{}"], "must be a whole IDX file of bytes"),
        (lambda folder: (folder / "a.npz").write_bytes(b"no"), ["--data", "{}"], "must be a readable npz file"),
        (
            lambda folder: [write_idx(folder / n / "raw") for n in "AB"],
            ["--data", "{}"],
            "must hold one set of IDX files",
        ),
        (None, ["--flip", "1"], r"--flip must be in \[0, 1\), got 1.0"),
        (None, ["--flip", "-0.1"], r"--flip must be in \[0, 1\), got -0.1"),
        (None, ["--flip", "nan"], r"--flip must be in \[0, 1\), got nan"),
        (None, ["--imbalance", "0.5"], "--imbalance must be finite and at least 1, got 0.5"),
        (None, ["--steps", "0"], "--steps must be at least 1, got 0"),
        (None, ["--seed", "-1"], "--seed must be at least 0, got -1"),
        (None, ["--clean-per-class", "500"], "more training examples than --clean-per-class = 500, got"),
        (None, ["--resume", "no/such/file"], "--resume must name a file that exists, got no/such/file"),
        (write_idx, ["--resume", "{}/t10k-labels-idx1-ubyte"], "--resume must name a file that --save wrote"),
    ],
)
def test_bad_arguments_are_told_in_words(tmp_path, capsys, write, options, rule):
    (place := tmp_path / "data").mkdir()
    if write:
        write(place)
    options = [option.format(place) for option in options]
    assert main(["demo", "--out", str(tmp_path / "out"), *options]) == 2
    said = capsys.readouterr()
    assert said.out == "" and "Traceback" not in said.err
    with pytest.raises(DemoError, match=f"fastrw.demo: .*{rule}"):
        raise DemoError(said.err)


def test_resume_refuses_other_settings(digits, tmp_path, capsys):
    Session(SHORT, digits).save(tmp_path / "run.pt")
    assert main(["demo", "--resume", str(tmp_path / "run.pt"), "--flip", "0.2", "--out", str(tmp_path)]) == 2
    assert "--resume takes its settings from the file, got flip = 0.2 (saved: 0.4)" in capsys.readouterr().err


def test_help_names_every_option_and_column(capsys):
    parser = ArgumentParser()
    add_arguments(parser)
    text = parser.format_help()
    for word in ("--data", "--save", "--resume", "examples:", "the columns:", "AUC", "clean set", "step ÷ Alg. 1"):
        assert word in text
