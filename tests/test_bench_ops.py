"""The benchmarks of the ops: work counted right, no number for what is wrong, results that can be read and compared."""

import copy
import functools
import json
import math
import subprocess
import sys
import time

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

import bench
from bench import command, compare, ops, record, roof, timing
from bench.cases import CASES, Draw, is_large
from bench.cases.rows import gram_dot
from bench.cases.uses import USES
from fastrw.ops import backends, reference
from fastrw.ops.self_test import as_tuple

SMALL = [(op, name) for op, cases in CASES.items() for name in cases if not is_large(name)]
PRODUCTS = ("gram_dot", "grouped_gram_dot", "joint_gram_dot", "project_dot", "weighted_outer", "conv_dot", "conv_outer")
HALF = (
    "weighted_outer",
    "conv_outer",
    "combine",
    "grouped_combine",
    "grouped_weighted_outer",
)  # their cases read only what has weight


@pytest.fixture(autouse=True)
def quick_and_alone(monkeypatch):
    """A small roof, one thread; the number of threads as it was before the test."""
    monkeypatch.setattr(roof, "measure", functools.partial(roof.measure, size=256, rounds=1))
    monkeypatch.setattr(roof, "CACHED", (2**16,))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tiny(monkeypatch):
    """One op with one case of no size to speak of."""
    monkeypatch.setitem(CASES, "gram_dot", {"tiny": gram_dot(4, 2, 3, 5)})
    return ["--op", "gram_dot", "--rounds", "3", "--threads", "1", "--compile", "none"]


def test_every_op_has_cases():
    ours = [name for name, value in vars(reference).items() if getattr(value, "__module__", "") == reference.__name__]
    assert [*CASES] == [*(name for name in ours if not name.startswith("_")), *USES]
    assert set(backends.names()) <= set(CASES)


def stored(x) -> int:
    """Bytes in memory: an expanded tensor counts once."""
    if isinstance(x, (list, tuple)):
        return sum(map(stored, x))
    return x.untyped_storage().nbytes() if isinstance(x, Tensor) else 0


def read(op, args) -> int:
    """Bytes of the arguments that matter."""
    if op == "embedding_dot":
        idx, g, V, _ = args
        return stored([idx, g]) + min(len(idx), len(V)) * V.shape[1] * V.element_size()
    weights = [x for x in args if isinstance(x, Tensor) and x.dim() == 1]
    if op not in HALF or not weights:
        return stored(args)
    assert (weights[0] > 0).sum() == math.ceil(len(weights[0]) / 2)
    return stored(args) - sum(stored(x) for x in tree_leaves(args) if isinstance(x, Tensor) and x.dim() > 1) // 2


@pytest.mark.parametrize(("op", "name"), SMALL)
@torch.no_grad()
def test_work_is_counted_right_and_eager_forms_are_exact(op, name):
    case = CASES[op][name]
    args = case.make(Draw(torch.float32))
    with FlopCounterMode(display=False) as counter:
        outputs = as_tuple((case.spec or getattr(reference, op))(*args))
    nbytes = case.bytes(torch.float32)
    assert nbytes == read(op, args) + sum(x.numel() * x.element_size() for x in outputs)
    assert nbytes / 2 <= case.bytes(torch.bfloat16) <= nbytes
    if op in PRODUCTS and "groups" not in case.sizes:  # which torch counts as if they were one
        products = counter.get_total_flops()  # the reference also leaves out examples of weight 0
        assert products <= 1.03 * case.flops and case.flops <= 1.35 * products
    if case.flops > 2e8:
        return  # the same forms as in smaller cases
    judge = ops.Judge(op, case, args)
    for form, run in case.eager.items():
        assert judge(form, functools.partial(run, *args))["why"] is None


@pytest.mark.quick
def test_every_variant_gets_a_number_or_a_reason(tiny, tmp_path, capsys):
    assert bench.main([*tiny, "--json", str(tmp_path / "new" / "result.json")]) == 0
    result = json.loads((tmp_path / "new" / "result.json").read_text())
    rows = {row["way"]: row for row in result["rows"]}
    assert result["complete"] and result["machine"]["threads"] == 1 and set(result["roof"]["caches"]) == {"65536"}
    assert list(rows) == [*ops.BACKENDS, "eager: two products", "eager: through V"]
    for row in rows.values():
        measured = [row[name] is not None for name in ("seconds", "to_eager", "bandwidth", "rate", "of_roof")]
        assert all(measured) if row["why"] is None else not any(measured)
    assert min(rows[name]["to_eager"]["median"] for name in rows if name.startswith("eager")) == 1
    assert rows["reference"]["seconds"]["rounds"] == 3 and rows["reference"]["error"] < 1e-6
    assert rows["cpp"]["auto"] or rows["cpp"]["why"]
    said = capsys.readouterr().out
    assert all(word in said for word in ("gram_dot, float32", "÷ eager", "of roof", "eager: two products"))
    if not torch.cuda.is_available():
        assert "cuda: no number: " in said


