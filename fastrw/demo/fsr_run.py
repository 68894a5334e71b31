"""Training without clean examples: what FSR is compared with, and a run of each, step by step.

With FSR a training step is the ordinary step with another backward:

    fsr = fastrw.fsr.FSR(model, len(train_set), classes, dataset=train_set, optimizer=optimizer)
    optimizer.zero_grad()
    fsr.step(index, x, y)   # the weighted gradient is in .grad
    optimizer.step()
    ...
    fsr.end_epoch()         # the dictionary takes the examples that learned best
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from fastrw.demo.noise import Task
from fastrw.demo.settings import Settings
from fastrw.demo.train import Run
from fastrw.fsr import FSR, MixUp, Relabel

WARMUP = 2  # epochs
LARGEST = 2000  # |R| of Table 4; a third of the examples where they are few
BETA, P = 0.1, 2.0  # of Table 4


@dataclass(frozen=True)
class FSRMethod:
    weighs: bool = False
    mixup: bool = False
    relabel: bool = False
    only_clean = False


FSR_METHODS = {
    "plain": FSRMethod(),
    "MixUp": FSRMethod(mixup=True),
    "FSR": FSRMethod(weighs=True),
    "FSR + MixUp": FSRMethod(weighs=True, mixup=True),
    "FSR, all of it": FSRMethod(weighs=True, mixup=True, relabel=True),
}


class FSRRun(Run):
    """Epochs of batches in a random order; SGD with momentum, whose buffers the look-ahead reads."""

    methods = FSR_METHODS
    learning_rate = 0.05

    def __init__(self, name: str, task: Task, settings: Settings, seed: int):
        super().__init__(name, task, settings, seed)
        examples = len(task.y)
        self.optimizer = torch.optim.SGD(self.model.parameters(), self.learning_rate, momentum=0.9, weight_decay=5e-4)
        self.epoch_steps = max(examples // settings.batch_size, 1)
        self.order = torch.empty(0, dtype=torch.int64)  # what is left of the epoch
        self.true_labels = task.true_labels
        self.mixup = MixUp(task.classes) if self.method.mixup else None
        self.fsr = None
        if self.method.weighs:
            relabel = Relabel(examples, task.classes, beta=BETA, p=P) if self.method.relabel else None
            self.fsr = FSR(
                self.model, examples, task.classes, dataset=TensorDataset(task.x, task.y), optimizer=self.optimizer,
                capacity=max(min(LARGEST, examples * 3 // 10), task.classes), q=settings.batch_size, warmup=WARMUP,
                mixup=self.mixup, relabel=relabel, seed=seed,
            )  # fmt: skip
        self.dictionary: list[tuple[int, float, float | None]] = []  # (steps, purity, share of zero weights) by epoch
        if self.fsr:
            self.dictionary.append((0, self.fsr.dictionary.purity(self.true_labels), None))

    def learn(self) -> tuple[Tensor, Tensor]:
        n = self.settings.batch_size
        if len(self.order) == 0:
            examples = len(self.task.y)
            self.order = torch.randperm(examples, generator=self.generator)[: self.epoch_steps * n]
        index, self.order = self.order[:n], self.order[n:]
        x, y = self.task.x[index], self.task.y[index]
        with torch.random.fork_rng(devices=()):  # MixUp draws from torch's generator: here, from this run's
            torch.manual_seed(int(torch.randint(2**62, (), generator=self.generator)))
            w = self.update(lambda: self._backward(index, x, y))
        if self.fsr and len(self.order) == 0:
            report = self.fsr.end_epoch(self.true_labels)
            self.dictionary.append((self.steps, report.purity, report.zero_share))
        return index, w

    def _backward(self, index: Tensor, x: Tensor, y: Tensor) -> Tensor:
        if self.fsr:
            return self.fsr.step(index, x, y).weights
        x, y = (x, y) if self.mixup is None else self.mixup(x, y)
        F.cross_entropy(self.model(x), y).backward()
        return torch.full((len(index),), 1 / len(index))

    def result(self) -> dict[str, Any]:
        return super().result() | {"dictionary": self.dictionary}

    def state_dict(self) -> dict[str, Any]:
        own = {"order": self.order.clone(), "dictionary": self.dictionary, "fsr": self.fsr and self.fsr.state_dict()}
        return super().state_dict() | own

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.order, self.dictionary = state["order"], state["dictionary"]
        if self.fsr:
            self.fsr.load_state_dict(state["fsr"])
