"""What a launch plan launches is what Triton would launch, for arguments of its kind and of no other."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")


def test_launch_plans():
    """Takes over 10 s: a process of its own, in which every launcher meets every layout."""
    command = [sys.executable, "-m", "tests.gpu_plans"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert run.returncode == 0, run.stderr
    found = {row["check"]: row["faults"] for row in map(json.loads, run.stdout.splitlines())}
    assert len(found) > 20
    assert {check: faults for check, faults in found.items() if faults} == {}
