"""Other numbers and other strides: bfloat16 autocast, channels last, views that are not contiguous, doubled models.

Under autocast the truth is float64 without it, and the bound is what one gradient per example gets there: twice its
error, and the rounding of one more bfloat16 number, since every method rounds its products in another place.
"""

import warnings

import pytest
import torch
from torch import nn

import fastrw
from fastrw.nodes import linear
from fastrw.ops.tolerance import SCORE_GOAL, bound, relative_error
from fastrw.testing import cases
from tests import oracle
from tests.tiers import some

METHODS = ("auto", "layerwise", "tangent", "double_backward", "per_example")
NAMES = ("mlp", "lenet", "resnet_groupnorm", "resnet_batchnorm_training", "resnet_batchnorm_eval", "vit",
         "transformer_by_hand", "default_sdpa", "encoder_batch_first", "encoder_sequence_first", "tied_embeddings",
         "layer_used_twice", "hf_conv1d", "weight_norm", "in_place_relu_and_residual", "bare_matmul", "bare_scale",
         "bare_einsum", "layer_norm", "rms_norm", "gru_batch_first", "centred_by_hand")  # fmt: skip


def named(name):
    (case,) = cases(name)
    return case


def autocast():
    return torch.autocast("cpu", torch.bfloat16)


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")  # torch's own, of rms_norm
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_autocast(name, method):
    case = named(name)
    truth = oracle.scores(*case.make(torch.float64), **case.kwargs)
    model, batch, val_batch = case.make()
    with autocast():
        plain = oracle.scores(model, batch, val_batch, **case.kwargs)
        try:
            s = fastrw.gradient_dots(model, batch, val_batch, **case.kwargs, method=method)
        except fastrw.Refused:
            if method == "auto":
                raise
            return
    assert s.dtype == torch.float32
    assert relative_error(s, truth) <= bound(torch.bfloat16, relative_error(plain, truth), 1)


def looped(model, batch):
    """The user's own autocast, around the forward only; a loss that goes from example to example."""
    with autocast():
        return oracle.losses(model, batch)


def at_once(model, batch):
    with autocast():
        return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")


@pytest.mark.filterwarnings("ignore:TF32 acceleration on top of oneDNN")  # torch's own, of putting the flags back
@pytest.mark.parametrize("onednn", (True, False))  # without it products are rounded as on CPUs that lack bfloat16
@pytest.mark.parametrize("losses_fn", (looped, at_once))
@pytest.mark.parametrize("name", ("mlp", "lenet", "vit", "resnet_groupnorm", "resnet_batchnorm_training"))
def test_autocast_inside_the_loss(name, losses_fn, onednn):
    """Scores and step are served by a fast method: what half precision rounds is not taken for a wrong rule."""
    case = named(name)
    truth = oracle.scores(*case.make(torch.float64))
    model, batch, val_batch = case.make()
    with torch.backends.mkldnn.flags(enabled=onednn):
        plain = oracle.scores(model, batch, val_batch, losses_fn=losses_fn)
        s, report = fastrw.gradient_dots(model, batch, val_batch, losses_fn=losses_fn, return_report=True)
        step = fastrw.Reweighter(model, losses_fn=losses_fn).backward(batch, val_batch)
    met = name == "resnet_batchnorm_training"
    assert report.method == step.method == ("tangent" if met else "layerwise"), report.refused
    for found in (s, step.scores):
        assert relative_error(found, truth) <= bound(torch.bfloat16, relative_error(plain, truth), 1)


@pytest.mark.parametrize("name", some(("mlp", "lenet"), 1))
def test_verify_knows_of_autocast_inside_the_loss(name):
    model, batch, val_batch = named(name).make()
    assert fastrw.verify(model, batch, val_batch, losses_fn=at_once).ok


@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float16))
def test_what_is_wrong_is_refused_in_half_precision_too(dtype, monkeypatch):
    def losses_fn(model, batch):
        with torch.autocast("cpu", dtype):
            return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    score = linear.Linear.score
    monkeypatch.setattr(linear.Linear, "score", lambda part, V: score(part, V).roll(1))
    with pytest.raises(fastrw.Refused, match="scores must equal one gradient per example"):
        fastrw.gradient_dots(*named("lenet").make(), losses_fn=losses_fn, method="layerwise")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ("lenet", "resnet_groupnorm", "resnet_batchnorm_training", "conv2d_depthwise", "vit"))
