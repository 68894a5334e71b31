"""The default loss of a mapping with labels is the model's own, whatever that is, or refused by name."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fastrw
from tests.on_graph import relative


class Model(nn.Module):
    """Computes a loss of its own from labels, as Hugging Face's models do. `own(logits, labels)` is that loss."""

    def __init__(self, own, outputs=20, pool=False, zero=False):
        super().__init__()
        self.table, self.head, self.drop = nn.Embedding(20, 6), nn.Linear(6, outputs), nn.Dropout(0.3)
        self.own, self.pool = own, pool
        if zero:
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)
        self.double()

    def features(self, input_ids, labels):
        return self.table(input_ids)

    def forward(self, input_ids, scale=None, labels=None):
        h = self.drop(self.features(input_ids, labels).tanh())
        h = h if scale is None else h * scale[:, None, None]
        logits = self.head(h.mean(1) if self.pool else h)
        return {"logits": logits} if labels is None else {"loss": self.own(logits, labels), "logits": logits}


class Decoder(Model):
    """Its inputs are the labels, shifted to the right."""

    def features(self, input_ids, labels):
        inputs = input_ids if labels is None else F.pad(labels[:, :-1].clamp(min=0), (1, 0))
        return self.table(inputs) + self.table(input_ids).mean(1, keepdim=True)


def same_position(z, y):
    return F.cross_entropy(z.flatten(0, 1), y.flatten())


def next_position(z, y):
    return F.cross_entropy(z[:, :-1].flatten(0, 1), y[:, 1:].flatten())


def classes(z, y):
    return F.cross_entropy(z, y)


def regression(z, y):
    return F.mse_loss(z.squeeze(), y.squeeze())


def several_labels(z, y):
    return F.binary_cross_entropy_with_logits(z, y)


def tokens(n):
    labels = torch.randint(20, (n, 5))
    labels[0] = -100  # tells nothing
    labels[1, 2:] = -100
    return labels


KINDS = [
    (Model(same_position), tokens),
    (Model(next_position), tokens),
    (Model(next_position, zero=True), tokens),
    (Model(same_position, zero=True), tokens),
    (Decoder(same_position), tokens),
    (Model(classes, outputs=4, pool=True), lambda n: torch.randint(4, (n,))),
    (Model(classes, outputs=4, pool=True), lambda n: torch.rand(n, 4).double().softmax(1)),
    (Model(regression, outputs=1, pool=True), lambda n: torch.randn(n).double()),
    (Model(regression, outputs=1, pool=True), lambda n: torch.randn(n, 1).double()),
    (Model(regression, outputs=3, pool=True), lambda n: torch.randn(n, 3).double()),
    (Model(several_labels, outputs=3, pool=True), lambda n: torch.randint(2, (n, 3)).double()),
]


def batches(labels, **more):
    return ({"input_ids": torch.randint(20, (n, 5)), "labels": labels(n)} | more for n in (7, 4))


def own_losses(model, batch):
    """The model's own loss of each example alone; None where it has no label."""
    rows = ({k: v[i : i + 1] for k, v in batch.items()} for i in range(len(batch["labels"])))
    return [f if f.isfinite() else None for f in (model(**row)["loss"] for row in rows)]


def scores(model, batch, val_batch):
    params, val = [*model.parameters()], own_losses(model, val_batch)
    V = torch.autograd.grad(sum(f for f in val if f is not None) / len(val), params)
    s = [
        0.0 if f is None else sum((g * v).sum() for g, v in zip(torch.autograd.grad(f, params), V, strict=True))
        for f in own_losses(model, batch)
    ]
    return torch.tensor([float(x) for x in s], dtype=torch.float64)


@pytest.mark.parametrize("word", ["meta_weights", "Reweighter"])
@pytest.mark.parametrize(("model", "labels"), KINDS, ids=lambda x: getattr(getattr(x, "own", None), "__name__", ""))
def test_the_default_loss_is_the_models_own(model, labels, word):
    torch.manual_seed(0)
    model = copy.deepcopy(model).eval()
    for _ in range(2):
        batch, val_batch = batches(labels)
        s = scores(model, batch, val_batch)
        if word == "meta_weights":
            found = fastrw.gradient_dots(model, batch, val_batch)
        else:
            found = fastrw.Reweighter(model).backward(batch, val_batch).scores
        assert relative(found, s) <= 1e-10


class Wrapper(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, **batch):
        return self.inner(**batch)


@pytest.mark.parametrize("wrap", [Wrapper, nn.DataParallel, lambda m: torch.compile(m, backend="eager")])
def test_wrappers_are_looked_through(wrap):
    torch.manual_seed(0)
    model = Model(next_position).eval()
    batch, val_batch = batches(tokens)
    s = scores(model, batch, val_batch)
    assert relative(fastrw.gradient_dots(wrap(model), batch, val_batch), s) <= 1e-10


