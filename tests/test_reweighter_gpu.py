"""Reweighter on a GPU: exact against one gradient per example in float64 on the CPU, in every mode, without waiting.

Each test runs on a CPU too, so that what it asks is known to be right before a GPU is met."""

import copy
import warnings

import pytest
import torch
from torch import nn

import fastrw
from fastrw.ops.tolerance import SCORE_GOAL, bound, relative_error
from fastrw.testing import cases
from fastrw.testing.models import LanguageModel, Transformer, resnet
from tests import oracle

pytestmark = [
    pytest.mark.filterwarnings("ignore:fastrw. this model is scored by one backward pass"),
    pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype"),
]
EXACT = SCORE_GOAL[torch.float64]
MODES = {
    "assembled": {"update": "assembled"},
    "backward": {"update": "backward"},
    "last": {"params": "last"},
    "tangent": {"method": "tangent"},
}


@pytest.fixture(params=[pytest.param("cuda", marks=pytest.mark.gpu), "cpu"])
def device(request):
    return request.param


@pytest.fixture(params=["ieee", "tf32"])
def precision(request, float32_settings):
    """Of products and of convolutions in float32."""
    for setting in (torch.backends.cuda.matmul, torch.backends.cudnn.conv):
        setting.fp32_precision = request.param


def image_model(norm=None):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), *([norm(8)] if norm else []), nn.ReLU(), nn.Conv2d(8, 16, 3, 2)]
    return nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))


def batches(n=11, m=4):
    return [(torch.randn(k, 3, 8, 8), torch.randint(5, (k,))) for k in (n, m)]


def moved(batch, device, dtype=None):
    inputs, targets = batch
    return inputs.to(device, dtype if inputs.is_floating_point() else None), targets.to(device)


def truth(model, batch, val_batch, params=None):
    """Scores, weights and weighted gradient in float64 on the CPU."""
    model = copy.deepcopy(model).cpu().double()
    batch, val_batch = (moved(b, "cpu", torch.float64) for b in (batch, val_batch))
    s = oracle.scores(model, batch, val_batch, params=params)
    w = oracle.weights(s)
    g = oracle.gradient((w * oracle.losses(model, batch)).sum(), oracle.selected(model))
    return s, w, torch.cat([x.flatten() for x in g])


def gradient(model):
    return torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_exact_in_float64(device, mode):
    model, (batch, val_batch) = image_model(lambda c: nn.GroupNorm(2, c)), batches()
    options = MODES[mode]
    expected = truth(model, batch, val_batch, options.get("params"))
    model = model.to(device, torch.float64)
    step = fastrw.Reweighter(model, **options)
    for _ in range(3):
        model.zero_grad()
        out = step.backward(*(moved(b, device, torch.float64) for b in (batch, val_batch)))
        for found, right in zip((out.scores, out.weights, gradient(model)), expected, strict=True):
            assert relative_error(found.cpu(), right) <= EXACT


@pytest.mark.parametrize("norm", [None, nn.BatchNorm2d, lambda c: nn.GroupNorm(2, c)], ids=["none", "batch", "group"])
def test_float32_is_as_near_as_torch_is(device, norm, precision):
    model, (batch, val_batch) = image_model(norm), batches()
    s, *_ = truth(model, batch, val_batch)
    model, here = model.to(device), [moved(b, device) for b in (batch, val_batch)]
    method = "double_backward" if norm is nn.BatchNorm2d else "per_example"  # one example alone has other statistics
    plain = fastrw.gradient_dots(model, *here, method=method)
    step = fastrw.Reweighter(model)
    for _ in range(3):
        found = step.backward(*here).scores
        limit = max(SCORE_GOAL[torch.float32], bound(torch.float32, relative_error(plain.cpu(), s), 1))
        assert relative_error(found.cpu(), s) <= limit


