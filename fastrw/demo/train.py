"""One method trained on one task from one seed, step by step, with a state that can be saved and resumed."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastrw.demo import learners
from fastrw.demo.learners import Batch, Learner
from fastrw.demo.measure import WeightRecord, accuracy, auc, test_scores
from fastrw.demo.models import make_model
from fastrw.demo.noise import Task
from fastrw.demo.resume import Resumable
from fastrw.demo.settings import Settings

POINTS = 12  # of a run's curve
WATCHED = 2000  # test images behind each point but the last, which takes them all
FSR_WARMUP = 2  # epochs
LARGEST = 2000  # |R| of Table 4 of Zhang & Pfister 2021; a third of the examples where they are few


@dataclass(frozen=True)
class Method:
    use_of_clean: str = ""  # the table's word for what the method does with the clean examples
    rule: learners.Rule | None = learners.equal  # None: weights by gradients
    only_clean: bool = False  # trains on the clean examples and nothing else
    mixup: bool = False
    relabel: float = 0.0  # factor of the loss against averaged predictions (p of Table 4)


METHODS = {
    "plain": Method("train"),
    "inverse frequency": Method("train", learners.inverse_frequency),
    "random (Eq. 16)": Method("train", learners.random_weights),
    "clean only": Method("alone", only_clean=True),
    "fastrw": Method("train, weigh", None),
}
FSR_METHODS = {  # without clean examples
    "plain": Method(),
    "MixUp": Method(mixup=True),
    "FSR": Method(rule=None),
    "FSR + MixUp": Method(rule=None, mixup=True),
    "FSR, all of it": Method(rule=None, mixup=True, relabel=2.0),
}


class Run(Resumable):
    """Batches and clean batches drawn anew at each step; Adam."""

    kept = ("name", "seed", "steps", "curve", "model", "optimizer", "generator", "learner", "weights")
    methods = METHODS
    rate = 2e-3  # falling to 0 along a cosine; the same for every method

    def __init__(self, name: str, task: Task, settings: Settings, seed: int):
        self.name, self.task, self.settings, self.seed = name, task, settings, seed
        self.method = self.methods[name]
        self.model = make_model(tuple(task.x.shape[1:]), task.classes, seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.optimizer = self.make_optimizer()
        self.learner = self.make_learner()
        self.watched = torch.randperm(len(task.y_test), generator=torch.Generator().manual_seed(seed))[:WATCHED]
        self.steps = 0
        self.curve: list[tuple[int, float]] = []  # (steps, test accuracy)
        self.weights = WeightRecord(len(task.y))  # of the second half of the steps

    def make_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.model.parameters(), self.rate)

    def make_learner(self) -> Learner:
        if self.method.rule is None:
            return learners.L2R(self.model)
        return learners.ByRule(self.model, partial(self.method.rule, task=self.task, generator=self.generator))

    @property
    def done(self) -> bool:
        return self.steps == self.settings.steps

    def step(self) -> None:
        index, w = self.learn()
        if 2 * self.steps > self.settings.steps and not self.method.only_clean:
            self.weights.add(index, w)
        if self.done or self.steps % math.ceil(self.settings.steps / POINTS) == 0:
            watched = slice(None) if self.done else self.watched
            self.curve.append((self.steps, accuracy(self.model, self.task.x_test[watched], self.task.y_test[watched])))

    def learn(self) -> tuple[Tensor, Tensor]:
        """One training step: where its batch is in the training set [n], and the weights [n]."""
        index, x, y, clean = self.draw()
        rate = learners.cosine(self.rate, self.steps, self.settings.steps)
        w = learners.train_step(self.learner, self.optimizer, rate, index, x, y, lambda: clean)
        self.steps += 1
        return index, w

    def draw(self) -> tuple[Tensor, Tensor, Tensor, Batch]:
        """index [n] of a batch, x and y of it, and m clean examples (all of them if they are at most n)."""
        task, n = self.task, self.settings.batch_size
        x, y = (task.x_clean, task.y_clean) if self.method.only_clean else (task.x, task.y)
        index, clean = (torch.randperm(len(of), generator=self.generator)[:n] for of in (y, task.y_clean))
        return index, x[index], y[index], (task.x_clean[clean], task.y_clean[clean])

    def result(self) -> dict[str, Any]:
        """What is kept of a finished run; `weights` [N - M] are those of the spoilt examples, see `WeightRecord`."""
        spoilt = len(self.task.y) - len(self.task.y_clean)
        weights, flipped = self.weights.means[:spoilt], (self.task.y != self.task.true)[:spoilt]
        return {
            "method": self.name,
            "seed": self.seed,
            "accuracy": self.curve[-1][1],
            "balanced_accuracy": test_scores(self.model, self.task)["balanced_accuracy"],
            "auc": auc(weights, ~flipped),
            "curve": self.curve,
            "weights": weights,
            "flipped": flipped,
        }


class FSRRun(Run):
    """Epochs of batches in a random order; SGD with momentum, from whose buffers FSR's look-ahead starts."""

    kept = (*Run.kept, "order")
    methods = FSR_METHODS
    rate = 0.05

    def __init__(self, name: str, task: Task, settings: Settings, seed: int):
        super().__init__(name, task, settings, seed)
        self.order = torch.empty(0, dtype=torch.int64)  # what is left of the epoch

    def make_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.model.parameters(), self.rate, momentum=0.9, weight_decay=5e-4)

    def make_learner(self) -> Learner:
        method, task, n = self.method, self.task, self.settings.batch_size
        if method.rule is not None:
            return learners.Mixed(self.model, task.classes if method.mixup else None)
        capacity = max(min(LARGEST, len(task.y) * 3 // 10), task.classes)
        return learners.FSRLearner(self.model, task, self.optimizer, n, relabel=method.relabel, mixup=method.mixup,
                          capacity=capacity, q=n, warmup=FSR_WARMUP, seed=self.seed)  # fmt: skip

    def learn(self) -> tuple[Tensor, Tensor]:
        with torch.random.fork_rng(devices=()):  # MixUp draws from torch's generator: here, from this run's
            return super().learn()

    def draw(self) -> tuple[Tensor, Tensor, Tensor, Batch]:
        task, n = self.task, self.settings.batch_size
        if len(self.order) == 0:
            N = len(task.y)
            self.order = torch.randperm(N, generator=self.generator)[: max(1, N // n) * n]
        index, self.order = self.order[:n], self.order[n:]
        torch.manual_seed(int(torch.randint(2**62, (), generator=self.generator)))
        return index, task.x[index], task.y[index], (task.x_clean, task.y_clean)

    def result(self) -> dict[str, Any]:
        """Also the best accuracy during training, and FSR's dictionary by epoch (see `FSRLearner`) and at the end."""
        found, epochs = super().result(), getattr(self.learner, "epochs", [])
        _, purity, zero_share, _ = epochs[-1] if epochs else (None,) * 4
        own = {"best": max(share for _, share in self.curve), "purity": purity, "zero_share": zero_share}
        return found | own | {"auc": found["auc"] if self.method.rule is None else None, "dictionary": epochs}