@pytest.mark.parametrize(
    ("broken", "why"),
    [(lambda s: 1.001 * s, "wrong"), (lambda s: s * float("nan"), "wrong"), (lambda s: 1 / 0, "ZeroDivisionError")],
)
def test_a_wrong_backend_gets_no_number(tiny, tmp_path, monkeypatch, capsys, broken, why):
    right = ops.ops.gram_dot
    monkeypatch.setattr(ops.ops, "gram_dot", lambda *tensors, **options: broken(right(*tensors, **options)))
    path = tmp_path / "result.json"
    assert bench.main([*tiny, "--backend", "reference", "--json", str(path)]) == 1
    row = json.loads(path.read_text())["rows"][0]
    assert row["red"] and row["why"].startswith(why) and row["seconds"] is None
    assert why in capsys.readouterr().out


def test_torch_compile_is_a_variant(tiny, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda form, dynamic: form)
    words = [*tiny[:-1], "some", "--backend", "reference"]
    rows = command.measure_all(*command.parse(words)).result["rows"]
    (compiled,) = [row for row in rows if row["way"] == ops.COMPILED]
    assert compiled["to_compile"]["median"] == 1 and all(row["to_compile"] for row in rows)


def test_ctrl_c_keeps_what_is_measured(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(CASES, "gram_dot", {"tiny": gram_dot(4, 2, 3, 5), "next": gram_dot(4, 2, 3, 5)})
    measure = ops.measure

    def stop(op, name, *rest, **options):
        if name == "next":
            raise KeyboardInterrupt
        return measure(op, name, *rest, **options)

    monkeypatch.setattr(command, "measure", stop)
    assert bench.main([*tiny, "--json", str(tmp_path / "result.json")]) == 130
    result = json.loads((tmp_path / "result.json").read_text())
    assert not result["complete"] and {row["case"] for row in result["rows"]} == {"tiny"}


def test_cpu_time_is_the_time_of_this_process(tiny, tmp_path):
    assert bench.main([*tiny, "--cpu-time", "--device", "cpu", "--json", str(tmp_path / "result.json")]) == 0
    assert timing.clock is time.process_time
    assert json.loads((tmp_path / "result.json").read_text())["clock"] == "process_time"
    assert bench.main(tiny) == 0 and timing.clock is time.perf_counter


@pytest.mark.quick
def test_plot_is_a_picture(tiny, tmp_path):
    assert bench.main([*tiny, "--plot", str(tmp_path / "ratios.png")]) == 0
    assert (tmp_path / "ratios.png").read_bytes().startswith(b"\x89PNG")


def scaled(result, factor):
    result = copy.deepcopy(result)
    for row in (row for row in result["rows"] if row["to_eager"]):
        low, high = (factor * q for q in row["to_eager"]["quartiles"])
        row["to_eager"] = {"median": factor * row["to_eager"]["median"], "quartiles": [low, high]}
    return result


@pytest.mark.quick
def test_compare_tells_change_from_noise(tiny, tmp_path, capsys):
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    bench.main([*tiny, "--json", str(old)])
    result = json.loads(old.read_text())
    (same,) = [row for row in compare.changes(result, result) if row["way"] == "reference"]
    assert same["noise"] and same["change"] == 1
    slower = scaled(result, 1e6)  # far beyond what a busy machine does to so short a call
    slower["rows"].append({**slower["rows"][0], "case": "only here"})
    found = compare.changes(result, slower)
    assert found and all(row["change"] == pytest.approx(1e6) and not row["noise"] for row in found)
    record.write_json(new, slower)
    capsys.readouterr()
    assert bench.main(["--compare", str(old), str(new)]) == 0
    said = capsys.readouterr().out
    assert "slower" in said and "faster" not in said and "1 only in the new result" in said
    assert bench.main([*tiny, "--compare", str(new)]) == 0
    assert "faster" in capsys.readouterr().out


def test_compare_says_what_else_differs(capsys):
    old = {"date": "then", "machine": {"cpu": "a"}, "versions": {"torch": "1"}, "rows": []}
    compare.show(old, {**old, "machine": {"cpu": "b"}}, record.console())
    said = capsys.readouterr().out
    assert "machine differs: cpu a → b" in said and "versions" not in said


@pytest.mark.parametrize("content", ["{", '{"bench": "end_to_end"}', "[]", None])
def test_compare_refuses_what_is_no_result(tiny, tmp_path, capsys, content):
    path = tmp_path / "old.json"
    if content is not None:
        path.write_text(content)
    assert ended(["--compare", str(path)]) == 2 and "--compare must name" in capsys.readouterr().err


def ended(words):
    with pytest.raises(SystemExit) as end:
        bench.main(words)
    return end.value.code


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["speed"], "speed"),
        (["--op", "gram_dot", "conv_spot"], "no such op: 'conv_spot'; there are gram_dot, "),
        (["--case", "alexnet*"], "no such case: 'alexnet*'; there are mlp 784-1024, "),
        (["--backend", "fortran"], "fortran"),
        (["--rounds", "0"], "must be at least 1, got 0"),
        (["--cpu-time", "--threads", "2"], "one thread"),
        (["--compare", "a", "b", "c"], "one file or two, got 3"),
        (["--device", "cpu", "--case", "gpt2 qkv"], "meant for a GPU"),
    ],
)
def test_unknown_words_are_refused(capsys, words, said):
    assert ended(words) == 2 and said in capsys.readouterr().err


