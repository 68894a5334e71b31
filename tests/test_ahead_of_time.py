"""What the Triton kernels' launchers ask for compiles for GPUs that are not here, without spills, onto matrix units."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

from fastrw.ops import backends
from tests import tiers

pytest.importorskip("triton")
MATRIX_UNIT = {80: "mma", 90: "wgmma", 100: "tcgen05"}
SHARED_BYTES = {80: 99 * 1024, 90: 227 * 1024, 100: 227 * 1024}  # 99: sm_86 and sm_89 run what sm_80 runs


def faults(report):
    """What is wrong with a build."""
    capability, rows = report["capability"], report["tensor_rows"]
    if report["spilled_bytes"]:
        yield "spills"
    if report["shared_bytes"] > SHARED_BYTES[capability]:
        yield "outgrows shared memory"
    if report["registers"] * 32 * report["num_warps"] > 65536:
        yield "outgrows the registers"
    tall = rows >= 64  # the units of sm_90 and later take 64 rows at a time
    if report["matrix"] != ([MATRIX_UNIT[capability] if tall else "mma"] if rows else []):
        yield "is not on the matrix unit that it should be on"
    wanted = report["wanted_load_bytes"]
    if report["load_bytes"] < wanted if wanted else report["load_bytes"] >= 16:
        yield "loads aligned rows less than 16 bytes at a time, or takes others for aligned"


def compiled(*words):
    command = [sys.executable, "-m", "tests.ahead_of_time", *words]
    run = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


OPS = [op for op in backends.names() if hasattr(torch.ops.fastrw, f"{op}_triton")]
QUICK = tiers.tier == "quick"


@pytest.fixture(scope="module", params=[OPS] if QUICK else [OPS[i::2] for i in range(2)], ids="-".join)
def reports(request):
    """Which builds of some ops are asked for, and what some of these compile to: in the shortest tier one of each
    kernel, in the usual one so many that every value of what tells builds apart is in one, in the longest all for every
    GPU.

    Takes over 10 s: every launcher runs at every size of the tests and of the benchmarks, and a compiler fifty times.
    """
    words = {"quick": ["90", "--cover", "0"], "usual": ["--cover", "1"], "every": []}[tiers.tier]
    found = compiled(*request.param, *words, "--list")
    return [[row for row in found if ("registers" in row) is is_compiled] for is_compiled in (False, True)]


@pytest.mark.quick
def test_builds_of_every_kind(reports):
    """Takes over 10 s: see above."""
    assert reports[1] and not [(fault, report) for report in reports[1] for fault in faults(report)]


def test_every_config_serves(reports):
    served = {(build["op"], family, *build["about"]["config"]) for build in reports[0] for family in build["families"]}
    ops = [op for op in OPS if any(build["op"] == op for build in reports[0])]
    assert ops
    for op in ops:
        module = import_module(f"fastrw.kernels.{op}")
        configs = getattr(module, "CONFIGS", None) or [module.CONFIG]
        families = configs if isinstance(configs, dict) else {"only": configs}
        assert {(op, family, *config) for family in families for config in families[family]} <= served
    of_weighted_sums = import_module("fastrw.kernels.conv_instance").WIDE if "conv_outer" in ops else ()
    assert {("conv_outer", "only", *config) for config in of_weighted_sums} <= served


def test_a_kernel_is_not_compiled_anew_for_a_size_or_for_what_does_not_concern_it(reports):
    """A compilation takes a second of a user's time, at the first launch of its kind."""
    for about in (build["about"] for build in reports[0]):
        arguments = set(about) - {"kernel", "family", "config"}
        assert all(name.isupper() or name.endswith("_ptr") or name == "aligned" for name in arguments), about
        assert all(name.endswith("_ptr") for name in about["aligned"]), about
        assert about.get("PRECISION") != "tf32" or "fp32" in (about.get("x_ptr"), about.get("a_ptr")), about
