"""The papers' experiments: the report from kept results, and what a user's mistakes are answered with."""

import json
import re
import signal

import pytest

from bench.papers import command, html, markdown
from bench.papers.command import main
from bench.papers.experiments import EXPERIMENTS
from bench.papers.experiments.experiment import Finding, Table
from bench.papers.results import Results, Spread


@pytest.fixture(scope="module")
def document():
    """Results of an experiment as a run writes them, made up."""
    header = {"versions": {"torch": "2.13.0"}, "machine": {"cpu": "some CPU", "threads": 1}, "command": "python -m x"}
    trials = []
    for seed in range(2):
        for ratio in (0.5, 0.9):
            for method, accuracy in (("plain", 0.2), ("l2r", 0.5 + 0.1 * seed)):
                settings = {"kind": "training", "data": "cifar10", "seed": seed, "ratio": ratio, "imbalance": "bias"}
                settings |= {} if method == "plain" else {"method": method}
                trials.append({"trial": settings, "images": "some images", "seconds": 1.0,
                               "result": {"accuracy": accuracy, "fine_tuned": {"accuracy": 0.9}}})  # fmt: skip
    return {"experiment": "bias", "scale": "cpu", **header, "trials": trials}


def test_results_are_asked_by_settings(document):
    results = Results(document)
    assert results.spread("accuracy", method="l2r", ratio=0.9).values == (0.5, 0.6)
    assert results.spread("fine_tuned.accuracy", method="plain").mean == pytest.approx(0.9)
    assert not results.spread("no.such", method="plain") and not results.spread("accuracy", method="fsr")
    assert results.values("ratio", method="plain") == [0.5, 0.9]
    assert str(Spread((0.5, 0.6))) == "55.0 ± 7.1" and str(Spread((0.5,))) == "50.0" and str(Spread(())) == "-"


@pytest.mark.quick
def test_report_is_whole_and_self_contained(tmp_path, document):
    (tmp_path / "bias.json").write_text(json.dumps(document))
    files = ["--markdown", str(tmp_path / "doc" / "R.md"), "--html", str(tmp_path / "R.html")]
    assert main(["report", "--results", str(tmp_path), *files]) == 0
    page, text = (tmp_path / "R.html").read_text(), (tmp_path / "doc" / "R.md").read_text()
    assert (tmp_path / "doc" / "plots" / "bias.png").read_bytes()[:4] == b"\x89PNG"
    assert "55.0 ± 7.1" in text and "holds" in text and "CIFAR-10 (JPEG re-encoded)" in text
    assert re.findall(r'src="(?!data:)', page) == [] and "<script" not in page and "http" not in page
    assert page.count("<table") == page.count("</table>") and 'name="viewport"' in page


def test_texts_are_escaped():
    assert "a &lt; b &amp; c" in html.render(markdown.item(Finding("a < b & c", "x | y", False)))
    assert "&lt;caption&gt;" in html.render(markdown.block(Table("<caption>", ["|"], [["a|b"]])))
    assert markdown.table(["|"], [["a|b"]]) == "| \\| |\n| --- |\n| a\\|b |"


def test_every_experiment_is_told():
    assert all(experiment.claims and experiment.blocks for experiment in EXPERIMENTS.values())


@pytest.mark.parametrize("words, said", [
    (["run", "no-such"], "NAME must be an experiment of l2r-imbalance"),
    (["list", "fsr-*x"], "NAME must be an experiment of l2r-imbalance"),
    (["run", "bias", "--threads", "0"], "--threads must be at least 1, got 0"),
    (["run", "bias", "--seeds", "0"], "--seeds must be at least 1, got 0"),
    (["run", "bias", "--data", "nowhere"], "--data must be a file or a folder that exists, got nowhere"),
    (["report", "--results", "nowhere"], "--results must be a folder of results, got none in nowhere"),
])  # fmt: skip
def test_mistakes_are_told(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert said in capsys.readouterr().err.replace("\n", " ")


def test_broken_results_are_told(tmp_path, capsys):
    (tmp_path / "bias.json").write_text('{"experiment": "bias"}')
    assert main(["report", "--results", str(tmp_path)]) == 2
    assert "must be what a run wrote" in capsys.readouterr().err


@pytest.mark.quick
def test_list_for_people_and_for_programs(capsys):
    assert main(["list", "l2r-*"]) == 0
    assert "l2r-imbalance" in capsys.readouterr().out
    assert main(["list", "l2r-imbalance", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["l2r-imbalance"]) == 198


@pytest.mark.quick
def test_ctrl_c_saves_and_the_same_command_goes_on(tmp_path, monkeypatch, capsys):
    words = ["run", "lemma", "--quick", "--out", str(tmp_path), "--threads", "1", "--device", "cpu"]
    real, calls = command.Store.run, []

    def interrupted(self, trial, images, **options):
        on_step = options.pop("on_step")

        def press(done, total):
            on_step(done, total)
            calls.append(done)
            if len(calls) == 8:  # in the middle of the second trial
                signal.raise_signal(signal.SIGINT)

        return real(self, trial, images, on_step=press, **options)

    monkeypatch.setattr(command.Store, "run", interrupted)
    assert main(words) == 130
    assert "goes on from here" in capsys.readouterr().out
    assert sorted(file.suffix for file in (tmp_path / "trials").iterdir()) == [".json", ".pt"]
    assert main(words) == 0 and (tmp_path / "lemma.json").exists()
    assert {file.suffix for file in (tmp_path / "trials").iterdir()} == {".json"}
