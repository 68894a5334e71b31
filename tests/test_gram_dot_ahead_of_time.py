"""Every config of the Triton kernels compiles for GPUs that are not here, without spills, onto their matrix units."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

pytest.importorskip("triton")
MATRIX_UNIT = {80: "mma", 90: "wgmma", 100: "tcgen05"}
SHARED_BYTES = {80: 99 * 1024, 90: 227 * 1024, 100: 227 * 1024}  # 99: sm_86 and sm_89 run what sm_80 runs


@cache
def reports(capability):
    command = [sys.executable, "-m", "tests.ahead_of_time", str(capability)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


@pytest.mark.parametrize("capability", MATRIX_UNIT)
def test_no_config_spills_or_outgrows_shared_memory(capability):
    assert reports(capability)
    for report in reports(capability):
        assert report["spilled_bytes"] == 0, report
        assert report["shared_bytes"] <= SHARED_BYTES[capability], report
        assert report["registers"] * 32 * report["config"][3] <= 65536, report


@pytest.mark.parametrize("capability", MATRIX_UNIT)
def test_every_product_but_the_exact_float32_one_is_on_the_matrix_unit(capability):
    for report in reports(capability):
        if report["precision"] == "ieee" and report["dtype"] == "fp32":
            assert report["matrix"] == [], report
        else:
            tall = report["config"][0] >= 64  # the units of sm_90 and later take 64 rows at a time
            assert report["matrix"] == [MATRIX_UNIT[capability] if tall else "mma"], report


@pytest.mark.parametrize("capability", MATRIX_UNIT)
def test_aligned_rows_are_loaded_16_bytes_at_a_time(capability):
    for report in reports(capability):
        assert (report["load_bytes"] == 16) == (report["units"] != [1, 1]), report
