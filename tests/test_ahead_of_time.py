"""Every config of the Triton kernels compiles for GPUs that are not here, without spills, onto their matrix units."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiers
from tests.op_cases import CASES

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
    assert not [(fault, report) for report in compiled("--cover", "0") for fault in faults(report)]


OPS = [op for op, case in CASES.items() if case.builds]


@pytest.mark.parametrize("ops", [OPS[i::4] for i in range(4)], ids="-".join)
def test_builds_of_every_kind(ops):
    """Takes over 10 s: a compiler runs a hundred times. The longest tier compiles every build for every GPU."""
    cover = [] if tiers.tier == "every" else ["--cover", COVERED]
    assert not [(fault, report) for report in compiled(*ops, *cover) for fault in faults(report)]
