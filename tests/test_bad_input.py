"""What a user can get wrong, and what they are told: the rule, and what was got."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fastrw
from fastrw.ops.tolerance import SCORE_GOAL, bound, relative_error
from fastrw.testing import cases
from tests import oracle

METHODS = ("auto", "layerwise", "tangent", "double_backward", "per_example")


def problem(name="mlp", dtype=torch.float32):
    (case,) = cases(name)
    return case.make(dtype)


def told(error, *words, model=None, batch=None, val_batch=None, **kwargs):
    """meta_weights raises `error`, says who speaks, and says each of the words."""
    default = problem()
    model, batch, val_batch = (
        a if a is not None else b for a, b in zip((model, batch, val_batch), default, strict=True)
    )
    with pytest.raises(error) as caught:
        fastrw.meta_weights(model, batch, val_batch, **kwargs)
    text = str(caught.value)
    assert text.startswith("fastrw."), text
    for word in words:
        assert word in text, text


def test_scalar_loss():
    told(ValueError, 'reduction="none"', "got a scalar", loss_fn=F.cross_entropy)
    told(
        ValueError,
        'reduction="none"',
        "got a scalar",
        losses_fn=lambda model, batch: oracle.losses(model, batch).mean(),
    )


def test_losses_that_are_not_n():
    told(ValueError, "[n]", ", 1)", loss_fn=lambda output, target: output[:, :1])
    told(ValueError, "[n]", ", 4)", loss_fn=lambda output, target: output)
    told(ValueError, "[n]", "(3,)", loss_fn=lambda output, target: output[:3, 0])


def test_losses_of_the_wrong_kind():
    told(TypeError, "tensor", "list", loss_fn=lambda output, target: [1.0])
    told(TypeError, "floating", "int64", loss_fn=lambda output, target: target)
    told(ValueError, "depend on a parameter", loss_fn=lambda output, target: output[:, 0].detach())


def test_another_device():
    x, y = problem()[1]
    told(ValueError, "device", "meta", batch=(x.to("meta"), y))
    told(ValueError, "device", "meta", batch=(x, y.to("meta")))
    told(ValueError, "val_batch", "device", "meta", val_batch=(x.to("meta"), y))


@pytest.mark.parametrize("name", ("batch", "val_batch"))
def test_empty_batch(name):
    told(ValueError, name, "at least one example", "got 0", **{name: (torch.randn(0, 6), torch.randint(0, 4, (0,)))})


def test_targets_of_another_length():
    x, y = problem()[1]
    told(ValueError, "(9, 4)", "(8,)", batch=(x, y[:8]))


@pytest.mark.parametrize("bad", (3.0, torch.zeros(3), (torch.zeros(3),), (1, 2, 3)))
def test_batch_that_is_no_pair(bad):
    told(TypeError, "(inputs, targets)", batch=bad)


def test_mapping_without_labels():
    told(ValueError, "labels", "input_ids", batch={"input_ids": torch.zeros(3)})


def test_unknown_parameters():
    told(ValueError, "params", "'head.*'", params="head.*")
    told(ValueError, "params", "'head.*'", params=["0.weight", "head.*"])
    told(ValueError, "params", "(3,)", params=[nn.Parameter(torch.zeros(3))])
    told(ValueError, "params", params=[])
    told(TypeError, "params", "int", params=3)
    told(TypeError, "params", "int", params=[3])


def test_nothing_to_train():
    told(ValueError, "requires grad", model=problem()[0].requires_grad_(False))
    told(ValueError, "requires grad", model=nn.Flatten())
    model = problem()[0]
    model[0].weight.requires_grad_(False)
    told(ValueError, "require grad", "0.weight", model=model, params="0.weight")


def test_lazy_parameters():
    told(ValueError, "lazy", "0.weight", model=nn.Sequential(nn.LazyLinear(4)))


def test_unknown_words():
    told(ValueError, "method", "layerwise", "'fast'", method="fast")
    told(ValueError, "backend", "reference", "'gpu'", backend="gpu")
    told(ValueError, "normalize", "rectify", "'softmax'", normalize="softmax")
    told(ValueError, "score_dtype", "torch.int32", score_dtype=torch.int32)


def test_not_a_model():
    told(TypeError, "torch.nn.Module", "function", model=lambda x: x)


def test_two_losses():
    told(ValueError, "loss_fn", "losses_fn", "both", loss_fn=oracle.default_loss, losses_fn=oracle.losses)
    told(TypeError, "loss_fn", "callable", "str", loss_fn="cross_entropy")


def test_inference_mode():
    with torch.inference_mode():
        told(ValueError, "inference_mode")


def test_no_grad_does_not_matter():
    model, batch, val_batch = problem(dtype=torch.float64)
    with torch.no_grad():
        s = fastrw.gradient_dots(model, batch, val_batch)
        assert not torch.is_grad_enabled()
    assert relative_error(s, oracle.scores(model, batch, val_batch)) <= SCORE_GOAL[torch.float64]


def test_backend_that_cannot_serve():
    with pytest.raises(ValueError, match="cuda"):
        fastrw.meta_weights(*problem(), method="layerwise", backend="cuda")


def test_method_that_cannot_serve():
    for name, method, error in (
        ("resnet_batchnorm_training", "layerwise", fastrw.CoupledExamples),
        ("contrastive_loss", "layerwise", fastrw.CoupledExamples),
        ("parameter_hook_scales", "layerwise", fastrw.UntracedUse),
        ("custom_function_once", "tangent", fastrw.Refused),
        ("ctc_loss", "double_backward", fastrw.Refused),
    ):
        (case,) = cases(name)
        with pytest.raises(error, match=r"^fastrw") as caught:
            fastrw.meta_weights(*case.make(), **case.kwargs, method=method)
        assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("method", METHODS)
def test_a_forward_that_changes_a_parameter(method):
    """max_norm shrinks rows of the table in place: it is put back and the scores are exact, or the call says no."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(11, 5, max_norm=1.5), nn.Tanh(), nn.Flatten(), nn.Linear(15, 4)).double()
    batch, val_batch = ((torch.randint(0, 11, (n, 3)), torch.arange(n) % 4) for n in (8, 3))
    s, before = oracle.scores(model, batch, val_batch), model[0].weight.detach().clone()
    try:
        found = fastrw.gradient_dots(model, batch, val_batch, method=method)
    except ValueError as error:
        assert "0.weight" in str(error)
    else:
        assert relative_error(found, s) <= SCORE_GOAL[torch.float64]
    assert torch.equal(before, model[0].weight)


