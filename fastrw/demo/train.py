"""One method trained on one task from one seed, step by step, with a state that can be saved and taken up again.

With fastrw a training step is the ordinary step with another backward:

    step = fastrw.Reweighter(model)
    optimizer.zero_grad()
    w = step.backward((x, y), (xv, yv)).weights   # [n]; the weighted gradient is in .grad
    optimizer.step()
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from torch import Tensor
from torch.nn import functional as F

import fastrw
from fastrw.demo.methods import METHODS, Batch
from fastrw.demo.models import make_model
from fastrw.demo.noise import Task
from fastrw.demo.settings import LEARNING_RATE, Settings

EVALUATIONS = 12  # points on a run's curve
WATCHED = 2000  # test images behind each point but the last, which takes them all


class Run:
    methods: dict[str, Any] = METHODS
    learning_rate = LEARNING_RATE

    def __init__(self, name: str, task: Task, settings: Settings, seed: int):
        self.name, self.task, self.settings, self.seed = name, task, settings, seed
        self.method = self.methods[name]
        self.model = make_model(tuple(task.x.shape[1:]), task.classes, seed)
        self.reweighter = fastrw.Reweighter(self.model)
        self.optimizer = torch.optim.Adam(self.model.parameters(), LEARNING_RATE)
        self.generator = torch.Generator().manual_seed(seed)
        examples = torch.arange(len(task.y))
        self.clean = examples[task.clean]
        self.pool = self.clean if self.method.only_clean else examples
        self.label_counts = torch.bincount(task.y, minlength=task.classes).float()
        self.watched = torch.randperm(len(task.y_test), generator=torch.Generator().manual_seed(seed))[:WATCHED]
        self.steps = 0
        self.curve: list[tuple[int, float]] = []  # (steps, test accuracy)
        self.weight_sum = torch.zeros(len(task.y), dtype=torch.float64)  # of n * w_i over the second half of the steps
        self.times_seen = torch.zeros(len(task.y), dtype=torch.float64)

    @property
    def done(self) -> bool:
        return self.steps == self.settings.steps

    def step(self) -> None:
        index, w = self.learn()
        if 2 * self.steps > self.settings.steps:
            self.weight_sum[index] += len(index) * w.double()
            self.times_seen[index] += 1
        if self.done or self.steps % math.ceil(self.settings.steps / EVALUATIONS) == 0:
            watched = slice(None) if self.done else self.watched
            right = self.predictions(self.task.x_test[watched]) == self.task.y_test[watched]
            self.curve.append((self.steps, right.double().mean().item()))

    def learn(self) -> tuple[Tensor, Tensor]:
        """One training step; the batch's indices and weights [n]."""
        index, (x, y), (xv, yv) = self.draw()
        if self.method.one_pass:
            w = self.update(lambda: self.reweighter.backward((x, y), (xv, yv)).weights)
        else:
            w = self.method.weights(self, (x, y), (xv, yv))
            losses = F.cross_entropy(self.model(x), y, reduction="none")
            self.update((w * losses).sum().backward)
        return index, w

    def draw(self) -> tuple[Tensor, Batch, Batch]:
        """Indices [n] of a training batch, that batch, and m clean examples (all of them if they are at most n)."""
        n = self.settings.batch_size
        index = self.pool[torch.randperm(len(self.pool), generator=self.generator)[:n]]
        val = self.clean[torch.randperm(len(self.clean), generator=self.generator)[:n]]
        return index, (self.task.x[index], self.task.y[index]), (self.task.x[val], self.task.y[val])

    def update(self, backward: Callable[[], Any]) -> Any:
        """One step of the optimizer on the gradients that `backward` leaves; what it returned."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * (1 + math.cos(math.pi * self.steps / self.settings.steps)) / 2
        self.optimizer.zero_grad()
        found = backward()
        self.optimizer.step()
        self.steps += 1
        return found

    @torch.no_grad()
    def predictions(self, images: Tensor) -> Tensor:
        return torch.cat([self.model(x).argmax(1) for x in images.split(1000)])

    def result(self) -> dict[str, Any]:
        """What is kept of a finished run.

        `weights` [N - clean] float64 are the mean n * w_i of each spoilt example over the second half of the steps
        (1 is the plain weight), NaN where it was not seen. `auc` is how well they tell right labels from flipped ones:
        the chance that a random right one has more than a random flipped one.
        """
        spoilt = len(self.task.flipped)
        weights, flipped = (self.weight_sum / self.times_seen)[:spoilt], self.task.flipped
        seen = ~weights.isnan()
        both_kinds = len(flipped[seen].unique()) == 2
        return {
            "method": self.name,
            "seed": self.seed,
            "accuracy": self.curve[-1][1],
            "balanced_accuracy": float(balanced_accuracy_score(self.task.y_test, self.predictions(self.task.x_test))),
            "auc": float(roc_auc_score(~flipped[seen], weights[seen])) if both_kinds else None,
            "curve": self.curve,
            "weights": weights,
            "flipped": flipped,
        }

    def state_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "seed": self.seed,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            **{name: getattr(self, name) for name in ("steps", "curve", "weight_sum", "times_seen")},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        for name in ("steps", "curve", "weight_sum", "times_seen"):
            setattr(self, name, state[name])
