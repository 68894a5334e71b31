"""bench.gpu without a GPU: every stage rehearsed, one made to hang, one to fail; when killed it has lost nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.gpu import command, picture, pool, report, summary
from bench.gpu.stage import ROWS, Stage, read, write
from bench.gpu.variants import FORMS
from tests.tiers import some

ROOT = Path(__file__).parents[1]


def start(out, *words):
    begun = [sys.executable, "-m", "bench.gpu", "--device", "cpu", "--tiny", "--out", str(out), *words]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen(begun, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def of(rows, stage, kind=None):
    return [row for row in rows if row["stage"] == stage and kind in (None, row["kind"])]


def test_every_stage_is_rehearsed(tmp_path):
    """Takes over a minute: each of eight stages is a process that imports torch, and steps are compiled. One is made
    to hang, one to fail."""
    process = start(tmp_path, "--minutes", "9", "--overrun", "machine", "--crash", "sanitizer")
    printed, _ = process.communicate(timeout=600)
    rows = read(tmp_path)
    status = {name: of(rows, name, "end")[0]["status"] for name in command.STAGES}
    hung, failed = status.pop("machine"), status.pop("sanitizer")
    assert hung.startswith("stopped at its limit of ") and failed == "failed with exit status 1"
    assert set(status.values()) == {"finished"}
    assert process.returncode == 1
    assert len(of(rows, "machine")) <= 2, "a row, and its end"
    assert "told to crash after its first row" in of(rows, "sanitizer", "failure")[0]["traceback"]
    others = [row for row in rows if row["kind"] == "failure" and row["stage"] != "sanitizer"]
    assert not others, others
    assert printed.strip() == (tmp_path / summary.NAME).read_text().strip()
    assert "no summary" not in printed and len(printed) < 12_000
    assert all(f"## {name.replace('_', ' ')}" in printed for name in command.STAGES)
    assert len(list(tmp_path.iterdir())) <= 6 and (tmp_path / picture.NAME).exists()


# the first stage has ended; so many rows of this one are there
POINTS = [("self_test", 1, signal.SIGKILL), ("steps", 3, signal.SIGKILL), ("self_test", 4, signal.SIGTERM)]


@pytest.mark.parametrize(("stage", "count", "by"), some(POINTS, 2), ids=str)
def test_a_run_that_is_killed_has_left_everything(tmp_path, stage, count, by):
    """Takes over 10 s: processes that import torch."""
    hangs = ["--overrun", stage] if count == 1 else []  # such a stage would not end by itself
    process = start(tmp_path, "--only", "machine", stage, "rest", *hangs)
    until = time.time() + 300
    while len(of(before := read(tmp_path), stage)) < count:
        assert process.poll() is None and time.time() < until, process.communicate()
        time.sleep(0.05)
    (group,) = groups(tmp_path)
    assert len(members(group)) > 1, "a stage, and the processes that it has started"
    process.send_signal(by)
    process.communicate(timeout=60)
    deadline = time.time() + 30
    while members(group):
        assert time.time() < deadline, members(group)
        time.sleep(0.05)
    rows = read(tmp_path)
    assert rows[: len(before)] == before
    told = (tmp_path / summary.NAME).read_text()
    assert of(rows, "machine", "end") and "| machine | finished |" in told
    if by == signal.SIGTERM:
        assert of(rows, stage, "end")[0]["status"] == "interrupted" and f"| {stage} | interrupted |" in told


def groups(out):
    """The process groups of the stages of that run."""
    found = [place for place in Path("/proc").glob("[0-9]*/cmdline") if str(out).encode() in seen(place)]
    return {int(seen(place.with_name("stat")).split()[4]) for place in found if b"bench.gpu.stage" in seen(place)}


def members(group):
    """Its processes that go on."""
    stats = (seen(place).rpartition(b")")[2].split() for place in Path("/proc").glob("[0-9]*/stat"))
    return [stat for stat in stats if stat and int(stat[2]) == group and stat[0] != b"Z"]


def seen(place):
    try:
        return place.read_bytes()
    except OSError:  # it has ended
        return b""


def test_a_row_is_on_the_disk_before_anything_else_happens(tmp_path, monkeypatch):
    done = []
    put, sync = os.write, os.fsync
    monkeypatch.setattr(os, "write", lambda file, line: (done.append("write"), put(file, line))[1])
    monkeypatch.setattr(os, "fsync", lambda file: (done.append("fsync"), sync(file))[1])
    write(tmp_path, {"stage": "steps", "long": "x" * 100_000})
    assert done == ["write", "fsync"], "a row is one write: those of several processes do not mix"
    assert read(tmp_path)[0]["long"] == "x" * 100_000


def test_a_line_that_was_cut_off_is_no_row(tmp_path):
    write(tmp_path, {"stage": "steps", "kind": "round"})
    with open(tmp_path / ROWS, "a") as file:
        file.write('{"stage": "st')
    assert read(tmp_path) == [{"stage": "steps", "kind": "round"}]


def work(stage, item):
    if item == "hangs":
        time.sleep(600)
    if item == "dies":
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == "fails":
        raise ArithmeticError("one\ntwo")
    if item == "loses the GPU":
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    stage.row("done", item=item, process=os.getpid())


def test_an_item_that_fails_hangs_or_dies_costs_itself_alone(tmp_path):
    stage = Stage("self_test", tmp_path, "cpu", True, time.time(), time.time() + 400)
    items = ["a", "fails", "b", "hangs", "c", "loses the GPU", "d", "dies", "e"]  # who hangs early may do so for less
    pool.over(stage, work, [(item,) for item in items], 1, shares=0.05)
    rows = read(tmp_path)
    assert [row["item"] for row in rows if row["kind"] == "done"] == ["a", "b", "c", "d", "e"]
    a, b, c, d, e = (row["process"] for row in rows if row["kind"] == "done")
    assert a == b and len({b, c, d, e}) == 4, "a process that is lost is replaced, and no other"
    told = {row["item"][0]: row for row in rows if row["kind"] == "failure"}
    assert told["fails"]["error"] == "ArithmeticError: one" and "ArithmeticError" in told["fails"]["traceback"]
    assert told["dies"]["error"] == "killed by SIGSEGV"
    assert told["loses the GPU"]["error"].startswith("RuntimeError: CUDA error")
    assert told["hangs"]["error"].startswith("stopped at its limit of ")


def test_items_without_time_are_named(tmp_path):
    stage = Stage("self_test", tmp_path, "cpu", True, time.time(), time.time() + 0.5)
    pool.over(stage, work, [("a",), ("b",)], 1)
    (row,) = read(tmp_path)
    assert row["kind"] == "left out" and row["items"] == [["a"], ["b"]]
    assert any("2 left out, from a on" in line for line in summary.section("self_test", [row]))


def test_the_stages_share_the_time_that_is_left():
    shares, left = [], 450.0
    for i in range(len(command.STAGES)):
        shares.append(command.share(list(command.STAGES[i:]), left))
        left -= shares[-1]
    assert abs(left) < 1e-6 and all(share > 5 for share in shares)
    assert command.share(["steps"], 100) == 100 and command.share(["steps"], -5) == 0


def test_what_a_stage_leaves_is_told_even_where_its_rows_are_strange(tmp_path):
    write(tmp_path, {"stage": "run", "kind": "begin", "stages": ["steps", "tests"]})
    write(tmp_path, {"stage": "steps", "kind": "prepared"})
    told = summary.text(read(tmp_path))
    assert "no summary: " in told and "| tests | not begun |" in told


def test_a_picture_that_cannot_be_drawn_stops_nothing(tmp_path):
    assert picture.draw(tmp_path) is None
    write(tmp_path, {"stage": "steps", "kind": "prepared", "model": "transformer"})
    assert picture.draw(tmp_path) == "KeyError: 'setting'"
    assert not (tmp_path / picture.NAME).exists()


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["--device", "cpu"], "--device cpu is a rehearsal, which needs --tiny"),
        (["--minutes", "0"], "must be above 0, got 0"),
        (["--only", "nothing"], "invalid choice: 'nothing'"),
    ],
)
def test_bad_options_say_the_rule(words, rule, capsys, tmp_path):
    with pytest.raises(SystemExit):
        command.parse(["--out", str(tmp_path), *words])
    assert rule in " ".join(capsys.readouterr().err.split())


def test_results_are_not_written_over(tmp_path, capsys):
    write(tmp_path, {})
    with pytest.raises(SystemExit):
        command.parse(["--out", str(tmp_path)])
    assert "--out must be a folder without results, got" in " ".join(capsys.readouterr().err.split())


def test_the_row_of_a_test_says_what_was_wrong():
    said = "def test():\n>  assert x == 1\nE  AssertionError: no\nE    got 2\n\ntests/x.py:3: AssertionError"
    assert report.last_error(said) == "got 2"
    assert report.last_error("worker 'gw0' crashed while running 'x'") == "worker 'gw0' crashed while running 'x'"


def test_help_teaches(capsys):
    with pytest.raises(SystemExit):
        command.parse(["--help"])
    told = capsys.readouterr().out
    assert all(name in told for name in command.STAGES) and "rehears" in told


def test_a_row_holds_whatever_it_is_given(tmp_path):
    write(tmp_path, {"stage": "machine", "path": Path("x")})
    assert json.loads((tmp_path / ROWS).read_text())["path"] == "x"


def test_the_extension_is_put_in_place_and_the_run_goes_on_without_it(tmp_path, monkeypatch, capsys):
    import torch

    from bench.gpu import __main__ as first

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert first.put_in_place() is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(first, "CARRY", tmp_path / "carry.py")
    first.CARRY.write_text("import sys; print('building'); sys.exit('no compiler')")
    placed = first.put_in_place()
    assert placed["said"] == "building\nno compiler" and placed["status"] == 1
    options = command.parse(["--device", "cpu", "--tiny", "--out", str(tmp_path)])
    command.open_run(options, time.time(), placed)
    assert read(tmp_path)[0]["extension"] == placed
    assert "no compiler (status 1)" in (tmp_path / summary.NAME).read_text()


def test_what_stages_do_on_a_gpu_alone_runs_on_one_that_is_not_here(tmp_path):
    """Takes over 10 s: a process of its own, with a mocked driver."""
    pytest.importorskip("triton")
    begun = [sys.executable, "-m", "tests.gpu_stages", str(tmp_path)]
    run = subprocess.run(begun, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    rows = read(tmp_path)
    assert not [row for row in rows if row["kind"] == "failure"]
    assert of(rows, "machine", "machine")[0]["device"]["multi_processor_count"] == 132
    assert all(row["passed"] for row in of(rows, "self_test", "self-test"))
    prepared = {(row["model"], row["variant"]) for row in of(rows, "steps", "prepared")}
    refused = {(row["model"], row["variant"]) for row in of(rows, "steps", "refused")}
    assert not refused
    assert prepared == {(name, form) for name in ("resnet32_bn", "gpt2_small") for form in FORMS}
    timed = {row["variant"] for row in of(rows, "op_times", "time")}
    assert {"cuda", "triton", "reference"} <= timed
    for name in ("machine", "self_test", "steps", "op_times"):
        assert not any("no summary" in line for line in summary.section(name, of(rows, name)))
