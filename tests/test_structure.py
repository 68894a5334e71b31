"""The structure of a model is found once, and again after any change of its modules or parameters."""

import copy

import pytest
import torch
from torch import nn

import fastrw
from fastrw.state.structure import Structure

pytestmark = pytest.mark.quick


def model():
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def rename(m):
    m._modules["other"] = m._modules.pop("2")


def move(m):
    m[1].weight = m[0]._parameters.pop("weight")


def override(m):
    m.named_modules = lambda: nn.Module.named_modules(m)


CHANGES = {
    "a layer replaced": lambda m: m.__setitem__(0, nn.Linear(3, 4)),
    "a layer added": lambda m: m.append(nn.Linear(2, 2)),
    "a layer removed": lambda m: m.__delitem__(1),
    "a layer renamed": rename,
    "a parameter replaced": lambda m: setattr(m[0], "weight", nn.Parameter(torch.zeros(4, 3))),
    "a parameter removed": lambda m: m[0].register_parameter("bias", None),
    "a parameter tied": lambda m: setattr(m[2], "bias", m[0].bias),
    "a parameter moved to the next module": move,
    "the class of a module": lambda m: setattr(m[1], "__class__", nn.Tanh),
    "a dictionary replaced by another": lambda m: setattr(m, "_modules", dict(list(m._modules.items())[:2])),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen(change):
    m = model()
    structure = Structure(m)
    assert structure.holds() and structure.current() is structure
    CHANGES[change](m)
    assert not structure.holds()
    now = structure.current()
    assert now.modules == dict(m.named_modules()) and now.parameters == dict(m.named_parameters())


def test_what_decides_no_structure_is_no_change():
    m = model()
    structure = Structure(m)
    m.eval().double().requires_grad_(False)
    m[0].weight.data = torch.ones(4, 3)
    assert structure.holds()


def test_a_model_that_names_its_modules_itself_is_asked_anew():
    class Own(nn.Sequential):
        def named_modules(self, *args, **kwargs):
            return super().named_modules(*args, **kwargs)

    assert not Structure(Own(nn.Linear(2, 2))).holds()
    m = model()
    override(m)
    assert not Structure(m).holds()


@pytest.mark.parametrize("params", [None, "last", "*bias", ["0.weight", "2.*"]], ids=str)
def test_a_reweighter_sees_changes_between_its_steps(params):
    torch.manual_seed(0)
    batch, val_batch = ((torch.randn(n, 3), torch.randint(2, (n,))) for n in (5, 3))
    m = model()
    step = fastrw.Reweighter(m, params=params)
    changes = [lambda: None, lambda: m[2].bias.requires_grad_(False), lambda: m[2].bias.requires_grad_(True)]
    changes += [lambda: CHANGES["a parameter replaced"](m), lambda: m.__setitem__(1, nn.Tanh())]
    for change in changes:
        change()
        if params in ("*bias", ["0.weight", "2.*"]) and not m[2].bias.requires_grad:
            with pytest.raises(ValueError, match="must require grad"):
                step.backward(batch, val_batch)
            continue
        other = copy.deepcopy(m)
        for one in (m, other):
            one.zero_grad()
        fastrw.Reweighter(other, params=params).backward(batch, val_batch)
        step.backward(batch, val_batch)
        for p, q in zip(m.parameters(), other.parameters(), strict=True):
            assert (p.grad is None) == (q.grad is None) and (p.grad is None or torch.equal(p.grad, q.grad))
