"""Reweighter(capture=True): a step recorded once and repeated gives what a step gives, or is refused with the reason.

Without a GPU a stand-in records the function itself and runs it again into the same memory, as a graph does."""

import copy

import pytest
import torch
from torch import nn

import fastrw
from fastrw.api import capture
from fastrw.ops.tolerance import SCORE_GOAL, relative_error


class Rerun:
    """A graph on a CPU: `replay` writes what the function gives into the tensors that it gave when it was recorded."""

    made = 0

    def __init__(self, device):
        Rerun.made += 1

    def record(self, run):
        self._run, self._found = run, run()
        for tensor in self._tensors(self._found):
            tensor.fill_(torch.nan)  # recording computes nothing
        return self._found

    def replay(self):
        for old, new in zip(self._tensors(self._found), self._tensors(self._run()), strict=True):
            old.copy_(new)

    @staticmethod
    def _tensors(found):
        answer = found.answer
        return [answer.scores, answer.weights, found.losses, found.val_loss, *(g for _, g in answer.gradients)]


@pytest.fixture
def by_hand(monkeypatch):
    monkeypatch.setattr(capture.Graphs.__init__, "__defaults__", (Rerun,))
    Rerun.made = 0


@pytest.fixture(params=[pytest.param("cuda", marks=pytest.mark.gpu), "cpu"])
def device(request):
    if request.param == "cpu":
        request.getfixturevalue("by_hand")
    return request.param


def model_and_batches(device, *shapes, dtype=torch.float32):
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(100, 3)]
    model = nn.Sequential(*layers).to(device, dtype)
    batches = [
        tuple((torch.randn(k, 2, 5, 5, dtype=dtype).to(device), torch.randint(3, (k,)).to(device)) for k in sizes)
        for sizes in shapes
    ]
    return model, batches


@pytest.mark.quick
@pytest.mark.parametrize("gathers", [False, True])
def test_a_repeated_step_is_the_step(device, gathers):
    model, batches = model_and_batches(device, *[(9, 4)] * 7)
    plain = copy.deepcopy(model)
    ways = [(m, fastrw.Reweighter(m, capture=c), torch.optim.SGD(m.parameters(), 0.1))
            for m, c in ((model, True), (plain, False))]  # fmt: skip
    kept = []
    for i, (batch, val_batch) in enumerate(batches):
        outs = []
        for _, step, optimizer in ways:
            if not gathers or i % 2 == 0:
                optimizer.zero_grad()
            outs.append(step.backward(batch, val_batch))
            optimizer.step()
        kept.append(outs)
    for captured, expected in kept:  # kept results do not change when the graph runs again
        for what in ("weights", "scores", "losses", "val_loss"):
            found = relative_error(getattr(captured, what).double(), getattr(expected, what).double())
            assert found <= SCORE_GOAL[torch.float32]
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        assert relative_error(p.detach().double(), q.detach().double()) <= SCORE_GOAL[torch.float32]


def test_another_shape_mode_or_precision_is_another_graph(by_hand, float32_settings):
    model, batches = model_and_batches("cpu", *[(9, 4), (6, 4)] * 5)
    step = fastrw.Reweighter(model, capture=True)
    for batch, val_batch in batches:
        step.backward(batch, val_batch)
    assert len(step._graphs._captured) == 2
    model.eval()
    for _ in range(4):
        out = step.backward(*batches[0])
    assert len(step._graphs._captured) == 3
    torch.backends.cudnn.allow_tf32 = True
    for _ in range(4):
        step.backward(*batches[0])
    assert len(step._graphs._captured) == 4
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


def test_examples_that_meet_are_refused(by_hand):
    model, (batches,) = model_and_batches("cpu", (9, 4))
    model[1] = nn.BatchNorm2d(4)
    with pytest.raises(fastrw.CoupledExamples):
        fastrw.Reweighter(model, capture=True).backward(*batches)


def test_a_step_that_waits_is_refused(by_hand, monkeypatch):
    def waits(self, run):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(Rerun, "record", waits)
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


@pytest.mark.parametrize("words", [{"update": "backward"}, {"method": "tangent"}, {"timeline": True}])
def test_what_cannot_be_captured_is_said_at_once(words):
    with pytest.raises(ValueError, match="capture=True repeats an assembled step, got update="):
        fastrw.Reweighter(nn.Linear(2, 2), capture=True, **words)
