"""Reweighter.backward leaves the gradient of Algorithm 1 in `.grad`: exact on every model of the zoo, in every mode."""

import copy
import math

import pytest
import torch
from torch import nn

import fastrw
from fastrw import testing
from fastrw.ops.tolerance import SCORE_GOAL
from tests import oracle

pytestmark = [
    pytest.mark.filterwarnings("ignore:fastrw. this model is scored by one backward pass"),
    pytest.mark.filterwarnings("ignore:Using padding='same'"),  # torch's own
]
EXACT = SCORE_GOAL[torch.float64]


def truth(model, batch, val_batch, kwargs):
    """Scores, weights and weighted gradients by one autograd.grad per example; nothing moves."""
    s = oracle.scores(model, batch, val_batch, **kwargs)
    saved = oracle.state(model)
    w = oracle.weights(s)
    losses = oracle.losses(model, batch, kwargs.get("loss_fn"), kwargs.get("losses_fn"))
    gradients = oracle.gradient((w * losses).sum(), oracle.selected(model))
    oracle.put_back(saved)
    return s, w, gradients


def error(found, expected):
    found, expected = (torch.cat([x.detach().double().flatten() for x in side]) for side in (found, expected))
    return ((found - expected).norm() / (expected.norm() or 1)).item()


def gradients(model):
    params = oracle.selected(model)
    return [torch.zeros_like(p) if p.grad is None else p.grad.to_dense() for p in params]


def exact_twice(model, batch, val_batch, kwargs):
    """Scores, weights and gradients of two steps: measured and checked, then from what was learned."""
    s, w, expected = truth(model, batch, val_batch, kwargs)
    step = fastrw.Reweighter(model, **kwargs)
    for _ in range(2):
        saved = oracle.state(model)
        model.zero_grad()
        out = step.backward(batch, val_batch)
        oracle.put_back(saved)
        assert error([out.scores], [s]) <= EXACT
        assert error([out.weights], [w]) <= EXACT
        assert error(gradients(model), expected) <= EXACT


@pytest.mark.parametrize("case", testing.cases(), ids=lambda case: case.name)
def test_the_zoo_is_exact_in_float64(case):
    model, batch, val_batch = case.make(torch.float64)
    exact_twice(model, batch, val_batch, dict(case.kwargs))


def small(norm=None, dtype=torch.float64, dropout=0.0):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3, padding=1), *([norm(6)] if norm else []), nn.ReLU(), nn.Dropout(dropout)]
    model = nn.Sequential(*layers, nn.AvgPool2d(2), nn.Flatten(), nn.Linear(96, 5)).to(dtype)
    return model, images(11, dtype), images(4, dtype)


def images(n, dtype=torch.float64):
    return torch.randn(n, 3, 8, 8, dtype=dtype), torch.randint(5, (n,))


@pytest.mark.quick
@pytest.mark.parametrize("update", ["assembled", "backward", "auto"])
@pytest.mark.parametrize("norm", [None, lambda c: nn.GroupNorm(2, c)], ids=["no norm", "group norm"])
def test_both_updates_are_exact(norm, update):
    model, batch, val_batch = small(norm)
    s, w, expected = truth(model, batch, val_batch, {})
    out = fastrw.Reweighter(model, update=update).backward(batch, val_batch)
    assert out.update == ("backward" if update == "backward" else "assembled")
    assert error([out.scores, out.weights], [s, w]) <= EXACT
    assert error(gradients(model), expected) <= EXACT
    assert error([out.val_loss], [oracle.losses(model, val_batch).mean()]) <= EXACT
    assert error([out.losses], [oracle.losses(model, batch)]) <= EXACT


def test_dropout_keeps_the_batches_apart_and_draws_as_a_plain_step():
    model, batch, val_batch = small(dropout=0.5)
    s, _, expected = truth(model, batch, val_batch, {})
    step = fastrw.Reweighter(model)
    saved = oracle.state(model)
    for _ in range(2):
        oracle.put_back(saved)
        model.zero_grad()
        out = step.backward(batch, val_batch)
        after = torch.get_rng_state()
        oracle.put_back(saved)
        oracle.losses(model, batch)
        assert torch.equal(after, torch.get_rng_state())
        assert error([out.scores], [s]) <= EXACT
        assert error(gradients(model), expected) <= EXACT


