"""Reweighter(capture=True): a step recorded once and repeated gives what a step gives, or is refused with the reason.

Without a GPU a stand-in records operations and runs them again on the same memory, as a graph does."""

import pytest
import torch
from torch import nn

import fastrw
from fastrw.api import capture
from fastrw.ops.tolerance import SCORE_GOAL, relative_error
from tests.captured import FORMS, assert_same_model, assert_same_step, both, graphs, model_and_batches
from tests.deciding import Gated, Routed
from tests.tape import Tape


@pytest.fixture(params=[pytest.param("cuda", marks=pytest.mark.gpu), "cpu"])
def device(request):
    if request.param == "cpu":
        request.getfixturevalue("by_hand")
    return request.param


@pytest.mark.quick
@pytest.mark.parametrize(("form", "gathers"), [*((form, False) for form in FORMS), ("batch norm", True)])
def test_a_repeated_step_is_the_step(device, form, gathers):
    norm, options = FORMS[form]
    model, batches = model_and_batches(device, *[(9, 4)] * 9, dtype=torch.float64, norm=norm)
    ways = both(model, **options)
    kept = []
    for i, (batch, val_batch) in enumerate(batches):
        outs = []
        for _, step, optimizer in ways:
            if not gathers or i % 2 == 0:
                optimizer.zero_grad()
            outs.append(step.backward(batch, val_batch, scale=0.25 if gathers else 1.0))
            optimizer.step()
        kept.append(outs)
    for outs in kept:  # kept results do not change when the graph runs again
        assert_same_step(*outs)
    assert_same_model(model, ways[1][0])
    assert len(graphs(ways[0][1])) == 1 + ("every" in options)


@pytest.mark.parametrize("form", ["assembled", "batch norm", "batch norm, backward"])
def test_replays_run_no_python(by_hand, monkeypatch, form):
    calls, forward = [], nn.Conv2d.forward
    monkeypatch.setattr(nn.Conv2d, "forward", lambda module, x: calls.append(len(x)) or forward(module, x))
    norm, options = FORMS[form]
    model, batches = model_and_batches("cpu", *[(9, 4)] * 6, norm=norm)
    step = fastrw.Reweighter(model, capture=True, **options)
    for k, batch in enumerate(batches):
        calls.clear()
        step.backward(*batch)
        assert bool(calls) == (k <= capture.WARMUP_STEPS)


@pytest.mark.parametrize("update", ["auto", "backward"])
def test_a_scalers_factor_is_read_when_a_step_is_repeated(by_hand, update):
    model, batches = model_and_batches("cpu", *[(9, 4)] * 8, dtype=torch.float64, norm="batch")
    scalers = [torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=2) for _ in range(2)]
    ways = both(model, update=update)
    for (_, step, _), scaler in zip(ways, scalers, strict=True):
        step._scaler = scaler
    factors = set()
    for batch in batches:
        outs = []
        for (_, step, optimizer), scaler in zip(ways, scalers, strict=True):
            optimizer.zero_grad()
            outs.append(step.backward(*batch))
            scaler.step(optimizer)
            scaler.update()
        assert_same_step(*outs)
        factors.add(scalers[0].get_scale())
    assert len(factors) > 3
    assert len(graphs(ways[0][1])) == 1
    assert_same_model(model, ways[1][0])


SPOILT = {"a training example": (0, 2), "a validation example": (1, 3)}


@pytest.mark.quick
@pytest.mark.parametrize("which", SPOILT)
@pytest.mark.parametrize("form", ["assembled", "backward", "tangent"])
def test_a_batch_that_is_not_finite_is_left_out_at_a_replay_too(device, form, which):
    norm, options = FORMS[form]
    model, batches = model_and_batches(device, *[(9, 4)] * 8, dtype=torch.float64, norm=norm)
    ways = both(model, **options)
    b, i = SPOILT[which]
    for k, batch in enumerate(batches):
        if k in (4, 6):
            batch[b][0][i] = torch.inf
        outs = []
        for _, step, optimizer in ways:
            optimizer.zero_grad()
            outs.append(step.backward(*batch))
            optimizer.step()
        assert_same_step(*outs)
        assert_same_model(model, ways[1][0])


@pytest.mark.parametrize("update", ["auto", "backward"])
def test_where_an_example_spoils_all_nothing_is_added_at_a_replay(by_hand, update):
    model, batches = model_and_batches("cpu", *[(9, 4)] * 9, dtype=torch.float64, norm="batch")
    ways = both(model, update=update)
    for k, batch in enumerate(batches):
        if k == 4:
            batch[0][0][2] = torch.inf  # every statistic is nan
        outs = []
        for _, step, optimizer in ways:
            optimizer.zero_grad()
            outs.append(step.backward(*batch))
            optimizer.step()
        if k != 4:
            continue
        assert_same_step(*outs)
        assert not outs[0].weights.any()
        with torch.no_grad():  # as after a step that was left out
            for m, *_ in ways:
                m[1].reset_running_stats()
    assert_same_model(model, ways[1][0])
    assert len(graphs(ways[0][1])) == 1


