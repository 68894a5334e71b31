"""Several ranks and shards: refused before anything runs. One rank in a wrapper: served."""

import contextlib

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

import fastrw
from tests.on_graph import apart, exact, joined, relative, truth


def rows(n):
    return torch.randn(n, 8).double(), torch.arange(n) % 3


def net(norm=nn.LayerNorm):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 6), norm(6), nn.Tanh(), nn.Linear(6, 3)).double()


@contextlib.contextmanager
def group(store, rank=0, size=1):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    try:
        yield
    finally:
        dist.destroy_process_group()


def every_call(model, batch, val_batch):
    graphs = apart(model, batch, val_batch)
    data = [(batch[0][i], int(batch[1][i])) for i in range(len(batch[1]))]
    step = fastrw.Reweighter(model, every=2)
    yield lambda: fastrw.backward(*graphs, retain_graph=True)
    yield lambda: fastrw.backward(*graphs, method="per_example", retain_graph=True)
    yield lambda: step.backward(batch, val_batch)
    yield lambda: step.weights(batch, val_batch)
    for name in ("meta_weights", "gradient_dots", "explain", "verify"):
        yield lambda name=name: getattr(fastrw, name)(model, batch, val_batch)
    for params in ("last", "all"):
        fsr = fastrw.fsr.FSR(model, len(data), 3, dataset=data, q=3, capacity=3, params=params)
        yield lambda fsr=fsr: fsr.step(torch.arange(len(data)), *batch)
    step.steps = 1
    yield lambda: step.backward(batch, val_batch)  # a plain one


def all_are_refused(model, batch, val_batch, text):
    """And nothing moves."""
    before, random = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    calls = [*every_call(model, batch, val_batch)]
    for call in calls:
        with pytest.raises(fastrw.Refused, match=text):
            call()
    assert all(p.grad is None for p in model.parameters()) and torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    return len(calls)


def a_rank(rank, store):
    torch.set_num_threads(1)
    with group(store, rank, 2):
        model = nn.parallel.DistributedDataParallel(net())
        assert all_are_refused(model, rows(6), rows(3), r"torch\.distributed with 2") == 11
        assert all_are_refused(model.module, rows(6), rows(3), r"torch\.distributed with 2") == 11


@pytest.mark.filterwarnings("ignore:This process")  # is multi-threaded, says Python 3.12
def test_two_ranks_are_refused_in_every_call(tmp_path):
    torch.multiprocessing.start_processes(a_rank, (tmp_path / "store",), nprocs=2, start_method="fork")


def test_many_ranks_are_refused_in_every_call(monkeypatch):
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    all_are_refused(net(), rows(6), rows(3), "run one process, or train with plain averaging")


def test_an_active_synchronised_norm_is_refused_in_every_call_with_a_model():
    model = net(nn.SyncBatchNorm)
    for k, call in enumerate(every_call(model, rows(6), rows(3))):
        if k > 1:
            with pytest.raises(fastrw.Refused, match="SyncBatchNorm '1'"):
                call()


@pytest.mark.filterwarnings("ignore:.*broadcast_buffers")  # going to be replaced
@pytest.mark.parametrize("options", [{}, {"find_unused_parameters": True}, {"static_graph": True}], ids=str)
@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.BatchNorm1d])
def test_one_rank_in_a_wrapper_is_served(norm, options, tmp_path):
    with group(tmp_path / "store"):
        # torch 2.11 writes buffers anew at each forward, which ends the backward of an earlier one
        model = nn.parallel.DistributedDataParallel(net(norm), broadcast_buffers=False, **options)
        step = fastrw.Reweighter(model)
        for _ in range(3):
            batch, val_batch = rows(7), rows(4)
            for made in (apart,) if norm is nn.BatchNorm1d else (apart, joined):
                exact(*made(model, batch, val_batch))
                model.zero_grad()
            s, _, weighted = truth(*apart(model, batch, val_batch))
            assert relative(step.backward(batch, val_batch).scores, s) <= 1e-10
            assert all((p.grad - g).norm() <= 1e-10 for p, g in weighted.items())
            model.zero_grad()
            F.cross_entropy(model(batch[0]), batch[1]).backward()  # the wrapper goes on as ever
            model.zero_grad()


@pytest.mark.parametrize("where", ["all", "each", "first", "frozen"])
def test_what_fsdp_shards_is_refused_in_every_call(where, tmp_path):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    with group(tmp_path / "store"):
        mesh, model = init_device_mesh("cpu", (1,)), net()
        for layer in {"all": [], "each": model, "first": [model[0]], "frozen": [model[0]]}[where]:
            if next(layer.parameters(), None) is not None:
                fully_shard(layer, mesh=mesh)
        if where in ("all", "each"):
            fully_shard(model, mesh=mesh)
        model[0].requires_grad_(where != "frozen")
        for k, call in enumerate(every_call(model, rows(6), rows(3))):
            if k > 1 or where != "frozen":  # what is frozen is not on the graph
                with pytest.raises(fastrw.Refused, match="must not be sharded"):
                    call()
        assert all(p.grad is None for p in model.parameters())
