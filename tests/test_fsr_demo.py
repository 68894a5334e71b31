"""The demo without clean examples: its runs, that an interrupted one goes on as if never stopped, what it says."""

import json
import os
import signal
from itertools import islice

import pytest
import torch

from fastrw.cli import main
from fastrw.demo import data, noise, session
from fastrw.demo.session import Session
from fastrw.demo.settings import FSR_DEFAULTS, DemoError, Settings
from fastrw.demo.train import FSR_METHODS, FSRRun
from tests.resumed import in_float64, same_state
from tests.test_demo import learned, visited
from tests.tiers import some

SHORT = Settings(**FSR_DEFAULTS | {"steps": 5, "seeds": 1, "batch_size": 450}, fsr=True)  # 2 steps an epoch
QUICK = ["demo", "--fsr", "--quick", "--batch-size", "450", "--steps", "7"]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def digits():
    return data.load(None)


def test_the_task_has_no_clean_set(digits):
    task = noise.make_task(digits, SHORT, 1)
    assert len(task.y) == len(task.true) == 1347 and len(task.x_clean) == len(task.y_clean) == 0
    assert int((task.true != task.y).sum()) == round(0.4 * 1347)


def test_an_epoch_visits_every_example_at_most_once(digits):
    run = FSRRun("FSR", noise.make_task(digits, SHORT, 1), SHORT, 1)
    for _ in range(2):
        visited = torch.cat([run.learn()[0] for _ in range(2)])
        assert len(visited.unique()) == len(visited) == 900
    assert [epoch[0] for epoch in run.learner.epochs] == [0, 2, 4]


@pytest.fixture(scope="module")
def whole(digits):
    with in_float64(session, noise):
        found = Session(SHORT, digits)
        return learned(found), found.results


@pytest.mark.parametrize("taken", some([8, 13, 22], 2))
def test_resume_goes_on_as_if_never_stopped(whole, digits, tmp_path, taken):
    ends, results = whole
    with in_float64(session, noise):
        first = Session(SHORT, digits)
        for _ in islice(first.advance(), taken):
            pass
        first.save(tmp_path / "run.pt")
        torch.rand(3)  # the demo's draws are its own
        resumed = Session.resume(tmp_path / "run.pt")
        same_state(learned(resumed), ends[taken // 5 :])
        same_state(resumed.results, results)


def test_a_run_leaves_torchs_generator_alone(digits):
    before = torch.get_rng_state()
    run = FSRRun("FSR, all of it", noise.make_task(digits, SHORT, 1), SHORT, 1)
    while not run.done:
        run.step()
    assert torch.equal(torch.get_rng_state(), before)


def test_quick_run_writes_pictures_and_result(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")  # names stand on one line
    assert main([*QUICK, "--out", str(tmp_path)]) == 0
    for name in ("dictionary.png", "accuracy.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["command"] == "python -m fastrw demo --fsr --seeds 1 --steps 7 --batch-size 450"
    rows = {row["method"]: row for row in result["rows"]}
    assert [*rows] == [*FSR_METHODS] and rows["plain"]["step_to_plain"] == 1
    assert rows["plain"]["purity"] == [] and len(rows["FSR"]["purity"]) == len(rows["FSR"]["zero_share"]) == 1
    said = capsys.readouterr()
    assert all(name in said.out for name in FSR_METHODS) and "Traceback" not in said.err


@pytest.mark.quick
def test_a_run_shorter_than_the_warm_up_is_shown_too(tmp_path, capsys):
    assert main([*QUICK, "--steps", "1", "--flip", "0", "--json", "--out", str(tmp_path)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["rows"][2]["zero_share"] == [] and printed["rows"][2]["purity"] == [1.0]


def test_ctrl_c_saves_and_resume_ends_as_if_never_stopped(tmp_path, capsys, monkeypatch):
    """Takes about 10 s: the demo runs three times, stopped, resumed and whole."""
    step, taken = FSRRun.step, []

    def step_and_stop(self):
        step(self)
        taken.append(self.name)
        if len(taken) == 19:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(FSRRun, "step", step_and_stop)
    assert main([*QUICK, "--out", str(tmp_path)]) == 130
    monkeypatch.undo()
    assert main(["demo", "--resume", str(tmp_path / "interrupted.pt"), "--out", str(tmp_path)]) == 0
    assert main([*QUICK, "--out", str(tmp_path / "whole")]) == 0
    results = [json.loads((place / "result.json").read_text()) for place in (tmp_path, tmp_path / "whole")]
    assert visited(results[0]) == visited(results[1]) and results[0]["command"] == results[1]["command"]
    assert "Traceback" not in capsys.readouterr().err


def test_a_clean_set_is_refused(tmp_path, capsys):
    assert main([*QUICK, "--clean-per-class", "3", "--out", str(tmp_path)]) == 2
    with pytest.raises(DemoError, match=r"fastrw.demo: --fsr has no clean set, got --clean-per-class 3"):
        raise DemoError(capsys.readouterr().err)


def test_resume_refuses_the_other_demo(digits, tmp_path, capsys):
    Session(Settings(steps=4, seeds=1), digits).save(tmp_path / "run.pt")
    assert main(["demo", "--fsr", "--resume", str(tmp_path / "run.pt"), "--out", str(tmp_path)]) == 2
    assert "--resume takes its settings from the file, got fsr = True (saved: False)" in capsys.readouterr().err
