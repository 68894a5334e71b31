"""What torch warns of inside itself does not reach the user."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

STEP = """
import fastrw, torch
from torch import nn
model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3))
batch = torch.randn(6, 4), torch.arange(6) % 3
for _ in range(2):
    fastrw.meta_weights(model, batch, batch, method="{method}")
fastrw.Reweighter(model).backward(batch, batch)"""


@pytest.mark.quick
@pytest.mark.parametrize("method", ["tangent", "double_backward"])
def test_a_first_step_warns_of_nothing(method):
    """In a process of its own: torch scripts what it needs once in each, and says that scripting is deprecated."""
    command = [sys.executable, "-W", "error", "-c", STEP.format(method=method)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not done.stderr


def test_what_uses_the_profiler_gets_no_warning():
    """torch 2.11 warns at the first use in a process, unless events are kept: an error in whatever test came first."""
    told = [
        (path.name, {option.arg for option in node.keywords})
        for folder in ("fastrw", "bench", "tests")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("profiler.profile")
    ]
    assert told and all("acc_events" in options for _, options in told), told
