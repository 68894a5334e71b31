"""Nothing moves: model, gradients, buffers, modes, hooks, random states, torch's settings and memory are bit-identical
after a call, whatever the method, and also where the model or the loss raises on the way."""

import gc
import random
import resource
import weakref
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fastrw
from fastrw.ops.tolerance import SCORE_GOAL, relative_error
from fastrw.testing import Net, cases
from tests import oracle
from tests.tiers import covering, some

METHODS = ("auto", "layerwise", "tangent", "double_backward", "per_example")
pytestmark = pytest.mark.filterwarnings(
    "ignore:LSTM with projections",
    "ignore:Using padding='same'",
    "ignore:fastrw. this model is scored by one backward pass per example",
)


def made(name, dtype=torch.float32):
    (case,) = cases(name)
    return case.make(dtype)


def bits(tensor):
    """Identity, layout and every bit of a tensor."""
    if tensor is None:
        return None
    values = tensor.detach().to_dense().contiguous()
    layout = () if tensor.is_sparse else (tensor.data_ptr(), tensor.stride())
    return id(tensor), layout, tensor.requires_grad, str(tensor.dtype), values.numpy().tobytes()


def hooks(thing):
    """Every dictionary of hooks that a module or a parameter carries."""
    names = [name for name in dir(thing) if "hook" in name and name.startswith("_")]
    found = {name: getattr(thing, name) for name in names}
    return {name: [*map(id, hook.values())] for name, hook in found.items() if isinstance(hook, dict)}


def snapshot(model, *batches):
    """All that a call could move, by name."""
    named = dict(model.named_parameters(remove_duplicate=False))
    leaves = torch.utils._pytree.tree_leaves(batches)
    return {
        "parameters": {name: bits(p) for name, p in named.items()},
        "gradients": {name: bits(p.grad) for name, p in named.items()},
        "buffers": {name: bits(b) for name, b in model.named_buffers(remove_duplicate=False)},
        "training": {name: module.training for name, module in model.named_modules()},
        "module hooks": {name: hooks(module) for name, module in model.named_modules()},
        "parameter hooks": {name: (p._backward_hooks, p._post_accumulate_grad_hooks) for name, p in named.items()},
        "attributes": {name: sorted(vars(module)) for name, module in model.named_modules()},
        "classes": {name: type(module) for name, module in model.named_modules()},
        "batches": [bits(leaf) for leaf in leaves if isinstance(leaf, torch.Tensor)],
        "random states": (torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())),
        "torch settings": (
            torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.get_default_dtype(),
            torch.backends.mkldnn.enabled, torch.backends.cuda.flash_sdp_enabled(),
            torch.backends.cuda.math_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled(),
            torch._C._len_torch_function_stack(), torch.autograd.forward_ad._current_level,
            torch.is_anomaly_enabled(), torch.are_deterministic_algorithms_enabled(), torch.get_num_threads(),
            hooks(torch.nn.modules.module),
        ),
    }  # fmt: skip


def moved(before, after):
    """The names of what is no longer the same."""
    return [name for name in before if before[name] != after[name]]


def give_gradients(model):
    """Half the parameters have a gradient already, the others none."""
    for index, p in enumerate(model.parameters()):
        p.grad = torch.full_like(p, 0.5) if index % 2 and p.requires_grad else None


@pytest.mark.parametrize(("name", "method"), covering(product((case.name for case in cases()), METHODS)))
def test_nothing_moves(name, method):
    (case,) = cases(name)
    model, batch, val_batch = case.make()
    give_gradients(model)
    before = snapshot(model, batch, val_batch)
    try:
        fastrw.meta_weights(model, batch, val_batch, **case.kwargs, method=method)
    except fastrw.Refused:
        assert method != "auto"
    assert moved(before, snapshot(model, batch, val_batch)) == []


class Boom(Exception):
    """Raised by the user's own code."""


def explode_at(call):
    """A function that raises the given time it is called."""
    count = iter(range(1, 1000))

    def tick(*_):
        if next(count) == call:
            raise Boom

    return tick


@pytest.mark.parametrize("name", ("resnet_batchnorm_training", "dropout", "vit", "spectral_norm_training", "mlp"))
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("call", (1, 2, 3, 4, 5))
def test_nothing_moves_when_the_loss_raises(name, method, call):
    model, batch, val_batch = made(name)
    give_gradients(model)
    tick = explode_at(call)

    def losses_fn(model, batch):
        losses = oracle.losses(model, batch)
        random.random(), np.random.rand()
        tick()
        return losses

    before = snapshot(model, batch, val_batch)
    try:
        fastrw.meta_weights(model, batch, val_batch, losses_fn=losses_fn, method=method)
        raised = False
    except Boom:
        raised = True
    except fastrw.Refused:
        raised = None
    assert moved(before, snapshot(model, batch, val_batch)) == []
    assert raised or raised is None or call > 2  # every method runs the model at least twice


@pytest.mark.parametrize("name", ("resnet_batchnorm_training", "vit"))
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("call", (1, 2))
def test_nothing_moves_when_the_model_raises_half_way(name, method, call):
    model, batch, val_batch = made(name)
    model.head.register_forward_pre_hook(explode_at(call))
    before = snapshot(model, batch, val_batch)
    with pytest.raises(Boom):
        fastrw.meta_weights(model, batch, val_batch, method=method)
    assert moved(before, snapshot(model, batch, val_batch)) == []


@pytest.mark.parametrize("method", METHODS)
def test_nothing_moves_when_a_backward_raises(method):
    """A hook of the user's on an activation, run by the first backward."""
    model, batch, val_batch = made("resnet_batchnorm_training")

    def explode(gradient):
        raise Boom

    def watch(module, args, output):
        if output.requires_grad:
            output.register_hook(explode)

    model.head.register_forward_hook(watch)
    before = snapshot(model, batch, val_batch)
    with pytest.raises((Boom, fastrw.Refused)):
        fastrw.meta_weights(model, batch, val_batch, method=method)
    assert moved(before, snapshot(model, batch, val_batch)) == []