def test_names_may_be_patterns():
    chosen = command.parse(["--op", "conv_*", "rect*", "--case", "resnet 16*", "n 100", "--device", "cpu"])[1]
    assert set(chosen) == {
        *("conv_dot", "conv_outer", "conv_instance", "conv_gradients", "conv_tangent"),
        *("rectify_normalize", "conv_use"),
    }
    assert chosen["conv_dot"] == ["resnet 16-16", "resnet 16-32 /2", "resnet 16-32 1x1 /2"]
    quick = command.parse(["--quick", "--device", "cpu"])[1]
    assert list(quick) == list(CASES) and all(len(names) <= 2 for names in quick.values())
    assert "gpt2 qkv" in command.parse(["--device", "cpu", "--large"])[1]["gram_dot"]


def test_help_teaches(capsys):
    assert ended(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(word in said for word in ("python -m fastrw bench --quick", "of roof", "end_to_end", *CASES))


def test_paper_counts_every_case(capsys):
    assert bench.main(["--paper", "--dtype", "bfloat16"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for cases in CASES.values() for name in cases)
    assert roof.H100.floor(790 * 10**9, 1, torch.bfloat16) == pytest.approx(1e-3)
    assert roof.H100.floor(1, 3 * 10**9, torch.float32) == pytest.approx(1e-3)


def test_a_floor_reads_from_the_cache_that_holds_it():
    here = roof.Roof(1e9, {torch.float32: 1e12}, caches={1000: 4e9, 5000: 2e9})
    floors = [here.floor(0, nbytes, torch.float32) for nbytes in (1000, 4000, 8000)]
    assert floors == pytest.approx([1000 / 4e9, 4000 / 2e9, 8000 / 1e9])


def test_ratios_are_taken_round_by_round():
    this, other = timing.Timing(0, (2.0, 20.0, 6.0)), timing.Timing(0, (1.0, 10.0, 2.0))
    assert this.over(other) == {"median": 2, "quartiles": (2, 2.5)}


def test_ahead_of_time_reports_without_a_gpu(tmp_path):
    pytest.importorskip("triton")
    words = ["--ahead-of-time", "--op", "combine", "--target", "80", "--json", str(tmp_path / "kernels.json")]
    done = subprocess.run([sys.executable, "-m", "bench", *words], cwd=record.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "kernels.json").read_text())
    assert {row["op"] for row in found["triton"]} == {"combine"} and "combine, triton" in done.stdout
    assert all(row["registers"] > 0 and row["capability"] == 80 for row in found["triton"])
    assert found["cuda"] == []  # it has no CUDA kernel; test_cuda_resources reads those of the others


def test_pytest_benchmark_takes_the_cases(tmp_path):
    pytest.importorskip("pytest_benchmark")
    chosen = "reference and (rectify_normalize and 100 or op[gram_dot-lenet or linear_use-lenet)"
    words = ["-q", "-p", "no:cacheprovider", "-k", chosen, "--benchmark-disable"]
    run = [sys.executable, "-m", "pytest", "bench/bench_ops.py", *words]
    done = subprocess.run(run, cwd=record.ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "7 passed" in done.stdout, done.stdout
