"""How steps scale and what their Python costs: every figure is there, or its reason; slopes are slopes."""

import functools
import json

import pytest
import torch

import bench
from bench import overhead, roof, scaling, timing
from bench.goals import OVERHEAD


@pytest.fixture(autouse=True)
def quick_and_alone(monkeypatch):
    monkeypatch.setattr(roof, "measure", functools.partial(roof.measure, size=256, rounds=1))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("family", scaling.FAMILIES)
def test_a_family_grows_along_every_axis(family):
    kind = scaling.FAMILIES[family]
    for axis, values in kind.sweeps.items():
        assert list(values) == sorted(set(values)) and len(values) > 1
        small, large = (kind.case(**{axis: value}).make() for value in values[:2])
        grown = [len(large[1][1]) > len(small[1][1]), len(large[2][1]) > len(small[2][1])]
        sizes = [sum(p.numel() for p in model.parameters()) for model, *_ in (small, large)]
        assert [*grown, sizes[1] > sizes[0]] == [axis == "n", axis == "m", axis in ("depth", "width")]
        assert large[0](large[1][0]).shape == (len(large[1][1]), kind.classes)


@pytest.mark.quick
def test_scaling_gives_every_point_its_figures(tmp_path):
    path, picture = tmp_path / "scaling.json", tmp_path / "scaling.png"
    words = ["--family", "mlp", "--points", "1", "--rounds", "1", "--threads", "1", "--json", str(path)]
    assert bench.main(["scaling", *words, "--plot", str(picture)]) == 0
    result = json.loads(path.read_text())
    assert result["complete"] and picture.read_bytes().startswith(b"\x89PNG")
    own = scaling.FAMILIES["mlp"].own
    assert len(result["rows"]) == len(scaling.AXES) * (1 + len(scaling.VARIANTS))
    for row in result["rows"]:
        assert row["why"] is None and row["ratio"] > 0 and row["peak_bytes"] > 0
        assert row[row["axis"]] == row["value"] == scaling.FAMILIES["mlp"].sweeps[row["axis"]][0]
        assert {key: row[key] for key in own if key != row["axis"]} == {
            key: value for key, value in own.items() if key != row["axis"]
        }


@pytest.mark.quick
def test_overhead_gives_every_line_its_slopes_and_leaves_clock_and_threads_as_they_were(tmp_path, monkeypatch):
    path, slopes, kept = tmp_path / "overhead.json", overhead.slopes, []

    def watched(*args):
        before = timing.clock, torch.get_num_threads()
        found = slopes(*args)
        kept.append(before == (timing.clock, torch.get_num_threads()))
        return found

    monkeypatch.setattr(overhead, "slopes", watched)
    assert bench.main(["overhead", "--rounds", "2", "--models", "lenet", "--json", str(path)]) == 0
    result = json.loads(path.read_text())
    assert [row["line"] for row in result["rows"]] == list(overhead.LINES)
    assert set(OVERHEAD) <= set(overhead.LINES)
    rows = {row["line"]: row for row in result["rows"]}
    assert rows["walk and key"]["goals"] == {"operation": 3.0, "functional": 3.0} and rows["forward"]["goals"] == {}
    assert rows["step, params=last"]["use"] is None and rows["step, params=last"]["unselected"] is not None
    assert rows["products"]["operation"] is None
    least = result["least"]
    use = (least["plain"]["uses"] - least["plain"]["none"]) / overhead.HUNDRED
    assert rows["plain step"]["use"] == pytest.approx(use)
    process, lenet = result["calibration"]
    assert process["model"] == "of the process"
    assert lenet["first"] > 0 and lenet["ratio"] == pytest.approx(lenet["first"] / lenet["later"])
    assert kept == [True]


@pytest.mark.parametrize(
    "words",
    [
        ["scaling", "--points", "0"],
        ["scaling", "--family", "gpt"],
        ["scaling", "--axes", "height"],
        ["overhead", "--rounds", "0"],
        ["overhead", "--models", "alexnet"],
    ],
)
def test_bad_words_are_refused(words, capsys):
    with pytest.raises(SystemExit) as ended:
        bench.main(words)
    assert ended.value.code == 2 and words[0] in capsys.readouterr().err


@pytest.mark.parametrize("word", ["end_to_end", "overhead", "scaling"])
def test_help_shows_how_to_begin(word, capsys):
    with pytest.raises(SystemExit) as ended:
        bench.main([word, "--help"])
    said = capsys.readouterr().out
    assert ended.value.code == 0 and f"python -m bench.{word}" in said and "--json" in said