@pytest.mark.parametrize("word", ("gradient_dots", "explain"))
def test_other_words_say_their_own_name(word):
    model, batch, val_batch = problem()
    with pytest.raises(ValueError, match=f"^fastrw.{word}: "):
        getattr(fastrw, word)(model, batch, val_batch, loss_fn=F.cross_entropy)


OTHERS = torch.arange(9) != 2


def check_only_the_third_is_masked(method, batch, val_batch, truth, **kwargs):
    """It weighs nothing, and the others weigh what they would without it.

    The methods that sum over the batch inside a backward (0 times nan is nan) may lose the others too, never bend them.
    """
    model = problem()[0]
    w, report = fastrw.meta_weights(model, batch, val_batch, method=method, return_report=True, **kwargs)
    finite = report.scores[OTHERS].isfinite()
    assert not report.scores[2].isfinite() and w[2] == 0 and w.isfinite().all()
    assert int(report.nonfinite) == 9 - int(finite.sum())
    assert finite.all() or method in ("double_backward", "per_example")
    assert relative_error(report.scores[OTHERS][finite], truth[finite]) <= SCORE_GOAL[torch.float32]
    rest = oracle.weights(report.scores[OTHERS][finite])
    assert relative_error(w[OTHERS][finite], rest) <= bound(torch.float32, 0.0, 9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", (float("nan"), float("inf")))
def test_an_example_that_is_not_finite(value, method):
    model, (x, y), val_batch = problem()
    truth = oracle.scores(model, (x[OTHERS], y[OTHERS]), val_batch)
    x[2] = value
    check_only_the_third_is_masked(method, (x, y), val_batch, truth)


@pytest.mark.parametrize("method", METHODS)
def test_a_gradient_that_is_not_finite(method):
    """A finite loss, but the root's slope at 0 is not."""

    def root(output, target):
        return (output[:, 0].abs() * (target < 4)).sqrt()

    model, (x, y), val_batch = problem()
    truth = oracle.scores(model, (x[OTHERS], y[OTHERS]), val_batch, loss_fn=root)
    y[2] = 4
    check_only_the_third_is_masked(method, (x, y), val_batch, truth, loss_fn=root)


@pytest.mark.parametrize("method", ("auto", "tangent", "double_backward", "per_example"))
def test_batchnorm_spreads_what_is_not_finite(method):
    """All examples meet the bad one: all weigh nothing, and no error is raised for it."""
    model, (x, y), val_batch = problem("batchnorm1d")
    x[2] = float("nan")
    w, report = fastrw.meta_weights(model, (x, y), val_batch, method=method, return_report=True)
    assert w.tolist() == [0.0] * 9 and int(report.nonfinite) == 9


def test_a_validation_batch_that_is_not_finite():
    model, batch, (x, y) = problem()
    x[1] = float("nan")
    w, report = fastrw.meta_weights(model, batch, (x, y), return_report=True)
    assert w.tolist() == [0.0] * 9 and int(report.nonfinite) == 9
