"""Loops of public trainers with `fastrw.backward` in place of their backward: every step of them is exact."""

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fastrw
from tests import oracle
from tests.on_graph import exact, relative

pytestmark = pytest.mark.filterwarnings("ignore")  # the packages' own


QUIET = {"per_device_train_batch_size": 8, "max_steps": 3, "use_cpu": True, "report_to": [], "disable_tqdm": True,
         "save_strategy": "no", "logging_strategy": "no"}  # fmt: skip


def network():
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3))


def rows(n):
    return torch.randn(n, 6), torch.randint(3, (n,))


def losses_of(model, batch):
    return F.cross_entropy(model(batch[0]).float(), batch[1], reduction="none")


def test_lightning_with_manual_optimisation(tmp_path):
    L = pytest.importorskip("lightning")
    steps = []

    class Model(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.net, self.automatic_optimization = network(), False

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

        def training_step(self, batch, index):
            optimizer = self.optimizers()
            optimizer.zero_grad()
            out = exact(losses_of(self.net, batch), losses_of(self.net, rows(4)).mean(), goal=1e-5)
            optimizer.step()
            steps.append(out.method)

    torch.manual_seed(0)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*rows(24)), batch_size=8)
    L.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
              enable_model_summary=False, default_root_dir=tmp_path).fit(Model(), loader)  # fmt: skip
    assert steps == ["layerwise"] * 3


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_accelerate(precision):
    accelerate = pytest.importorskip("accelerate")
    accelerate.state.AcceleratorState._reset_state(True)
    torch.manual_seed(0)
    try:
        accelerator = accelerate.Accelerator(mixed_precision=precision, cpu=True)
        inner = network()
        model, optimizer = accelerator.prepare(inner, torch.optim.SGD(inner.parameters(), 0.1))
        step = fastrw.Reweighter(model, losses_fn=losses_of)
        for _ in range(3):
            optimizer.zero_grad()
            batch, val_batch = rows(8), rows(4)
            val_loss = losses_of(model, val_batch).mean()
            out = exact(losses_of(model, batch), val_loss, goal=1e-5 if precision == "no" else 3e-2)
            optimizer.zero_grad()
            again = step.backward(batch, val_batch)
            optimizer.step()
            assert out.method == again.method == "layerwise"
            assert relative(again.scores, out.scores) <= (1e-5 if precision == "no" else 3e-2)
    finally:
        accelerate.state.AcceleratorState._reset_state(True)


@pytest.mark.parametrize("bf16", [False, True])
def test_trainer_of_transformers(tmp_path, bf16):
    T = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    torch.manual_seed(0)
    config = T.BertConfig(vocab_size=30, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_labels=3,
                          num_attention_heads=2, attn_implementation="eager")  # fmt: skip
    model = T.BertForSequenceClassification(config)
    start, steps = copy.deepcopy(model.state_dict()), []

    def texts(n):
        tokens = torch.randint(30, (n, 6))
        return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": torch.randint(3, (n,))}

    def each(model, inputs):
        logits = model(**{k: v for k, v in inputs.items() if k != "labels"}).logits
        return F.cross_entropy(logits.float(), inputs["labels"], reduction="none")

    class Trainer(T.Trainer):
        def training_step(self, model, inputs, num_items_in_batch=None):
            model.train()
            with self.compute_loss_context_manager():
                losses, val_loss = each(model, inputs), each(model, texts(4)).mean()
            out = exact(losses, val_loss, goal=3e-2 if bf16 else 1e-5)
            steps.append(out.method)
            return (out.weights * out.losses).sum()

    rows = texts(24)
    data = [{k: v[i] for k, v in rows.items()} for i in range(24)]
    arguments = T.TrainingArguments(str(tmp_path), bf16=bf16, **QUIET)
    Trainer(model=model, args=arguments, train_dataset=data).train()
    assert steps == ["layerwise"] * 3
    assert any(not torch.equal(v, start[k]) for k, v in model.state_dict().items())


def test_compute_loss_of_transformers_trainer(tmp_path):
    """The weights first, then a loss for the trainer's own backward."""
    T = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    torch.manual_seed(0)
    model, found = network().double(), []

    class Trainer(T.Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            batch, val_batch = (inputs["x"], inputs["labels"]), (torch.randn(4, 6).double(), torch.arange(4) % 3)
            w = fastrw.meta_weights(model, batch, val_batch)
            s = oracle.scores(model, batch, val_batch)
            found.append(relative(w, oracle.weights(s)))
            return (w * losses_of(model, batch)).sum()

    x, y = torch.randn(24, 6).double(), torch.randint(3, (24,))
    arguments = T.TrainingArguments(str(tmp_path), remove_unused_columns=False, **QUIET)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = [{"x": a, "labels": b} for a, b in zip(x, y, strict=True)]
        Trainer(model=model, args=arguments, train_dataset=data).train()
    assert len(found) == 3 and max(found) <= 1e-10
