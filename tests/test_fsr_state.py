"""What FSR keeps and leaves alone: a resumed run goes on as if never stopped, a step that raises moved nothing."""

import copy
import gc
import io
import random

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from fastrw import fsr
from fastrw.ops.tolerance import SCORE_GOAL, relative_error
from tests import fsr_reference as reference
from tests.resumed import near, same_state

C = 4


class Augmented(Dataset):
    """Reads draw: torch's and Python's generators move."""

    def __init__(self, x, y):
        self.x, self.targets = x, y

    def __getitem__(self, i):
        return self.x[i] + 0.01 * torch.randn(6, dtype=torch.float64) * random.random(), self.targets[i]


def made(params="last", refresh=1, **options):
    model, (x, y) = reference.made(dropout=0.2), reference.data()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=1e-3)
    relabel = fsr.Relabel(len(y), C, dtype=torch.float64)
    return model, optimizer, fsr.FSR(
        model, len(y), C, dataset=Augmented(x, y), optimizer=optimizer, capacity=12, q=8, warmup=1, params=params,
        refresh=refresh, relabel=relabel, mixup=fsr.MixUp(C), **options,
    )  # fmt: skip


def play(run, steps, start):
    """Steps `start`.. of the run, an epoch being 4 of them."""
    _, optimizer, found = run
    x, y = reference.data()
    for step in range(start, start + steps):
        index = torch.randperm(len(y), generator=torch.Generator().manual_seed(step))[:15]
        optimizer.zero_grad()
        found.step(index, x[index], y[index])
        optimizer.step()
        if step % 4 == 3:
            found.end_epoch()


def everything(run):
    model, optimizer, found = run
    state = [model.state_dict(), optimizer.state_dict(), found.state_dict(), torch.get_rng_state(), random.getstate()]
    state += [[p.grad for p in model.parameters()]]
    return torch.utils._pytree.tree_map(lambda t: t.detach().clone() if isinstance(t, torch.Tensor) else t, state)


def bits(state):
    leaves = torch.utils._pytree.tree_leaves(state)
    return [t.numpy().tobytes() if isinstance(t, torch.Tensor) else t for t in leaves]


def reset():
    torch.manual_seed(7)
    random.seed(7)


@pytest.mark.parametrize(("params", "refresh"), [("last", 1), ("last", 3), ("all", 1)])
@pytest.mark.parametrize("taken", [0, 3, 4, 6])
def test_a_resumed_run_goes_on_as_if_never_stopped(params, taken, refresh):
    reset()
    whole = made(params, refresh)
    reset()
    play(whole, 10, 0)
    truth = everything(whole)

    first = made(params, refresh)
    reset()
    play(first, taken, 0)
    states = (first[0].state_dict(), first[1].state_dict(), first[2].state_dict(), torch.get_rng_state())
    torch.save(states, file := io.BytesIO())
    python = random.getstate()

    second = made(params, refresh, seed=5)
    file.seek(0)
    *states, rng = torch.load(file, weights_only=True)
    for part, state in zip(second, states, strict=True):
        part.load_state_dict(state)
    torch.set_rng_state(rng)
    random.setstate(python)
    play(second, 10 - taken, taken)
    same_state(everything(second), truth)


@pytest.mark.parametrize("params", ["last", "all"])
def test_a_step_that_raises_moves_nothing(params, monkeypatch):
    run = made(params)
    play(run, 6, 0)
    found = run[2]
    x, y = reference.data()
    index = torch.arange(15)
    x, y = x[index], y[index]
    before = bits(everything(run))

    def refused(error, match, *asked):
        with pytest.raises(error, match=match):
            found.step(*asked)
        assert bits(everything(run)) == before

    rule = "^fastrw.FSR.step: "
    refused(ValueError, rule + "index must be from 0 to 59, got 60", index + 46, x, y)
    refused(ValueError, rule + "index must be from 0 to 59, got -1", index - 1, x, y)
    refused(ValueError, rule + "index must not repeat an example, got 3 twice", index.clamp(max=3), x, y)
    refused(ValueError, rule + r"index must be \[n\] with n of 1 or more, got \(0,\)", index[:0].long(), x, y)
    refused(ValueError, rule + "index and y must have one length, got 14 and 15", index[1:], x, y)
    refused(TypeError, rule + "index must be whole numbers, got torch.float32", index.float(), x, y)
    refused(ValueError, rule + "y must be classes from 0 to 3, got 4", index, x, y + 4 * (y == 0))
    refused(TypeError, rule + "y must be whole numbers, got torch.float64", index, x, y.double())
    other = (y + (index == 9)) % C
    refused(ValueError, rule + "y must be the dataset's labels at index, got . for example 9, whose", index, x, other)
    refused(ValueError, rule + "losses must be finite, got 1[45] of 15", index, x + torch.nan, y)
    refused(ValueError, "MixUp: x and y must have one length", index, x[1:], y)
    refused(RuntimeError, "shapes cannot be multiplied", index, x[:, 1:], y)

    with monkeypatch.context() as patch:  # while the reward examples are read, after draws
        read = Augmented.__getitem__

        def broken(self, i):
            read(self, i)
            raise OSError("no such image")

        patch.setattr(Augmented, "__getitem__", broken)
        refused(OSError, "no such image", index, x, y)
    with monkeypatch.context() as patch:
        patch.setattr(Augmented, "__getitem__", lambda self, i: (self.x[i], (self.targets[i] + 1) % C))
        refused(ValueError, "must give the label that labels", index, x, y)
    with monkeypatch.context() as patch:
        patch.setattr(found.relabel, "loss", lambda *_: 1 / 0)
        refused(ZeroDivisionError, "division", index, x, y)
    found.step(index, x, y)