def test_the_training_forward_moves_running_statistics_once_and_validation_never():
    model, batch, val_batch = small(nn.BatchNorm2d)
    plain = copy.deepcopy(model)
    plain(batch[0])
    step = fastrw.Reweighter(model)
    out = step.backward(batch, val_batch)
    assert out.method == "tangent"
    assert error(model.buffers(), plain.buffers()) <= EXACT
    plain(batch[0])
    step.backward(batch, val_batch)
    assert error(model.buffers(), plain.buffers()) <= EXACT


@pytest.mark.parametrize("update", ["assembled", "backward"])
def test_gradients_are_added_and_never_wiped(update):
    model, batch, val_batch = small()
    *_, first = truth(model, batch, val_batch, {})
    other = images(7)
    *_, second = truth(model, other, val_batch, {})
    step = fastrw.Reweighter(model, update=update)
    step.backward(batch, val_batch)
    kept = [p.grad for p in model.parameters()]
    step.backward(other, val_batch)
    assert all(p.grad is g for p, g in zip(model.parameters(), kept, strict=True))
    assert error(gradients(model), [x + y for x, y in zip(first, second, strict=True)]) <= EXACT


@pytest.mark.parametrize("what", ["input", "loss"])
@pytest.mark.parametrize("update", ["assembled", "backward"])
def test_an_example_that_is_not_finite_adds_nothing(update, what):
    model, batch, val_batch = small()
    keep = [i for i in range(11) if i != 3]

    def losses_fn(model, batch):
        x, y = batch
        losses = nn.functional.cross_entropy(model(x), y, reduction="none")
        return losses + torch.where(x[:, 0, 0, 0] == 7, math.inf, 0.0) if what == "loss" else losses

    s, w, expected = truth(model, tuple(x[keep] for x in batch), val_batch, {"losses_fn": losses_fn})
    batch[0][3] = 7.0 if what == "loss" else math.nan
    step = fastrw.Reweighter(model, update=update, losses_fn=losses_fn)
    step.backward(tuple(x[keep] for x in batch), val_batch)
    for _ in range(2):
        model.zero_grad()
        out = step.backward(batch, val_batch)
        assert out.nonfinite == 1
        assert out.weights[3] == 0
        assert error([out.scores[keep], out.weights[keep]], [s, w]) <= EXACT
        assert error(gradients(model), expected) <= EXACT


@pytest.mark.parametrize("update", ["assembled", "backward"])
def test_a_batch_with_no_finite_example_adds_nothing(update):
    model, batch, val_batch = small()
    step = fastrw.Reweighter(model, update=update)
    step.backward(batch, val_batch)
    before = [p.grad.clone() for p in model.parameters()]
    out = step.backward((batch[0] * math.nan, batch[1]), val_batch)
    assert not out.weights.any()
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("case", testing.cases(), ids=lambda case: case.name)
def test_a_few_parameters_score_and_all_are_trained(case):
    model, batch, val_batch = case.make(torch.float64)
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    kwargs = {"params": names[len(case.name) % len(names)]} | dict(case.kwargs)
    exact_twice(model, batch, val_batch, kwargs)


def test_weights_of_the_last_layer_are_known_before_the_others_are_summed():
    model, batch, val_batch = small(lambda c: nn.GroupNorm(2, c))
    step = fastrw.Reweighter(model, params="last")
    for rows in (11, 11, 7):
        part = tuple(x[:rows] for x in batch)
        s, w, expected = truth(model, part, val_batch, {"params": "last"})
        model.zero_grad()
        out = step.backward(part, val_batch)
        assert (out.method, out.update) == ("layerwise", "assembled")
        assert error([out.scores, out.weights], [s, w]) <= EXACT
        assert error(gradients(model), expected) <= EXACT


