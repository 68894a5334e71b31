"""FSR and its parts refuse bad arguments with the rule and the value, before anything is created."""

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from fastrw import fsr
from tests import fsr_reference as reference

X, Y = reference.data()
SGD, MOMENTUM = (lambda m, mu=mu: torch.optim.SGD(m.parameters(), 0.1, momentum=mu) for mu in (0.0, 0.9))


def made(model=None, size=60, classes=4, optimizer=None, **options):
    model = reference.made() if model is None else model
    options = {"dataset": TensorDataset(X, Y)} | options
    return fsr.FSR(model, size, classes, optimizer=optimizer and optimizer(model), **options)


@pytest.mark.parametrize(
    ("options", "error", "rule"),
    [
        ({"model": 3}, TypeError, "model must be a torch.nn.Module, got int"),
        ({"size": 0}, ValueError, "dataset_size must be an integer of 1 or more, got 0"),
        ({"size": 59}, ValueError, r"labels must be \[N\] with N = 59, got \(60,\)"),
        ({"labels": Y[1:]}, ValueError, r"labels must be \[N\] with N = 60, got \(59,\)"),
        ({"classes": 1}, ValueError, "num_classes must be an integer of 2 or more, got 1"),
        ({"q": 0}, ValueError, "q must be an integer of 1 or more, got 0"),
        ({"q": True}, ValueError, "q must be an integer of 1 or more, got True"),
        ({"refresh": 0}, ValueError, "refresh must be an integer of 1 or more, got 0"),
        ({"refresh": 2, "params": "all"}, ValueError, 'refresh needs params="last" .* got refresh=2'),
        ({"warmup": -1}, ValueError, "warmup must be an integer of 0 or more, got -1"),
        ({"eta": 0}, ValueError, r"eta must be a number in \(0, inf\), got 0"),
        ({"eta": None}, ValueError, "eta=None takes the learning rate of optimizer, got no optimizer"),
        ({"alpha": -1.0}, ValueError, r"alpha must be a number in \(0, inf\), got -1.0"),
        ({"alpha": float("nan")}, ValueError, r"alpha must be a number in \(0, inf\), got nan"),
        ({"weight_decay": -0.1}, ValueError, r"weight_decay must be a number in \[0, inf\), got -0.1"),
        ({"label_smoothing": 1.0}, ValueError, r"label_smoothing must be a number in \[0, 1\), got 1.0"),
        ({"normalize": None}, ValueError, "normalize must be one of 'rectify', 'shift', got None"),
        ({"variant": "mine"}, ValueError, "variant must be one of 'code', 'paper', got 'mine'"),
        ({"lookahead": "adam"}, ValueError, "lookahead must be one of None, 'momentum', 'plain', got 'adam'"),
        ({"lookahead": "momentum"}, ValueError, 'lookahead="momentum" needs an optimizer .* got no optimizer'),
        (
            {"lookahead": "momentum", "optimizer": SGD},
            ValueError,
            'lookahead="momentum" needs an optimizer that has momentum, got SGD without momentum',
        ),
        (
            {"optimizer": lambda m: torch.optim.SGD(m[0].parameters(), 0.1)},
            ValueError,
            "optimizer must train every parameter of params, got none of '1.weight'",
        ),
        ({"params": "head.*"}, ValueError, "params must name parameters of the model, got 'head.*'"),
        ({"relabel": 0.1}, TypeError, "relabel must be a fastrw.fsr.Relabel, got float"),
        ({"relabel": fsr.Relabel(60, 3)}, ValueError, r"relabel must be of \[N, C\] = \(60, 4\), got \(60, 3\)"),
        ({"mixup": True}, TypeError, "mixup must be a fastrw.fsr.MixUp, got bool"),
        ({"mixup": fsr.MixUp(3)}, ValueError, "mixup must be of 4 classes, got 3"),
    ],
)
def test_fsr_names_the_rule_and_what_it_got(options, error, rule):
    with pytest.raises(error, match=f"^fastrw.FSR: {rule}"):
        made(**options)


