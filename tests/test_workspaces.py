"""Memory of per-example gradients is kept for the next call: never while anyone looks at it, and freed on request."""

import gc

import pytest
import torch

import fastrw
from fastrw.ops import conv_instance, extension

pytestmark = pytest.mark.skipif(extension.reason is not None, reason="needs the compiled extension")


def instances(seed=0):
    draw = torch.Generator().manual_seed(seed)
    x, g = torch.randn(20, 16, 12, 12, generator=draw), torch.randn(20, 32, 12, 12, generator=draw)
    return conv_instance(x, g, 16, None, [3, 3], [1, 1], [1, 1], [1, 1], 1)[1]


def test_a_buffer_is_reused_only_after_its_last_reference():
    fastrw.free_workspaces()
    G = instances()
    view, kept = G[3], G[3].clone()
    address = G.untyped_storage().data_ptr()
    del G
    gc.collect()
    other = instances(1)
    assert other.untyped_storage().data_ptr() != address
    assert torch.equal(view, kept)
    del view, other
    gc.collect()
    assert extension.idle_workspaces() > 0
    again = {instances(2).untyped_storage().data_ptr() for _ in range(3)}
    assert len(again) == 1


def test_idle_memory_is_freed_on_request():
    instances()
    gc.collect()
    assert 0 < extension.idle_workspaces() <= 256 * 2**20
    fastrw.free_workspaces()
    assert extension.idle_workspaces() == 0
