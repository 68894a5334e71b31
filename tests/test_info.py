"""python -m fastrw: info tells what runs here, as tables and as JSON; a missing extra is named in one line."""

import json
import sys
from types import SimpleNamespace

import pytest

from fastrw import cli
from fastrw.ops import extension


@pytest.mark.quick
def test_info_tells_everything_as_json(capsys):
    assert cli.main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["devices"][0]["device"] == "cpu"
    assert facts["extension"]["loaded"] == (extension.reason is None)
    assert facts["extension"]["build_command"] == extension.BUILD_COMMAND
    rows = {(row["op"], row["backend"]): row for row in facts["backends"]}
    assert rows["gram_dot", "reference"]["serves"]
    for row in rows.values():
        assert (row["reason"] is None) == row["serves"]


def test_info_shows_every_reason_as_a_table(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    assert cli.main(["info"]) == 0
    shown = capsys.readouterr().out
    cli.main(["info", "--json"])
    facts = json.loads(capsys.readouterr().out)
    for row in facts["backends"]:
        assert row["backend"] in shown and (row["reason"] or "") in shown
    assert facts["torch"] in shown


def test_info_needs_no_extra(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich", None)
    assert cli.main(["info"]) == 0
    assert json.loads(capsys.readouterr().out)["devices"]


def stub_info(monkeypatch, missing: str) -> None:
    def run(args):
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    monkeypatch.setitem(sys.modules, "fastrw.cli.info", SimpleNamespace(add_arguments=lambda parser: None, run=run))


def test_a_missing_extra_is_named_in_one_line(capsys, monkeypatch):
    stub_info(monkeypatch, "rich.console")
    assert cli.main(["info"]) == 2
    assert capsys.readouterr().err == 'fastrw info: needs rich.console: pip install "fastrw[cli]"\n'


def test_another_missing_module_is_no_extra(monkeypatch):
    stub_info(monkeypatch, "fastrw.nowhere")
    with pytest.raises(ModuleNotFoundError, match="nowhere"):
        cli.main(["info"])


@pytest.mark.parametrize("argv", [["--help"], ["info", "--help"]])
def test_help_teaches_by_examples(argv, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(argv)
    assert left.value.code == 0
    assert "examples:\n  python -m fastrw info" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [[], ["nonsense"], ["info", "--nonsense"]])
def test_a_wrong_command_line_leaves_with_two(argv, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(argv)
    assert left.value.code == 2
    assert "usage: python -m fastrw" in capsys.readouterr().err