@pytest.mark.parametrize(
    ("make", "error", "rule"),
    [
        (lambda: made(classes=3), ValueError, "ProxyDictionary: labels must be classes from 0 to 2, got 3"),
        (lambda: made(classes=5), ValueError, "ProxyDictionary: every class needs an example, got none of class 4"),
        (
            lambda: made(capacity=3),
            ValueError,
            "ProxyDictionary: capacity must be at least the number of classes, 4, got 3",
        ),
        (lambda: fsr.MetaMargin(1.0), ValueError, r"MetaMargin: momentum must be a number in \[0, 1\), got 1.0"),
        (lambda: fsr.Relabel(10, 4, beta=1), ValueError, r"Relabel: beta must be a number in \[0, 1\), got 1"),
        (lambda: fsr.Relabel(10, 4, p=-1), ValueError, r"Relabel: p must be a number in \[0, inf\), got -1"),
        (lambda: fsr.Relabel(10, 4, temperature=0), ValueError, r"Relabel: temperature must be a number in \(0, inf\)"),
        (lambda: fsr.MixUp(4, alpha=0), ValueError, r"MixUp: alpha must be a number in \(0, inf\), got 0"),
        (lambda: fsr.MixUp(4)(X.long(), Y), TypeError, "MixUp: x must be a floating point tensor"),
        (lambda: fsr.MixUp(2)(X, Y), ValueError, "MixUp: y must be classes from 0 to 1, got 3"),
        (
            lambda: fsr.Relabel(10, 4).loss(torch.arange(3), torch.zeros(3, 5)),
            ValueError,
            r"Relabel: logits must be \[n, C\] = \(3, 4\), got \(3, 5\)",
        ),
        (
            lambda: fsr.Relabel(10, 4).update(torch.tensor([10]), torch.zeros(1, 4)),
            ValueError,
            "Relabel: index must be from 0 to 9, got 10",
        ),
        (
            lambda: fsr.Relabel(10, 4).load_state_dict(fsr.Relabel(9, 4).state_dict()),
            ValueError,
            r"Relabel: a state must hold predictions of shape \(10, 4\), got \(9, 4\)",
        ),
    ],
)
def test_the_parts_name_the_rule_and_what_they_got(make, error, rule):
    with pytest.raises(error, match=f"^fastrw.{rule}"):
        make()


@pytest.mark.parametrize(
    ("model", "rule"),
    [
        (lambda: reference.made(classes=5), r"model must return logits \[n, C\] with C = 4, got \(15, 5\)"),
        (lambda: nn.Sequential(nn.Linear(6, 4), nn.Unflatten(0, (-1, 1))), r"with C = 4, got \(15, 1, 4\)"),
        (lambda: nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (-1, 3)), nn.Linear(3, 4)), "with n = 15, got 30 rows"),
    ],
)  # fmt: skip
def test_a_model_that_returns_no_logits_is_refused(model, rule):
    found = made(model().double(), warmup=9)
    with pytest.raises(ValueError, match=f"^fastrw.FSR: .*{rule}"):
        found.step(torch.arange(15), X[:15], Y[:15])


def test_a_dataset_that_returns_no_pairs_is_refused():
    found = made(labels=Y, dataset=TensorDataset(X), warmup=0)
    with pytest.raises(TypeError, match=r"^fastrw.FSR: dataset\[i\] must be \(x, y\), got 1 items"):
        found.step(torch.arange(15), X[:15], Y[:15])


def test_refresh_is_refused_where_the_last_layer_does_not_produce_the_logits():
    class Scaled(nn.Sequential):
        def forward(self, x):
            return 2 * super().forward(x)

    found = made(Scaled(*reference.made()), refresh=5, warmup=0)
    with pytest.raises(ValueError, match=r"^fastrw.FSR: refresh needs logits that a linear last layer makes"):
        found.step(torch.arange(15), X[:15], Y[:15])


def test_a_state_of_another_run_is_refused():
    mine = made()
    for state in (None, {}, {"dictionary": {}}):
        with pytest.raises(ValueError, match=r"^fastrw.FSR: a state must hold dictionary, relabel"):
            mine.load_state_dict(state)
    with pytest.raises(ValueError, match=r"^fastrw.FSR: a state must have re-labels where FSR does"):
        mine.load_state_dict(made(relabel=fsr.Relabel(60, 4)).state_dict())


def test_a_refused_state_changes_nothing():
    mine, other = (made(relabel=fsr.Relabel(60, 4), warmup=0) for _ in range(2))
    other.dictionary.history += 1
    before, state = mine.dictionary.history.clone(), other.state_dict()
    state["relabel"]["predictions"] = torch.zeros(60, 5)
    with pytest.raises(ValueError, match=r"^fastrw.Relabel: a state must hold predictions"):
        mine.load_state_dict(state)
    assert torch.equal(mine.dictionary.history, before)


def test_the_momentum_of_the_optimizer_is_the_default():
    assert made(optimizer=MOMENTUM).lookahead.how == "momentum"
    assert made(optimizer=MOMENTUM, lookahead="plain").lookahead.how == "plain"
    assert made(optimizer=SGD).lookahead.how == "plain" and made().lookahead.how == "plain"