def test_last_layer_scores_and_the_gradient_of_everything():
    model, batch, val_batch = small(nn.BatchNorm2d)
    s, _, expected = truth(model, batch, val_batch, {"params": "last"})
    saved = oracle.state(model)
    out = fastrw.Reweighter(model, params="last").backward(batch, val_batch)
    oracle.put_back(saved)
    assert (out.method, out.update) == ("layerwise", "backward")
    assert error([out.scores], [s]) <= EXACT
    assert error(gradients(model), expected) <= EXACT


def test_every_third_call_is_reweighted_and_the_others_are_plain():
    model, batch, val_batch = small()
    step = fastrw.Reweighter(model, every=3)
    found = [step.backward(batch, val_batch).method for _ in range(5)]
    assert found == ["layerwise", "plain", "plain", "layerwise", "plain"]
    resumed = fastrw.Reweighter(model, every=3)
    resumed.load_state_dict(step.state_dict())
    model.zero_grad()
    out = resumed.backward(batch, None)  # a plain step asks for no validation batch
    assert out.method == "plain"
    assert error([out.weights], [torch.full((11,), 1 / 11)]) <= 1e-7
    expected = oracle.gradient(oracle.losses(model, batch).mean(), oracle.selected(model))
    assert error(gradients(model), expected) <= EXACT
    assert resumed.backward(batch, val_batch).method == "layerwise"


@pytest.mark.parametrize("update", ["assembled", "backward"])
def test_a_grad_scaler_finds_what_it_expects(update):
    model, batch, val_batch = small(dtype=torch.float32)
    *_, expected = truth(model, batch, val_batch, {})
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = [p.detach().clone() for p in model.parameters()]
    out = fastrw.Reweighter(model, update=update, scaler=scaler).backward(batch, val_batch)
    assert error([out.weights.sum()], [torch.ones(())]) <= 1e-6
    scaler.step(optimizer)
    scaler.update()
    moved = [(x - p.detach()) / 0.1 for x, p in zip(before, model.parameters(), strict=True)]
    assert error(moved, expected) <= SCORE_GOAL[torch.float32]


@pytest.mark.parametrize("update", ["assembled", "backward"])
def test_autocast_is_near_the_float32_step(update):
    model, batch, val_batch = small(dtype=torch.float32)
    *_, expected = truth(model, batch, val_batch, {})
    with torch.autocast("cpu", torch.bfloat16):
        fastrw.Reweighter(model, update=update).backward(batch, val_batch)
        plain = [torch.zeros_like(g) for g in expected]
        w = oracle.weights(oracle.scores(model, batch, val_batch))
        losses = oracle.losses(model, batch)
    for i, g in enumerate(oracle.gradient((w * losses).sum(), oracle.selected(model))):
        plain[i] += g
    assert error(gradients(model), expected) <= 2 * error(plain, expected) + torch.finfo(torch.bfloat16).eps