@pytest.mark.parametrize("params", ["last", "all"])
@pytest.mark.parametrize("mixup", [False, True])
def test_a_step_moves_what_a_training_forward_moves(params, mixup):
    """Running statistics see the inputs of the weighted loss once; the draws after a step are those after a forward."""
    model, (x, y) = reference.made(dropout=0.2), reference.data()
    plain = copy.deepcopy(model)
    found = fsr.FSR(model, len(y), C, dataset=TensorDataset(x, y), warmup=0, params=params, q=8, capacity=12,
                    mixup=fsr.MixUp(C) if mixup else None)  # fmt: skip
    index = torch.arange(20)
    torch.manual_seed(3)
    inputs = fsr.MixUp(C)(x[index], y[index])[0] if mixup else x[index]
    plain(inputs)
    after = torch.get_rng_state()
    torch.manual_seed(3)
    found.step(index, x[index], y[index])
    assert torch.equal(torch.get_rng_state(), after)
    same_state(dict(model.named_buffers()), dict(plain.named_buffers()))
    assert all(m.training for m in model.modules()) and not any(m._forward_hooks for m in model.modules())


def test_gradients_add_up():
    model, (x, y) = reference.made(norm=False), reference.data()
    found = fsr.FSR(model, len(y), C, dataset=TensorDataset(x, y), warmup=0, q=8, capacity=12)
    index = torch.arange(20)
    reward = found.dictionary.fetch(8)
    found.dictionary.fetch = lambda q: reward
    found.step(index, x[index], y[index])
    twice = [2 * p.grad for p in model.parameters()]
    found.step(index, x[index], y[index])
    near([p.grad for p in model.parameters()], twice)


def test_a_scaler_scales_the_gradient_alone():
    class Scaler:
        def scale(self, loss):
            return 8 * loss

    found = []
    for scaler in (Scaler(), None):
        model, (x, y) = reference.made(), reference.data()
        ours = fsr.FSR(model, len(y), C, dataset=TensorDataset(x, y), warmup=0, q=8, capacity=12, scaler=scaler)
        out = ours.step(torch.arange(20), x[:20], y[:20])
        found.append((out.weights, [p.grad for p in model.parameters()]))
    (w, scaled), (expected, gradients) = found
    near([w], [expected])
    near(scaled, [8 * g for g in gradients])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("params", ["last", "all"])
@pytest.mark.parametrize("norm", [False, True])
def test_other_precisions_train(dtype, params, norm):
    model, (x, y) = reference.made(norm=norm).to(dtype), reference.data()
    x = x.to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    found = fsr.FSR(model, len(y), C, dataset=TensorDataset(x, y), warmup=1, q=8, capacity=12, optimizer=optimizer,
                    params=params, mixup=fsr.MixUp(C), relabel=fsr.Relabel(len(y), C))  # fmt: skip
    for _ in range(3):
        for index in torch.arange(len(y)).split(20):
            optimizer.zero_grad()
            out = found.step(index, x[index], y[index])
            optimizer.step()
        found.end_epoch()
    assert out.weights.dtype == torch.float32 and bool(out.weights.isfinite().all()) and float(out.weights.sum()) > 0.9
    assert bool(found.dictionary.scores.isfinite().all())


@pytest.mark.parametrize("params", ["last", "all"])
def test_autocast_is_respected(params):
    model, (x, y) = reference.made(norm=False).float(), reference.data()
    x, index = x.float(), torch.arange(30)
    scores, margins = [], []
    for enabled in (False, True):
        found = fsr.FSR(model, len(y), C, dataset=TensorDataset(x, y), warmup=0, q=8, capacity=12, params=params)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            scores.append(found.step(index, x[index], y[index]).scores)
        margins.append(found.dictionary.scores[index])
    assert (scores[0] - scores[1]).norm() <= 0.1 * scores[0].norm() and not torch.equal(*scores)
    if params == "last":  # a small difference of losses, taken in float32
        assert (margins[0] - margins[1]).norm() <= 0.1 * margins[0].norm() and not torch.equal(*margins)


def test_memory_does_not_grow():
    model, optimizer, found = made()
    play((model, optimizer, found), 8, 0)

    def alive():
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    before = alive()
    play((model, optimizer, found), 48, 8)
    assert alive() <= before


def test_inputs_may_be_tuples_and_mappings():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = reference.made()

        def forward(self, left, right):
            return self.net(torch.cat([left, right], 1))

    class Pairs(Dataset):
        def __init__(self, x, y, pack):
            self.x, self.targets, self.pack = x, y, pack

        def __getitem__(self, i):
            return self.pack(self.x[i, ..., :2], self.x[i, ..., 2:]), self.targets[i]

    x, y = reference.data()
    index, found = torch.arange(20), []
    for pack in (lambda a, b: (a, b), lambda a, b: {"left": a, "right": b}):
        ours = fsr.FSR(Two(), len(y), C, dataset=Pairs(x, y, pack), warmup=0, q=8, capacity=12)
        found.append(ours.step(index, pack(x[index, :2], x[index, 2:]), y[index]))
    plain = fsr.FSR(reference.made(), len(y), C, dataset=TensorDataset(x, y), warmup=0, q=8, capacity=12)
    expected = plain.step(index, x[index], y[index]).weights
    assert all(relative_error(out.weights, expected) <= SCORE_GOAL[torch.float64] for out in found)
