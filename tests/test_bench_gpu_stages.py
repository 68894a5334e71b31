"""What the stages of a GPU run make of what they measured, and what tools and profilers say, read right."""

import functools
import json
import time
from types import SimpleNamespace

import pytest
import torch

from bench import roof
from bench.cases import CASES, Draw, is_large
from bench.gpu import counters, replays, report, roofs, samples, stand_ins, stub
from bench.gpu.stage import Stage
from bench.gpu.stages import op_times, profile, rest, sanitizer, steps
from bench.gpu.summary import section
from fastrw import ops
from fastrw.ops import backends

MEASURED = [
    {"kind": "roof", "what": what, "value": value}
    for what, value in {"copy": 4e12, "bfloat16": 8e14, "tf32": 4e14, "ieee": 5e13, "launch, in a graph": 1e-6}.items()
]


def stage(tmp_path, name="op_times", **changes):
    now = time.time()
    return Stage(
        **{"name": name, "out": tmp_path, "device": "cpu", "tiny": True, "began": now, "ends": now + 60} | changes
    )


@pytest.mark.parametrize(("nbytes", "count"), [(1, 16), (10**6, 16), (50 * 10**6, 4), (60 * 10**6, 3), (10**9, 2)])
def test_sets_of_inputs_push_one_another_out_of_the_cache(nbytes, count):
    assert replays.set_count(nbytes, 60 * 10**6) == count


