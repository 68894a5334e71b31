"""Copies of many tensors at once, and putting them back: each on its own merits, and none lost to another's error."""

import pytest
import torch
from torch import nn

from fastrw.state.copies import copies, put_back


def tensors():
    torch.manual_seed(0)
    return {
        "dense": torch.randn(3, 4),
        "parameter": nn.Parameter(torch.randn(2)),
        "transposed": torch.randn(4, 3).t(),
        "strided": torch.randn(6)[::2],
        "expanded": torch.randn(3, 1).expand(3, 5),
        "expanded empty": torch.randn(1, 0).expand(3, 0),
        "count": torch.tensor(7),
        "half": torch.randn(5).half(),
        "sparse": torch.eye(3).to_sparse(),
        "empty": torch.zeros(0),
    }


@pytest.mark.quick
def test_every_kind_is_copied_and_put_back():
    given = tensors()
    versions = [t._version for t in given.values()]
    values = copies([*given.values()])
    before = [t.detach().to_dense().clone() if t.is_sparse else t.detach().clone() for t in given.values()]
    for name, t in given.items():
        if name == "sparse":
            t.data = torch.zeros(3, 3).to_sparse()
        elif name == "expanded":
            t.data[:, :1].add_(1)
        else:
            t.data.add_(1)
    assert not put_back([*zip(given.values(), values, strict=True)])
    for name, t, value, version in zip(given, given.values(), before, versions, strict=True):
        assert torch.equal(t.to_dense() if t.is_sparse else t, value), name
        assert t._version == version or t.is_sparse, name  # or a backward that saved it would raise


def test_one_that_cannot_be_put_back_costs_no_other():
    given = [torch.zeros(3), torch.zeros(2), torch.zeros(3)]
    values = copies(given)
    for t in given:
        t.add_(1)
    values[1] = torch.zeros(2, device="meta")  # has no values
    failed = put_back([*zip(given, values, strict=True)])
    assert len(failed) == 1
    assert not given[0].any()
    assert not given[2].any()
