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
COVERED = "1"  # every value of what tells builds apart
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
    reports = [json.loads(line) for line in run.stdout.splitlines()]
    assert reports
    return reports


@pytest.mark.quick
def test_one_build_of_every_kernel():
    """Takes over 10 s: a compiler runs for each."""
    assert not [(fault, report) for report in compiled("90", "--cover", "0") for fault in faults(report)]


OPS = [op for op in backends.names() if hasattr(torch.ops.fastrw, f"{op}_triton")]


@pytest.mark.parametrize("ops", [OPS[i::4] for i in range(4)], ids="-".join)
def test_builds_of_every_kind(ops):
    """Takes over 10 s: a compiler runs a hundred times. The longest tier compiles every build for every GPU."""
    cover = [] if tiers.tier == "every" else ["--cover", COVERED]
    assert not [(fault, report) for report in compiled(*ops, *cover) for fault in faults(report)]


@pytest.fixture(scope="module")
def listed():
    """Takes over 10 s on a busy machine: every launcher runs at every size of the tests and of the benchmarks."""
    return compiled("--list")


def test_every_config_serves(listed):
    served = {(build["op"], family, *build["about"]["config"]) for build in listed for family in build["families"]}
    for op in OPS:
        module = import_module(f"fastrw.kernels.{op}")
        configs = getattr(module, "CONFIGS", None) or [module.CONFIG]
        families = configs if isinstance(configs, dict) else {"only": configs}
        assert {(op, family, *config) for family in families for config in families[family]} <= served
    of_weighted_sums = import_module("fastrw.kernels.conv_instance").WIDE
    assert {("conv_outer", "only", *config) for config in of_weighted_sums} <= served


def test_a_kernel_is_not_compiled_anew_for_a_size_or_for_what_does_not_concern_it(listed):
    """A compilation takes a second of a user's time, at the first launch of its kind."""
    for about in (build["about"] for build in listed):
        arguments = set(about) - {"kernel", "family", "config"}
        assert all(name.isupper() or name.endswith("_ptr") or name == "aligned" for name in arguments), about
        assert all(name.endswith("_ptr") for name in about["aligned"]), about
        assert about.get("PRECISION") != "tf32" or "fp32" in (about.get("x_ptr"), about.get("a_ptr")), about
