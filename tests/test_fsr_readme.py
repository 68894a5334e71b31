"""The README's loop without clean data runs as it stands."""

import re
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import fastrw
from tests import fsr_reference as reference

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.quick
def test_the_example_runs(capsys):
    section = README.read_text().split("## Without clean data")[1].split("\n## ")[0]
    (example,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    x, y = reference.data(classes=10)
    model = reference.made(classes=10)
    words = {
        "fastrw": fastrw, "DataLoader": DataLoader, "train_set": TensorDataset(x, y), "model": model, "epochs": 2,
        "optimizer": torch.optim.SGD(model.parameters(), 0.1, momentum=0.9),
    }  # fmt: skip
    exec(example, words)
    (made,) = re.findall(r"`(fastrw.fsr.TABLE_4.*?)`", section)
    assert isinstance(eval(made, words), fastrw.fsr.FSR)
    assert capsys.readouterr().out.count("new in the dictionary") == 2