def test_what_fails_at_a_replay_leaves_everything(by_hand, monkeypatch):
    model, batches = model_and_batches("cpu", *[(9, 4)] * 6, norm="batch")
    step = fastrw.Reweighter(model, capture=True)
    for batch in batches[:-1]:
        step.backward(*batch)
    before = [t.clone() for t in (*model.buffers(), *(p.grad for p in model.parameters()))]

    def fails(tensors):
        raise torch.OutOfMemoryError("none left")

    monkeypatch.setattr(capture, "copies", fails)
    with pytest.raises(torch.OutOfMemoryError):
        step.backward(*batches[-1])
    after = [*model.buffers(), *(p.grad for p in model.parameters())]
    assert all(map(torch.equal, before, after))


@pytest.mark.quick
@pytest.mark.parametrize("name", ["gated", "routed"])
def test_what_was_learned_of_other_numbers_is_not_used(by_hand, name):
    """A gate that opens; indices that differ: the step is not right, runs eagerly, and is recorded again."""
    torch.manual_seed(0)
    model = (Gated if name == "gated" else Routed)().double()
    ways = both(model)
    for k in range(24):
        batch, val_batch = [(torch.randn(n, 4).double(), torch.randint(5, (n,))) for n in (6, 4)]
        for x, _ in (batch, val_batch):
            x[:, 0] = torch.arange(len(x))
            if k >= 5 and name == "routed":  # another order, which lasts
                x[:, 0] = x[:, 0].flip(0)
        outs = []
        for m, step, optimizer in ways:
            optimizer.zero_grad()
            outs.append(step.backward(batch, val_batch))
            if k >= 5:
                optimizer.step()
            elif name == "gated":
                m.gate.grad.zero_()
        assert_same_step(*outs)
        assert_same_model(model, ways[1][0])
    assert Tape.made == 2
    assert len(graphs(ways[0][1])) == 1


def test_another_shape_mode_or_precision_is_another_graph(by_hand, float32_settings):
    model, batches = model_and_batches("cpu", *[(9, 4), (6, 4)] * 5)
    step = fastrw.Reweighter(model, capture=True)
    for batch, val_batch in batches:
        step.backward(batch, val_batch)
    assert len(graphs(step)) == 2
    model.eval()
    for _ in range(4):
        out = step.backward(*batches[0])
    assert len(graphs(step)) == 3
    torch.backends.cudnn.allow_tf32 = True
    for _ in range(4):
        step.backward(*batches[0])
    assert len(graphs(step)) == 4
    expected = fastrw.Reweighter(model).backward(*batches[0]).weights
    assert relative_error(out.weights, expected) <= SCORE_GOAL[torch.float32]


def test_too_many_shapes_say_the_way_out(by_hand):
    sizes = [(n, 4) for n in range(3, 13) for _ in range(3)]
    model, batches = model_and_batches("cpu", *sizes)
    step = fastrw.Reweighter(model, capture=True)
    with pytest.raises(fastrw.Refused, match=r"batches must have few shapes, got a 9th kind of step \(pad them"):
        for batch, val_batch in batches:
            step.backward(batch, val_batch)


def test_random_numbers_are_refused(by_hand):
    model, (batches,) = model_and_batches("cpu", (9, 4))
    model.insert(2, nn.Dropout())
    state = torch.get_rng_state()
    with pytest.raises(fastrw.Refused, match="a captured step must draw no random numbers"):
        fastrw.Reweighter(model, capture=True).backward(*batches)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("of", ["random", "numpy.random"])
def test_numbers_that_python_draws_are_refused(by_hand, of):
    generator = pytest.importorskip(of)

    class Dropped(nn.Module):
        def forward(self, x):
            return x if generator.random() < 0.5 else 2 * x

    model, (batches,) = model_and_batches("cpu", (9, 4))
    model.insert(2, Dropped())
    with pytest.raises(fastrw.Refused, match="a captured step must draw no random numbers"):
        fastrw.Reweighter(model, capture=True).backward(*batches)


def test_examples_that_meet_are_refused_where_steps_are_to_be_assembled(by_hand):
    model, (batches,) = model_and_batches("cpu", (9, 4), norm="batch")
    with pytest.raises(fastrw.CoupledExamples):
        fastrw.Reweighter(model, capture=True, update="assembled").backward(*batches)


def test_a_step_that_waits_is_refused(by_hand, monkeypatch):
    def waits(self, run):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(Tape, "record", waits)
    model, (batches,) = model_and_batches("cpu", (9, 4))
    step = fastrw.Reweighter(model, capture=True)
    for _ in range(capture.WARMUP_STEPS):
        step.backward(*batches)
    rule = "a captured step must not wait for the GPU, got operation not permitted when stream is capturing"
    with pytest.raises(fastrw.Refused, match=rule + "$"):
        step.backward(*batches)


def test_a_model_on_a_cpu_says_so():
    model, (batches,) = model_and_batches("cpu", (9, 4))
    with pytest.raises(ValueError, match="capture=True needs the model on a CUDA device, got cpu"):
        fastrw.Reweighter(model, capture=True).backward(*batches)


@pytest.mark.parametrize("words", [{"method": "double_backward"}, {"method": "per_example"}, {"timeline": True}])
def test_what_cannot_be_captured_is_said_at_once(words):
    with pytest.raises(ValueError, match="capture=True repeats a step of one backward, whole, got method="):
        fastrw.Reweighter(nn.Linear(2, 2), capture=True, **words)