def test_each_set_is_launched_as_often_as_any_other(tmp_path):
    calls = []
    runs = [functools.partial(calls.append, i) for i in range(3)]
    found = replays.timed(stage(tmp_path, tiny=False), runs)
    assert found.by == "graph" and found.launches % 3 == 0 and 3 <= found.launches <= replays.MOST
    assert calls[: found.launches] == [0, 1, 2] * (found.launches // 3)
    assert found.device_s > 0 and found.host_s > 0 and found.spread >= 1


def test_what_cannot_be_captured_is_timed_by_events_and_says_so(tmp_path, monkeypatch):
    class Refusing:
        def record(self, run):
            raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(stand_ins, "graph", lambda device: Refusing())
    found = replays.timed(stage(tmp_path), [lambda: None] * 2)
    assert found.by.endswith("not captured: RuntimeError: operation not permitted when stream is capturing")
    assert found.device_s > 0 and found.host_s is None


def test_a_roof_is_of_the_same_run_or_says_that_it_is_not():
    assert roofs.measured(MEASURED[:-1]) is roofs.ON_PAPER
    here, case = roofs.measured(MEASURED), CASES["conv_dot"]["wrn 320-320"]
    assert (here.copy, here.ieee, here.source) == (4e12, 5e13, "measured in this run")
    assert here.floor("conv_dot", case, torch.bfloat16) == case.flops / 8e14
    assert roofs.ON_PAPER.floor("conv_dot", case, torch.bfloat16) == roof.H100.floor(
        case.flops, case.bytes(torch.bfloat16), torch.bfloat16
    )
    case = CASES["combine"]["wrn 320-320"]
    assert here.floor("combine", case, torch.float32) == case.bytes(torch.float32) / 4e12


def test_the_roof_of_float32_is_that_of_the_products_that_torch_makes(monkeypatch):
    for conv in ("tf32", "ieee"):
        monkeypatch.setattr(torch.backends.cudnn, "conv", SimpleNamespace(fp32_precision=conv))
        assert roofs.precision("conv_dot", torch.float32) == conv
        assert roofs.precision("gram_dot", torch.float32) == "ieee"
    assert roofs.precision("conv_dot", torch.bfloat16) == "bfloat16"


def test_large_cases_come_first_and_every_op_before_its_next_case():
    items = op_times.items(tiny=False)
    assert len(items) == len(set(items)) == 2 * sum(map(len, CASES.values()))
    kinds = [(not is_large(name), dtype != "bfloat16") for _, name, dtype in items]
    assert kinds == sorted(kinds)
    first = [op for op, _, _ in items[: sum(any(map(is_large, cases)) for cases in CASES.values())]]
    assert len(first) == len(set(first))
    assert all(name in CASES[op] for op, name, _ in op_times.items(tiny=True))


def timed(op, case, variant, us, *, dtype="bfloat16", auto=False, of_roof=0.5, launch_bound=False, ratio=None):
    about = {"op": op, "case": case, "dtype": dtype, "variant": variant, "auto": auto, "launch_bound": launch_bound}
    return {"kind": "time", **about, "device_s": us / 1e6, "host_s": 2e-5, "of_roof": of_roof, "to_eager": ratio}


ROWS = [
    timed("gram_dot", "a", "eager: two", 9.0),
    timed("gram_dot", "a", "cuda", 5.0, ratio=0.5),
    timed("gram_dot", "a", "triton", 7.0, auto=True, of_roof=0.2, ratio=0.8),
    timed("gram_dot", "b", "cuda", 5.0, auto=True, of_roof=0.1, launch_bound=True),
    timed("gram_dot", "b", "triton", 6.0),
    timed("conv_use", "c", "cuda: project", 6.0, of_roof=0.3),
    timed("conv_use", "c", "triton: instance", 4.0, of_roof=0.4),
]


def test_what_a_user_gets_is_what_auto_takes_and_of_a_use_the_fastest():
    users = op_times.served(ROWS)
    assert [row["variant"] for row in users] == ["triton", "cuda", "triton: instance"]
    assert op_times.fastest(ROWS) == {"cuda": 2, "triton": 1}
    assert [row["of_roof"] for row in op_times.worst(users, 5)] == [0.2, 0.4]
    assert rest.worst(ROWS) == [
        ("gram_dot", "triton", "a", "bfloat16"),
        ("conv_use", "triton: instance", "c", "bfloat16"),
    ]
    assert rest.worst([]) == rest.PICKS
    for op, backend, name, _ in rest.PICKS:
        assert name in CASES[op] and backends.get(op).order["cuda"].count(backend)
    assert all(name in CASES[op] for op, name in rest.FUSED)


def test_op_times_are_told_in_little_room():
    rows = [
        timed(op, f"case {i}", backend, 123.4, dtype=dtype, auto=backend == "cuda", ratio=0.5)
        for op in CASES
        for dtype in op_times.OF_DTYPE
        for i in range(9)
        for backend in ("reference", "cuda", "triton")
    ]
    told = "\n".join(op_times.summary(rows))
    assert len(told) < 1900 and "| gram_dot | 9 / 9 | " in told and "| 50 / 50 | 0.50 / 0.50 | 20 / 20 |" in told


def test_a_wrong_variant_is_told_first():
    about = {"kind": "verdict", "op": "combine", "case": "a", "dtype": "float32"}
    broken = "failed its self-test on cuda: its relative error is 1"
    wrong = [
        {**about, "variant": "cuda", "red": True, "why": "wrong: error 1e+00 > 1e-06"},
        {**about, "variant": "triton", "red": False, "why": broken},
        {**about, "variant": "cpp", "red": False, "why": "serves cpu tensors"},
    ]
    told = op_times.summary([*ROWS, *wrong])
    assert told[0] == "- WRONG combine a float32 cuda: wrong: error 1e+00 > 1e-06"
    assert told[1] == f"- WRONG combine a float32 triton: {broken}" and "serves" not in "".join(told)


def test_a_variant_is_judged_before_it_is_timed(tmp_path, monkeypatch):
    run = stage(tmp_path)
    right = ops.rectify_normalize
    monkeypatch.setattr(
        ops, "rectify_normalize", lambda s, backend: right(s, backend=backend) * (1 + (backend == "cpp"))
    )
    op_times.measure(run, "rectify_normalize", "n 100", "float32")
    rows = run.rows("op_times")
    judged = {row["variant"]: row for row in rows if row["kind"] == "verdict"}
    times = {row["variant"]: row for row in rows if row["kind"] == "time"}
    assert judged["cpp"]["why"] and "cpp" not in times  # wrong, or not there
    assert times["reference"]["to_eager"] >= 1 and times["reference"]["host_s"] > 0
    assert times["reference"]["roof"] == roofs.ON_PAPER.source
    assert "clamp, divide" in "".join(times)


def test_busy_time_is_counted_once_and_gaps_have_neighbours():
    spans = [(0.0, 10.0, "a"), (4.0, 6.0, "inside"), (8.0, 12.0, "b"), (20.0, 21.0, "c"), (22.0, 30.0, "d")]
    busy, gaps = profile.union(spans)
    assert busy == 12 + 1 + 8
    assert gaps == [(8.0, "b", "c"), (1.0, "c", "d")]
    assert profile.union([(5.0, 7.0, "alone")]) == (2.0, [])
    assert profile.totals([*spans, (40.0, 43.0, "c")])[0] == ("a", 10.0, 1)
    assert ("c", 4.0, 2) in profile.totals([*spans, (40.0, 43.0, "c")])


def test_the_worst_steps_are_of_different_models():
    def step(model, ratio, variant="capture"):
        return {"kind": "step", "model": model, "setting": "bf16", "variant": variant, "ratio": ratio}

    rows = [step("mlp", 1.5), step("mlp", 1.7, "Reweighter"), step("lenet", 1.6), step("vit_s", 1.9, "params=last")]
    rows += [step("gpt2_small", 1.1), step("resnet32_bn", 1.2)]
    assert profile.worst(rows) == [("mlp", "bf16", "Reweighter"), ("lenet", "bf16", "capture"),
                                   ("resnet32_bn", "bf16", "capture")]  # fmt: skip
    assert [model for model, _, _ in profile.worst([])] == ["resnet32_gn", "transformer", "gpt2_small"]


def test_a_step_under_the_profiler(tmp_path, monkeypatch):
    x = torch.ones(8, 8)
    monkeypatch.setattr(profile, "prepare", lambda *words: lambda: x @ x)
    run = stage(tmp_path, "profile")
    profile.profiled(run, "vit_s", "defaults", "Reweighter")
    rows = run.rows("profile")
    kinds = {row["kind"]: row for row in rows}
    assert set(kinds) >= {"busy", "gap", "kernel", "host op", "trace"} and 0 < kinds["busy"]["busy_share"] <= 1
    assert any(row["kind"] == "kernel" and row["name"] == "aten::mm" and row["count"] == 1 for row in rows)
    assert [file.name for file in tmp_path.iterdir() if file.name != "rows.jsonl"] == [kinds["trace"]["file"]]
    told = "\n".join(section("profile", rows))
    assert "| vit_s | defaults | Reweighter |" in told and len(told) < 600
    monkeypatch.setattr(profile, "LARGEST", 1)
    (tmp_path / profile.TRACE).unlink()
    profile.profiled(run, "vit_s", "defaults", "Reweighter")
    assert run.rows("profile")[-1]["file"] is None and not (tmp_path / profile.TRACE).exists()


def test_kernels_have_short_names():
    assert profile.short("void at::native::(anonymous namespace)::vectorized_elementwise_kernel<4, F>(int, F)")
    assert profile.short("void cutlass::Kernel2<cutlass_80_tensorop_s1688gemm>(Params)") == "Kernel2"
    assert profile.short("_gram_dot_kernel") == "_gram_dot_kernel"


MEMCHECK = """========= COMPUTE-SANITIZER
gram_dot cuda sample torch.float32, plain: error 0.0e+00
========= Invalid __global__ read of size 4 bytes
=========     at fastrw::gpu::gram_dot_kernel+0x100
done gram_dot cuda: 20 calls, 1 wrong
========= ERROR SUMMARY: 3 errors""".splitlines()


def test_what_the_sanitizer_says_is_read():
    assert sanitizer.errors(MEMCHECK) == 3
    assert sanitizer.errors(["========= RACECHECK SUMMARY: 2 hazards displayed (1 error, 1 warning)"]) == 2
    assert sanitizer.errors(["========= ERROR SUMMARY: 0 errors"]) == 0 and sanitizer.errors(MEMCHECK[:-1]) is None
    assert sanitizer.reports(MEMCHECK) == ["Invalid __global__ read of size 4 bytes",
                                           "at fastrw::gpu::gram_dot_kernel+0x100"]  # fmt: skip


@pytest.mark.parametrize(
    ("tool", "why"), [(None, "it is not installed"), (["echo", "Error: Device not supported"], "not supported")]
)
def test_where_there_is_no_sanitizer_one_row_says_so(tmp_path, monkeypatch, tool, why):
    monkeypatch.setattr(stand_ins, "tool", lambda name, device: tool)
    run = stage(tmp_path, "sanitizer")
    sanitizer.run(run)
    (row,) = run.rows("sanitizer")
    assert row["kind"] == "missing" and why in row["why"] and why in sanitizer.summary([row])[0]


def test_every_op_is_sanitized(tmp_path, monkeypatch):
    monkeypatch.setattr(sanitizer, "serves", lambda op, backend, device: True)
    planted, items = [], []
    for item in sanitizer.items(stage(tmp_path, "sanitizer", tiny=False)):
        (planted if item[3] else items).append(item)
    assert [item[1] for item in planted] == ["cuda", "triton"]
    assert [item[:2] for item in items] == sorted((item[:2] for item in items), key=sanitizer.PLAN.index)
    for tool, backend in sanitizer.PLAN:
        found = " ".join(names for *kind, names, _ in items if tuple(kind) == (tool, backend))
        assert found.split() == list(backends.names())


def test_what_the_sanitizer_found_is_told(tmp_path, monkeypatch):
    said = "\n".join(MEMCHECK)
    monkeypatch.setattr(stand_ins, "tool", lambda name, device: ["sh", "-c", f"echo '{said}'; exit 99", "sh"])
    run = stage(tmp_path, "sanitizer")
    sanitizer.sanitized(run, "memcheck", "cuda", "gram_dot", "")
    op, tool = run.rows("sanitizer")
    assert (op["op"], op["calls"], op["wrong"], op["reported"]) == ("gram_dot", 20, 1, True)
    assert (tool["errors"], tool["exit"]) == (3, 99)
    told = sanitizer.summary([op, tool])
    assert told[3].startswith("| memcheck | cuda | 1 | 20 | 1 | 3 |") and "exit status 99: Invalid" in told[4]
    planted = {**tool, "planted": True, "ops": "combine"}
    assert sanitizer.summary([planted]) == ["- a stray read planted in cuda combine: seen", ""]
    assert "NOT SEEN" in sanitizer.summary([{**planted, "errors": 0}])[0]


def test_samples_lie_in_every_layout_and_are_the_same_numbers():
    x = torch.arange(24.0).view(2, 3, 4)
    for name, layout in samples.LAYOUTS.items():
        y = layout(x)
        assert torch.equal(x, y) and (name == "plain") == (y.is_contiguous() and y.storage_offset() == 0)
    around = samples.margin(x)._base
    assert around.isnan().sum() == around.numel() - x.numel()
    assert samples.margin(torch.arange(4))._base[0] == torch.iinfo(torch.int64).max


def test_a_planted_tensor_ends_too_early():
    y = samples.cut_short(torch.arange(24.0).view(2, 3, 4))
    assert y.shape == (2, 3, 4) and y.is_contiguous() and y.flatten()[:12].tolist() == list(range(12))
    assert samples.kept.pop().numel() == 12


def test_a_wrong_sample_is_an_exit_status(monkeypatch, capsys):
    words = ["--device", "cpu", "--backend", "reference", "--op", "rectify_normalize", "--few"]
    assert samples.main(words) == 0 and "done rectify_normalize reference: 2 calls, 0 wrong" in capsys.readouterr().out
    below = samples.below
    monkeypatch.setattr(samples, "below", lambda *args, backend: below(*args, backend=backend) + 1)
    assert samples.main(words) == 1 and "2 calls, 2 wrong" in capsys.readouterr().out


def test_one_case_is_run_for_a_profiler(capsys):
    assert samples.main(["--device", "cpu", "--pick", "gram_dot", "reference", "lenet 84-10", "bfloat16"]) == 0
    assert capsys.readouterr().out == "done gram_dot reference lenet 84-10 bfloat16\n"


def csv(*rows):
    heads = ("ID", "Process ID", "Kernel Name", "Section Name", "Metric Name", "Metric Unit", "Metric Value")
    return [",".join(f'"{cell}"' for cell in row) for row in (heads, *rows)]


def test_what_ncu_counted_is_read():
    light = "GPU Speed Of Light Throughput"
    lines = csv(
        ("0", "1", "spin_kernel(long)", light, "Duration", "ns", "999,000"),
        ("1", "1", "_conv_dot_kernel", light, "Duration", "us", "1,234.5"),
        ("1", "1", "_conv_dot_kernel", light, "Compute (SM) Throughput", "%", "61.5"),
        ("1", "1", "_conv_dot_kernel", light, "Memory Throughput", "%", "1"),
        ("1", "1", "_conv_dot_kernel", "Launch Statistics", "Registers Per Thread", "register/thread", "168"),
        ("1", "1", "_conv_dot_kernel", "Occupancy", "Achieved Occupancy", "%", "n/a"),
        ("2", "1", "row_sums_kernel", light, "Duration", "ns", "800"),
        ("3", "1", "spin_kernel(long)", light, "Duration", "ns", "9"),
        ("4", "1", "norm_dot_kernel", light, "DRAM Throughput", "%", "88"),
    )
    picks = [("conv_dot", "triton", "a", "bfloat16"), ("norm_dot", "cuda", "b", "bfloat16")]
    found = counters.kernels(["==PROF== Connected", "done conv_dot", *lines, "==PROF== Disconnected"], picks)
    assert [(row["pick"][0], row["kernel"]) for row in found] == [
        ("conv_dot", "_conv_dot_kernel"), ("conv_dot", "row_sums_kernel"), ("norm_dot", "norm_dot_kernel"),
    ]  # fmt: skip
    assert found[0] == {"pick": picks[0], "kernel": "_conv_dot_kernel", "ns": 1234500.0, "sm": 61.5,
                        "registers": 168.0, "occupancy": None}  # fmt: skip
    assert found[2]["ns"] is None and found[2]["dram"] == 88
    told = "\n".join(rest.summary([{"kind": "ncu", **json.loads(json.dumps(row))} for row in found]))
    assert "_conv_dot_kernel | 1234.5 | 62 |" in told and "row_sums" not in told and "norm_dot_kernel" in told
    assert counters.kernels(stub.KERNEL.splitlines(), picks)[0]["registers"] == 32
    assert counters.kernels(["==ERROR== no permission"], picks) == []
    assert counters.refusal(["==PROF== x", "==ERROR== ERR_NVGPUCTRPERM"]) == "ERROR== ERR_NVGPUCTRPERM"


def test_ours_stands_beside_torch_compile():
    about = {"kind": "to compile", "op": "norm_dot", "case": "gpt2"}
    rows = [
        {**about, "variant": "torch.compile", "device_s": 4e-5, "ratio": None},
        {**about, "variant": "auto", "device_s": 2e-5, "ratio": 0.5},
        {**about, "op": "conv_dot", "variant": "torch.compile", "why": "wrong: error 1"},
    ]
    told = rest.summary(rows)
    assert "| norm_dot | gpt2 | 40.0 | 20.0 (0.50) |" in told and "| conv_dot | gpt2 | wrong: error 1 |  |" in told


def test_ncu_leaves_the_clocks_alone_and_watches_the_picks():
    words = counters.command(["ncu"], [("combine", "triton", "vit patches", "bfloat16")], "cuda")
    assert words[1:3] == ["--clock-control", "none"] and words[-5:-2] == ["--pick", "combine", "triton"]


def test_draws_of_one_source_differ_from_set_to_set():
    draw = Draw(torch.float32)
    first, second = (CASES["gram_dot"]["lenet 84-10"].make(draw)[0] for _ in range(2))
    assert not torch.equal(first, second)


def test_tests_end_where_their_part_of_a_stage_does(tmp_path):
    (tmp_path / "test_slow.py").write_text("import time\n\n\ndef test_slow():\n    time.sleep(600)\n")
    run = stage(tmp_path, "rest", ends=time.time() + 2)
    report.pytest(run, [str(tmp_path / "test_slow.py")], 1)
    (ended,) = run.rows("rest")
    assert (ended["kind"], ended["status"]) == ("pytest", report.LATE)


def test_what_compiling_a_step_took_and_when_it_is_paid_back_is_told():
    done = {"used": True, "graphs": 2, "seconds": 6.0, "why": "", "recompilations": 1}
    eager = done | {"used": False, "why": "a hook"}
    about = {"model": "vit_s", "setting": "bf16"}
    rows = []
    for variant, compilation in (("plain", None), ("Reweighter", None), ("plain compiled", None), ("compiled", done),
                                 ("compiled replays", done), (steps.FUSED, eager)):  # fmt: skip
        rows.append({"kind": "prepared", **about, "variant": variant, "peak_bytes": 1, "waits": 0, **steps.NO_ERRORS,
                     "compilation": compilation})  # fmt: skip
    ms = {"plain": 10, "Reweighter": 16, "plain compiled": 8, "compiled": 12, "compiled replays": 20, steps.FUSED: 16}
    seconds = {variant: x / 1e3 for variant, x in ms.items()}
    rows.append({"kind": "round", **about, "seconds": seconds, "host": seconds})
    first, *_, slower, not_compiled = told = steps.summary(rows)
    assert not_compiled == "- not compiled: vit_s bf16 compiled, ops fused: a hook"
    assert "| compiled replays | 6 | never | 1 | 2.50 |" in slower
    assert "| compiled | 6 | 1500 | 1 | 1.50 |" in told[-3]
    assert "compiled, ops fused ÷" in first and told[2].endswith("| **1.50 (1.25)** |")
