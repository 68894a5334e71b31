"""What torch warns of inside itself does not reach the user."""

import subprocess
import sys

import pytest

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