@pytest.mark.parametrize("part", ("model", "batch", "both"))
def test_channels_last(name, part, method):
    model, (x, y), (x_val, y_val) = named(name).make(torch.float64)
    s = oracle.scores(model, (x, y), (x_val, y_val))
    if part != "batch":
        model = model.to(memory_format=torch.channels_last)
    if part != "model":
        x, x_val = (t.to(memory_format=torch.channels_last) for t in (x, x_val))
    try:
        found = fastrw.gradient_dots(model, (x, y), (x_val, y_val), method=method)
    except fastrw.Refused:
        assert (name, method) in (("resnet_batchnorm_training", "layerwise"), ("vit", "double_backward"))
        return
    assert relative_error(found, s) <= SCORE_GOAL[torch.float64]


def strided(t):
    """The same values, every other element of a larger tensor, its dimensions stored in reverse."""
    if not t.is_floating_point():
        return torch.stack([t, t], -1)[..., 0]
    reverse = tuple(range(t.ndim))[::-1]
    return torch.stack([t.permute(reverse).contiguous()] * 2, -1)[..., 0].permute(reverse)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "name", ("mlp", "lenet", "layer_norm", "bare_matmul", "recurrence_by_hand", "embedding_with_padding")
)
def test_inputs_that_are_not_contiguous(name, method):
    model, (x, y), (x_val, y_val) = named(name).make(torch.float64)
    s = oracle.scores(model, (x, y), (x_val, y_val))
    batch, val_batch = (strided(x), strided(y)), (strided(x_val), strided(y_val))
    assert not batch[0].is_contiguous() and torch.equal(batch[0], x)
    assert relative_error(fastrw.gradient_dots(model, batch, val_batch, method=method), s) <= SCORE_GOAL[torch.float64]


@pytest.mark.parametrize("method", METHODS)
def test_parameters_that_are_not_contiguous(method):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)).double()
    for layer in (model[0], model[2]):
        layer.weight = nn.Parameter(layer.weight.detach().t().contiguous().t())
    batch, val_batch = ((torch.randn(n, 6).double(), torch.arange(n) % 4) for n in (8, 3))
    s = oracle.scores(model, batch, val_batch)
    assert relative_error(fastrw.gradient_dots(model, batch, val_batch, method=method), s) <= SCORE_GOAL[torch.float64]


@pytest.mark.parametrize("method", METHODS)
def test_inputs_that_are_expanded(method):
    """One example n times over, by stride 0."""
    model, (x, y), val_batch = named("lenet").make(torch.float64)
    batch = (x[:1].expand(5, -1, -1, -1), y[:1].expand(5))
    s = oracle.scores(model, batch, val_batch)
    assert relative_error(fastrw.gradient_dots(model, batch, val_batch, method=method), s) <= SCORE_GOAL[torch.float64]


@pytest.mark.parametrize("method", METHODS)
def test_inputs_that_require_grad(method):
    """Adversarial training keeps a gradient on its inputs: it must not be touched."""
    model, (x, y), val_batch = named("mlp").make(torch.float64)
    s = oracle.scores(model, (x, y), val_batch)
    x.requires_grad_()
    assert relative_error(fastrw.gradient_dots(model, (x, y), val_batch, method=method), s) <= SCORE_GOAL[torch.float64]
    assert x.grad is None and x.requires_grad


@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float16))
def test_models_in_half_precision(dtype):
    """A model that is half precision throughout has float32 scores."""
    case = named("mlp")
    truth = oracle.scores(*case.make(torch.float64))
    model, batch, val_batch = case.make(dtype)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "fastrw: this model is scored by one backward pass per example")
        s = fastrw.gradient_dots(model, batch, val_batch)
    plain = oracle.scores(model, batch, val_batch)
    assert s.dtype == torch.float32
    assert relative_error(s, truth) <= bound(dtype, relative_error(plain, truth), 1)


def test_score_dtype_is_the_users_choice():
    """bfloat16 score products: close, not exact, and only when asked for."""
    case = named("mlp")
    model, batch, val_batch = case.make()
    truth = oracle.scores(*case.make(torch.float64))
    s = fastrw.gradient_dots(model, batch, val_batch, score_dtype=torch.bfloat16)
    assert relative_error(s, truth) <= bound(torch.bfloat16, 0.0, 1)
    assert relative_error(fastrw.gradient_dots(model, batch, val_batch), truth) <= SCORE_GOAL[torch.float32]
