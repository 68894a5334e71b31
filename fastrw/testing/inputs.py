"""What goes in and out: several inputs, mappings, frozen and unused parameters, own losses, smallest batches."""

from functools import partial
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .case import ANY, LAYERWISE, Net, case, images, labels, param, sentences, vectors, words


@case(LAYERWISE)
def several_inputs():
    def rule(net, x, tokens):
        return net.head(torch.cat([net.left(x).tanh(), net.table(tokens).sum(1)], 1))

    def batch(n):
        return (torch.randn(n, 6), torch.randint(0, 11, (n, 3))), labels(n)

    return Net(rule, left=nn.Linear(6, 5), table=nn.Embedding(11, 3), head=nn.Linear(8, 4)), batch(9), batch(4)


def named_rule(net, *, image, numbers):
    return net.head(torch.cat([net.conv(image).relu().mean((2, 3)), net.left(numbers).tanh()], 1))


def named(n):
    return {"image": torch.randn(n, 3, 6, 6), "numbers": torch.randn(n, 6)}


def two_branches(rule):
    return Net(rule, conv=nn.Conv2d(3, 4, 3), left=nn.Linear(6, 5), head=nn.Linear(9, 4))


@case(LAYERWISE)
def mapping_inputs():
    return two_branches(named_rule), (named(8), labels(8)), (named(4), labels(4))


@case(LAYERWISE)
def mapping_with_labels():
    return two_branches(named_rule), {**named(8), "labels": labels(8)}, {**named(4), "labels": labels(4)}


@case(LAYERWISE)
def mapping_outputs():
    def rule(net, **inputs):
        return {"logits": named_rule(net, **inputs), "other": inputs["numbers"]}

    return two_branches(rule), (named(8), labels(8)), (named(4), labels(4))


@case(LAYERWISE)
def attribute_outputs():
    def rule(net, **inputs):
        return SimpleNamespace(logits=named_rule(net, **inputs))

    return two_branches(rule), (named(8), labels(8)), (named(4), labels(4))


def two_heads_loss(output, target):
    logits, value = output
    label, goal = target
    return F.cross_entropy(logits, label, reduction="none") + F.mse_loss(value.squeeze(1), goal, reduction="none")


@case(LAYERWISE, loss_fn=two_heads_loss)
def several_outputs():
    def batch(n):
        return torch.randn(n, 6), (labels(n), torch.randn(n))

    model = Net(
        lambda net, x: (net.a(net.enter(x).tanh()), net.b(x)),
        enter=nn.Linear(6, 5),
        a=nn.Linear(5, 4),
        b=nn.Linear(6, 1),
    )
    return model, batch(9), batch(4)


def small_model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 4))


@case(LAYERWISE)
def frozen_first_layer():
    model = small_model()
    model[0].requires_grad_(False)
    return model, vectors(9), vectors(4)


@case(LAYERWISE)
def frozen_middle_layer():
    model = small_model()
    model[2].requires_grad_(False)
    return model, vectors(9), vectors(4)


@case(LAYERWISE)
def only_a_bias_trains():
    model = small_model().requires_grad_(False)
    model[2].bias.requires_grad_(True)
    return model, vectors(9), vectors(4)


@case(LAYERWISE)
def parameters_without_gradient():
    """A layer that never runs, and one that runs but does not reach the losses."""

    def rule(net, x):
        net.aside(x)
        return net.body(x)

    return Net(rule, body=small_model(), aside=nn.Linear(6, 5), unused=nn.Linear(3, 3)), vectors(9), vectors(4)


@case(LAYERWISE)
def used_in_training_only():
    """A branch for some batches only: the two batches reach different parameters."""

    def rule(net, x):
        h = net.enter(x).tanh()
        return net.head(net.extra(h) if len(x) > 5 else h)

    return Net(rule, enter=nn.Linear(6, 5), extra=nn.Linear(5, 5), head=nn.Linear(5, 4)), vectors(9), vectors(4)


SELECTIONS = {"last": "last", "pattern": ["2.*"], "name": ["0.weight", "4.bias"], "biases": ["*.bias"]}


def selection():
    return small_model(), vectors(9), vectors(4)


for label, params in SELECTIONS.items():
    case(LAYERWISE, name=f"params_{label}", params=params)(selection)


def sequence_batch(n):
    tokens, target = sentences(n)
    return tokens, target.masked_fill(torch.rand(n, 5) < 0.3, -100)