@pytest.mark.parametrize("update", ["assembled", "backward"])
def test_a_call_that_raises_leaves_everything_as_it_was(update):
    model, batch, val_batch = small(nn.BatchNorm2d if update == "backward" else None)
    step = fastrw.Reweighter(model, update=update)
    step.backward(batch, val_batch)
    tensors = [*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters())]
    before, state = [x.detach().clone() for x in tensors], torch.get_rng_state()
    with pytest.raises((IndexError, ValueError)):
        step.backward((batch[0], batch[1] + 100), val_batch)
    assert all(torch.equal(x, y) for x, y in zip(tensors, before, strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert step.steps == 1


def test_weights_alone_move_nothing():
    model, batch, val_batch = small(nn.BatchNorm2d)
    before = [x.clone() for x in model.buffers()]
    w = fastrw.Reweighter(model).weights(batch, val_batch)
    assert error([w], [fastrw.meta_weights(model, batch, val_batch)]) <= EXACT
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(x, y) for x, y in zip(model.buffers(), before, strict=True))


def test_a_timeline_on_request():
    model, batch, val_batch = small()
    assert fastrw.Reweighter(model).backward(batch, val_batch).timeline is None
    out = fastrw.Reweighter(model, timeline=True).backward(batch, val_batch)
    assert [phase for phase, _ in out.timeline] == ["forward", "backward", "update"]
    assert all(seconds >= 0 for _, seconds in out.timeline)
    assert out.peak_memory > 0


BAD = [
    ({"update": "both"}, "update must be one of auto, assembled, backward, got 'both'"),
    ({"normalize": None}, 'normalize must be "rectify" or "shift", got None'),
    ({"every": 0}, "every must be an integer of 1 or more, got 0"),
    ({"every": True}, "every must be an integer of 1 or more, got True"),
    ({"method": "eager"}, "method must be one of auto, layerwise, tangent, double_backward, per_example, got 'eager'"),
    (
        {"update": "assembled", "method": "tangent"},
        'update="assembled" needs method="auto" or "layerwise", got \'tangent\'',
    ),
]


@pytest.mark.parametrize(("kwargs", "words"), BAD, ids=[words for _, words in BAD])
def test_bad_options_say_the_rule(kwargs, words):
    with pytest.raises(ValueError) as caught:
        fastrw.Reweighter(nn.Linear(2, 2), **kwargs)
    assert str(caught.value) == f"fastrw.Reweighter: {words}"


def test_a_coupled_model_refuses_to_be_assembled():
    model, batch, val_batch = small(nn.BatchNorm2d)
    with pytest.raises(fastrw.CoupledExamples):
        fastrw.Reweighter(model, update="assembled").backward(batch, val_batch)
    assert all(p.grad is None for p in model.parameters())


def test_a_bad_state_says_the_rule():
    with pytest.raises(ValueError, match=r"fastrw.Reweighter: a state must hold its number of steps, got \{\}"):
        fastrw.Reweighter(nn.Linear(2, 2)).load_state_dict({})


def test_a_refusal_is_learned_once_and_said_again_in_its_own_words():
    model, batch, val_batch = small(nn.BatchNorm2d)
    step = fastrw.Reweighter(model, update="assembled")
    said = []
    for _ in range(2):
        with pytest.raises(fastrw.CoupledExamples) as caught:
            step.backward(batch, val_batch)
        said.append(str(caught.value))
    assert said[0] == said[1]


class Halved(torch.autograd.Function):
    """A custom operation, which no recording sees."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x * weight

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        return g * weight, (g * x).sum(0)


class Hidden(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.runs = nn.Parameter(torch.ones(3, dtype=torch.float64)), 0

    def forward(self, x):
        self.runs += 1
        return Halved.apply(x, self.weight)


def test_a_model_that_cannot_be_assembled_is_not_tried_at_every_step():
    model, batch = Hidden(), (torch.randn(6, 3, dtype=torch.float64), torch.randint(3, (6,)))
    step = fastrw.Reweighter(model, method="auto")
    runs = []
    for _ in range(3):
        before = model.runs
        step.backward(batch, batch)
        runs.append(model.runs - before)
    assert runs[2] <= runs[0] and runs[1] == runs[2]


def test_gradients_that_appear_later_are_assembled_after_all():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    batch = torch.randn(9, 4, dtype=torch.float64), torch.randint(2, (9,))
    with torch.no_grad():
        model[0].bias.fill_(-100.0)  # no unit is awake: no gradient tells whose row is whose
    step = fastrw.Reweighter(model)
    step.backward(batch, batch)
    with torch.no_grad():
        model[0].bias.zero_()
    found = []
    for _ in range(3):
        s, _, expected = truth(model, batch, batch, {})
        model.zero_grad()
        out = step.backward(batch, batch)
        assert error([out.scores], [s]) <= EXACT
        assert error(gradients(model), expected) <= EXACT
        found.append(out.update)
    assert found[-1] == "assembled"


@pytest.mark.parametrize("update", ["assembled", "backward"])
def test_a_validation_example_that_is_not_finite_leaves_nothing_to_compare_with(update):
    model, batch, val_batch = small()
    step = fastrw.Reweighter(model, update=update)
    val_batch[0][1] = math.nan
    for _ in range(2):
        out = step.backward(batch, val_batch)
        assert not out.weights.any()
        assert out.val_loss.isnan()
        assert not any(g.any() for g in gradients(model))