MODELS = {
    "resnet": lambda: (resnet((3, 16, 16), 10, (8, 16), lambda c: nn.GroupNorm(4, c)), (3, 16, 16)),
    "transformer": lambda: (Transformer(32, 2, 4, 50), None),
}


@pytest.mark.parametrize("name", MODELS)
def test_bfloat16_autocast_is_as_near_as_torch_is(device, name):
    torch.manual_seed(0)
    model, shape = MODELS[name]()
    draw = (lambda n: torch.randn(n, *shape)) if shape else (lambda n: torch.randint(50, (n, 12)))
    batch, val_batch = ((draw(n), torch.randint(2, (n,))) for n in (9, 4))
    s, *_ = truth(model, batch, val_batch)
    model, here = model.to(device), [moved(b, device) for b in (batch, val_batch)]
    step = fastrw.Reweighter(model)
    with torch.autocast(device, torch.bfloat16):
        plain = fastrw.gradient_dots(model, *here, method="per_example")
        for _ in range(3):
            found = step.backward(*here).scores
    assert relative_error(found.cpu(), s) <= bound(torch.bfloat16, relative_error(plain.cpu(), s), 1)


@pytest.mark.parametrize("update", ["assembled", "backward"])
def test_a_grad_scaler_finds_scaled_gradients(device, update):
    model, (batch, val_batch) = image_model(), batches()
    *_, expected = truth(model, batch, val_batch)
    model = model.to(device, torch.float64)
    scaler = torch.amp.GradScaler(device, init_scale=1024.0)
    scaler.scale(torch.zeros((), device=device))  # it makes its factor at the first use
    step = fastrw.Reweighter(model, update=update, scaler=scaler)
    step.backward(*(moved(b, device, torch.float64) for b in (batch, val_batch)))
    assert relative_error(gradient(model).cpu() / 1024, expected) <= EXACT


def test_an_example_that_is_not_finite_adds_nothing(device):
    model, (batch, val_batch) = image_model(), batches()
    rest = [i for i in range(11) if i != 3]
    *_, expected = truth(model, tuple(t[rest] for t in batch), val_batch)
    batch[0][3, 0, 0, 0] = float("nan")
    model = model.to(device, torch.float64)
    out = fastrw.Reweighter(model).backward(*(moved(b, device, torch.float64) for b in (batch, val_batch)))
    assert out.weights[3] == 0 and int(out.nonfinite) == 1
    assert relative_error(gradient(model).cpu(), expected) <= EXACT


@pytest.mark.gpu
@pytest.mark.parametrize("update", ["assembled", "backward"])
def test_a_step_waits_for_nothing_from_the_third_on(update):
    """But for the standing check, which is due in the 4th and the 8th."""
    torch.manual_seed(0)
    model = LanguageModel(64, 2, 4, 100, 16).cuda()
    batch, val_batch = ((x, x) for x in (torch.randint(100, (n, 16), device="cuda") for n in (8, 4)))
    step = fastrw.Reweighter(model, update=update)
    for call in range(1, 8):
        torch.cuda.set_sync_debug_mode("error" if call in (3, 5, 6, 7) else "default")
        try:
            step.backward(batch, val_batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")


CASES = [case for case in cases() if not case.draws]  # a GPU draws other numbers than the CPU


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:LSTM with projections", "ignore:Using padding='same'")
@pytest.mark.parametrize("case", CASES[::6], ids=lambda case: case.name)
def test_the_zoo(case):
    """A sixth of it: a first step, which learns and is checked. tests/test_models_gpu.py has the scores of all."""
    model, batch, val_batch = case.make(torch.float64)
    s = oracle.scores(model, batch, val_batch, **case.kwargs)
    model, batch, val_batch = case.make(torch.float64, "cuda")
    step = fastrw.Reweighter(model, **case.kwargs)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "fastrw: this model is scored by one backward pass per example")
        assert relative_error(step.backward(batch, val_batch).scores.cpu(), s) <= EXACT