@case(LAYERWISE)
def ignored_positions():
    """The default loss on [n, length, classes]: labels of -100 are left out of each example's mean."""
    model = nn.Sequential(nn.Embedding(11, 6), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 11))
    return model, sequence_batch(8), sequence_batch(4)


def mean_over_valid(output: Tensor, target: Tensor) -> Tensor:
    """Zero for an example with nothing left to predict."""
    losses = F.cross_entropy(output.transpose(1, 2), target, ignore_index=0, reduction="none")
    return losses.sum(1) / (target != 0).sum(1).clamp(min=1)


@case(LAYERWISE, loss_fn=mean_over_valid)
def ignored_by_own_loss():
    model = nn.Sequential(nn.Embedding(11, 6), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 11))
    (tokens, target), val_batch = sentences(8), sentences(4)
    target[:, 3:], target[2] = 0, 0
    return model, (tokens, target), val_batch


def sum_over_count(output, target):
    """Positions divided by the count over the whole batch: a number from the labels alone, no coupling."""
    losses = F.cross_entropy(output.transpose(1, 2), target, reduction="none")
    return losses.sum(1) / (target >= 0).sum() * len(target)


@case(LAYERWISE, loss_fn=sum_over_count)
def averaged_over_all_positions():
    model = nn.Sequential(nn.Embedding(11, 6), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 11))
    return model, sequence_batch(8), sequence_batch(4)


def decayed(model, batch):
    """Every loss carries the weight decay: parameters meet the examples in the losses alone."""
    x, target = batch
    decay = sum(p.pow(2).sum() for p in model.parameters())
    return F.cross_entropy(model(x), target, reduction="none") + 0.01 * decay


case(ANY, name="weight_decay_in_the_losses", losses_fn=decayed)(selection)


def two_passes(model, batch):
    """Consistency between two views: the model runs twice."""
    x, target = batch
    first, second = model(x), model(x + 0.1)
    return F.cross_entropy(first, target, reduction="none") + F.mse_loss(first, second, reduction="none").mean(1)


case(LAYERWISE, name="model_run_twice", losses_fn=two_passes)(selection)


def regression(output, target):
    return F.huber_loss(output.squeeze(1), target, reduction="none")


@case(LAYERWISE, loss_fn=regression)
def regression_loss():
    def batch(n):
        return torch.randn(n, 6), torch.randn(n)

    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1)), batch(9), batch(4)


@case(LAYERWISE, loss_fn=partial(F.binary_cross_entropy_with_logits, reduction="none"))
def binary_loss():
    def batch(n):
        return torch.randn(n, 6), torch.randint(0, 2, (n,)).float()

    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1), nn.Flatten(0)), batch(9), batch(4)


def ctc(output, target):
    """Connectionist temporal classification: output [n, length, classes]."""
    n, length = output.shape[:2]
    rows = output.log_softmax(-1).transpose(0, 1)
    return F.ctc_loss(rows, target, torch.full((n,), length), torch.full((n,), target.shape[1]), reduction="none")


@case(LAYERWISE, loss_fn=ctc)
def ctc_loss():
    def batch(n):
        return torch.randn(n, 7, 6), torch.randint(1, 5, (n, 2))

    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 5)), batch(8), batch(4)


SMALLEST = {"n_is_1": (1, 4), "m_is_1": (9, 1), "n_and_m_are_1": (1, 1), "m_is_n": (6, 6), "m_above_n": (3, 11)}
for label, (n, m) in SMALLEST.items():
    case(LAYERWISE, name=f"linear_{label}")(lambda n=n, m=m: (small_model(), vectors(n), vectors(m)))


@case(LAYERWISE)
def conv_n_is_1():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4))
    return model, images(1), images(3)


@case(LAYERWISE)
def batches_of_other_lengths():
    """Training and validation sentences of different lengths."""
    model = Net(lambda net, x: net.head(net.table(x).tanh().mean(1)), table=nn.Embedding(11, 5), head=nn.Linear(5, 4))
    return model, words(8, length=5), words(4, length=9)


@case(LAYERWISE)
def one_feature():
    return nn.Sequential(nn.Linear(1, 1), nn.Tanh(), nn.Linear(1, 2)), vectors(9, 1, 2), vectors(4, 1, 2)


@case(LAYERWISE)
def inputs_as_a_list():
    model = Net(
        lambda net, x, y: net.head(net.enter(x).tanh() * (y @ net.w)),
        enter=nn.Linear(6, 5),
        w=param(3, 5),
        head=nn.Linear(5, 4),
    )

    def batch(n):
        return [torch.randn(n, 6), torch.randn(n, 3)], labels(n)

    return model, batch(9), batch(4)