def test_looking_moves_nothing():
    torch.manual_seed(0)
    model = Model(next_position)  # with dropout
    batch, val_batch = batches(tokens)
    before = torch.get_rng_state()
    first = fastrw.gradient_dots(model, batch, val_batch)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(fastrw.gradient_dots(model, batch, val_batch), first)


def smoothed(z, y):
    return F.cross_entropy(z.flatten(0, 1), y.flatten(), label_smoothing=0.1)


def with_more(z, y):
    return same_position(z, y) + 0.1 * z.pow(2).mean()


def summed(z, y):
    return F.cross_entropy(z.flatten(0, 1), y.flatten(), reduction="sum")


@pytest.mark.parametrize("own", [smoothed, with_more, summed])
@pytest.mark.parametrize("word", ["meta_weights", "Reweighter"])
def test_a_loss_of_another_kind_is_refused(own, word):
    torch.manual_seed(0)
    model = Model(own)
    batch, val_batch = batches(tokens)
    state = torch.get_rng_state()
    with pytest.raises(fastrw.Refused, match=r"model's own.*losses_fn.*fastrw\.backward"):
        call = fastrw.meta_weights if word == "meta_weights" else fastrw.Reweighter(model).backward
        call(*((model, batch, val_batch) if word == "meta_weights" else (batch, val_batch)))
    assert torch.equal(torch.get_rng_state(), state) and model.head.weight.grad is None
    assert fastrw.meta_weights(model, batch, val_batch, loss_fn=lambda z, y: z.pow(2).mean((1, 2))).isfinite().all()


class Bare(nn.Module):
    """Takes no labels."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, input_ids):
        return self.inner(input_ids)["logits"]


class TinyForCausalLM(Model):
    """Its name says that its labels are shifted."""


def test_a_model_that_takes_no_labels():
    torch.manual_seed(0)
    batch, val_batch = batches(tokens)
    causal = TinyForCausalLM(next_position).eval()
    s = scores(causal, batch, val_batch)
    assert relative(fastrw.gradient_dots(Bare(causal), batch, val_batch), s) <= 1e-10
    plain = Model(same_position).eval()
    s = scores(plain, batch, val_batch)
    assert relative(fastrw.gradient_dots(Bare(plain), batch, val_batch), s) <= 1e-10
    for b in (batch, val_batch):
        b["labels"] = b["input_ids"]
    with pytest.raises(fastrw.Refused, match=r"which position predicts a label.*losses_fn"):
        fastrw.gradient_dots(Bare(Model(next_position)), batch, val_batch)


def test_a_loss_fn_sees_the_labels_of_the_next_position_too():
    torch.manual_seed(0)
    model = Model(next_position).eval()
    batch, val_batch = batches(lambda n: torch.randint(20, (n, 5)))
    found = fastrw.gradient_dots(
        model, batch, val_batch, loss_fn=lambda z, y: F.cross_entropy(z.mT, y, reduction="none").mean(1)
    )
    assert relative(found, scores(model, batch, val_batch)) <= 1e-10


def test_an_example_that_is_not_finite_tells_nothing():
    torch.manual_seed(0)
    model = Model(next_position).eval()
    batch, val_batch = batches(tokens)
    batch["scale"], val_batch["scale"] = torch.ones(7).double(), torch.ones(4).double()
    val_batch["scale"][0] = batch["scale"][0] = torch.nan
    found = fastrw.gradient_dots(model, batch, val_batch)
    assert found.isnan().all()  # the validation gradient is not finite
    val_batch["scale"][0] = 1.0
    found = fastrw.gradient_dots(model, batch, val_batch)
    batch["scale"][0] = 1.0
    assert relative(found[1:], scores(model, batch, val_batch)[1:]) <= 1e-10 and found[0].isnan()


class Particular(Model):
    """Does not accept every label."""

    def forward(self, input_ids, scale=None, labels=None):
        if labels is not None and bool((labels == 19).any()):
            raise ValueError("no such label")
        return super().forward(input_ids, scale, labels)


def test_what_a_batch_that_the_model_does_not_accept_tells_is_not_kept():
    torch.manual_seed(0)
    model = Particular(next_position).eval()
    odd, val_batch = batches(lambda n: torch.full((n, 5), 19))
    fastrw.gradient_dots(model, odd, val_batch)  # without the model's own loss: its logits need no labels
    batch, val_batch = batches(lambda n: torch.randint(19, (n, 5)))
    assert relative(fastrw.gradient_dots(model, batch, val_batch), scores(model, batch, val_batch)) <= 1e-10