BAD = (
    {"method": "fast"},
    {"method": "layerwise"},
    {"backend": "gpu"},
    {"normalize": "softmax"},
    {"params": "nowhere"},
    {"loss_fn": F.cross_entropy},
    {"loss_fn": lambda output, target: output},
    {"losses_fn": lambda model, batch: model(batch[0])},
)


@pytest.mark.parametrize("kwargs", BAD, ids=lambda kwargs: next(iter(kwargs)))
def test_nothing_moves_on_bad_input(kwargs):
    model, batch, val_batch = made("resnet_batchnorm_training")
    before = snapshot(model, batch, val_batch)
    with pytest.raises((TypeError, ValueError)):
        fastrw.meta_weights(model, batch, val_batch, **kwargs)
    assert moved(before, snapshot(model, batch, val_batch)) == []


@pytest.mark.parametrize("method", METHODS)
def test_accumulation_hooks_stay_silent(method):
    """Optimizers that step inside the backward hang on these hooks: scoring must not step."""
    model, batch, val_batch = made("mlp")
    fired = []
    for p in model.parameters():
        p.register_post_accumulate_grad_hook(fired.append)
    fastrw.meta_weights(model, batch, val_batch, method=method)
    assert fired == []


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ("resnet_groupnorm", "resnet_batchnorm_training", "dropout", "spectral_norm_training"))
def test_a_graph_of_the_users_own_survives(name, method):
    """Losses computed before the call may be weighted and differentiated after it."""
    model, batch, val_batch = made(name, torch.float64)
    torch.manual_seed(0)
    losses = oracle.losses(model, batch)
    expected = torch.autograd.grad(losses.sum(), list(model.parameters()), retain_graph=True)
    try:
        fastrw.meta_weights(model, batch, val_batch, method=method)
    except fastrw.Refused:
        assert method != "auto"
    found = torch.autograd.grad(losses.sum(), list(model.parameters()))
    found, expected = (torch.cat([g.flatten() for g in side]) for side in (found, expected))
    assert relative_error(found, expected) <= SCORE_GOAL[torch.float64]


@pytest.mark.parametrize("method", METHODS)
def test_the_users_forward_draws_what_scoring_drew(method):
    """The dropout masks of the scores are those of the forward that follows."""
    (case,) = cases("dropout")
    model, batch, val_batch = case.make(torch.float64)
    torch.manual_seed(3)
    try:
        _, report = fastrw.meta_weights(model, batch, val_batch, method=method, return_report=True)
    except fastrw.Refused:
        assert method != "auto"
        return
    assert relative_error(report.losses, oracle.losses(model, batch)) <= SCORE_GOAL[torch.float64]


class Kept:
    """What autograd holds in place of a tensor it saved: dead when the graph is."""

    def __init__(self, tensor):
        self.tensor = tensor


MEMORY = (
    "mlp",
    "lenet",
    "resnet_groupnorm",
    "resnet_batchnorm_training",
    "transformer_by_hand",
    "default_sdpa",
    "vit",
    "lstm_batch_first",
    "mixture_of_experts_top1",
    "tied_embeddings",
    "weight_norm",
    "bare_einsum",
)


@pytest.mark.parametrize(("name", "method"), covering(product(MEMORY, METHODS)))
def test_no_graph_is_kept_alive(name, method):
    """Every tensor that a forward saved for a backward is let go, and without the help of the garbage collector."""
    model, batch, val_batch = made(name)
    alive = []

    def pack(tensor):
        kept = Kept(tensor.detach())  # an output with its graph would hold its own node
        alive.append(weakref.ref(kept))
        return kept

    gc.collect()
    gc.disable()
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor):
            fastrw.meta_weights(model, batch, val_batch, method=method)
    except fastrw.Refused:
        assert method != "auto"
    finally:
        gc.enable()
    assert alive or method != "auto"
    assert sum(ref() is not None for ref in alive) == 0


def live_tensors():
    gc.collect()
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())


@pytest.mark.parametrize(
    ("name", "method"), covering(product(("mlp", "resnet_batchnorm_training", "mixture_of_experts_top1"), METHODS))
)
def test_memory_is_flat(name, method):
    """As many tensors after many calls as after 3, and a model that is dropped is gone."""
    model, (x, y), val_batch = made(name)
    counts = []
    calls = some(range(50), 20)
    for step, _ in enumerate(calls):
        try:
            fastrw.meta_weights(model, (x + 0.01 * step, y), val_batch, method=method)
        except fastrw.Refused:
            assert method != "auto"
        if step in (2, len(calls) - 1):
            counts.append(live_tensors())
    assert counts[0] == counts[1]
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("method", METHODS)
def test_resident_memory_is_flat(method):
    """What Python cannot see: 25 calls that each record more than 8 MB leave less than five of them behind."""
    torch.manual_seed(0)
    model = Net(
        lambda net, x: net.layers(x).mean(1), layers=nn.Sequential(nn.Linear(8, 512), nn.Tanh(), nn.Linear(512, 4))
    )
    batch, val_batch = ((torch.randn(n, 256, 8), torch.arange(n) % 4) for n in (8, 4))

    def resident_after(calls):
        for _ in range(calls):
            fastrw.meta_weights(model, batch, val_batch, method=method)
        with open("/proc/self/statm") as pages:
            return int(pages.read().split()[1]) * resource.getpagesize()

    assert -resident_after(5) + resident_after(25) < 5 * 8e6
