"""A trial that trains one network by one method on one spoilt set: its settings, its steps, what is kept of it."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import fastrw
from bench.papers.fsr import Learner, Options
from bench.papers.measure import Watch, probe, test_scores
from bench.papers.methods import METHODS, Method
from bench.papers.models import make_model
from bench.papers.task import Task, make_task
from bench.papers.trial import Result, Trial
from fastrw.demo.data import Images


@dataclass(frozen=True)
class Training(Trial):
    # the training set
    pair: tuple[int, int] | None = None  # these two classes alone, as classes 0 and 1
    imbalance: str = "none"  # as spoil.class_counts
    ratio: float = 1.0
    train: int | None = None  # training examples; None: all there are
    noise: str = "none"  # as spoil.flip_labels
    flip: float = 0.0
    background: int | None = None  # None: by seed, as the paper's five trials
    held: int = 0  # examples held out, spoilt as the training set
    clean: int = 10  # clean examples of each class
    clean_in_training: bool = False
    # how it is learnt
    method: str = "plain"
    model: str = "convnet"
    steps: int = 600
    n: int = 100
    m: int = 100  # clean examples in a validation batch, at most
    optimizer: str = "sgd"  # or "adam"
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "steps"  # "steps": a tenth at each milestone; "cosine"; "constant"
    milestones: tuple[float, ...] = (0.5, 0.75)  # as shares of the steps
    augment: bool = False  # crops of the image padded by 4, and flips
    every: int = 1  # L2R: weights at one step in so many
    params: str | tuple[str, ...] | None = None  # L2R: whose gradients are compared
    fine_tune: int = 0  # further steps on the clean set alone
    fine_tune_lr: float = 0.01
    # what is looked at
    points: int = 12  # of the curve
    probe: bool = False  # the weights of held-out examples at half of the steps
    fsr: Options | None = None

    def start(self, images: Images | None, device: str = "cpu") -> Run:
        return Run(self, images, device)

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        if self.schedule == "cosine":
            return self.lr * (1 + math.cos(math.pi * step / self.steps)) / 2
        passed = sum(step >= share * self.steps for share in self.milestones) if self.schedule == "steps" else 0
        return self.lr * 0.1**passed


class Run:
    """One training under way (a `Work`). Every step draws from a random state of its own, made of seed and step alone:
    model, optimizer and counts are all that a stopped run needs to go on as if never stopped."""

    def __init__(self, trial: Training, images: Images, device: str):
        self.trial = trial
        self.task: Task = make_task(images, trial, device)
        self.method: Method = METHODS[trial.method]
        self.model = make_model(trial.model, tuple(self.task.x.shape[1:]), self.task.classes, trial.seed).to(device)
        if trial.optimizer == "adam":
            self.optimizer = torch.optim.Adam(self.model.parameters(), trial.lr, weight_decay=trial.weight_decay)
        else:
            options = {"momentum": trial.momentum, "weight_decay": trial.weight_decay}
            self.optimizer = torch.optim.SGD(self.model.parameters(), trial.lr, **options)
        self.learner = self._learner()
        self.done = 0
        self.phases = 2 if trial.fine_tune and trial.held else 1 if trial.fine_tune else 0
        self.total = trial.steps + self.phases * trial.fine_tune
        N = len(self.task.y)
        self.label_counts = torch.bincount(self.task.y, minlength=self.task.classes).float()
        right = torch.bincount(self.task.y[self.task.y == self.task.true], minlength=self.task.classes).float()
        self.clean_share = right / self.label_counts.clamp(min=1)
        self.pool_size = N if not self.method.only_clean else len(self.task.y_clean)
        self.batch_size = min(trial.n, self.pool_size)
        self.watch = Watch(N)
        self.found: Result = {}

    def _learner(self) -> Any:
        trial = self.trial
        if trial.method == "l2r":
            params = list(trial.params) if isinstance(trial.params, tuple) else trial.params
            return fastrw.Reweighter(self.model, every=trial.every, params=params)
        if trial.method == "fsr":
            return Learner(self)
        return None

    def step(self) -> None:
        torch.manual_seed(self.trial.seed * 1_000_003 + self.done)
        if self.done < self.trial.steps:
            self._train()
            self.done += 1
            self._look()
        else:
            self._fine_tune()
            self.done += 1
        if self.phases and (self.done - self.trial.steps) % self.trial.fine_tune == 0 and self.done >= self.trial.steps:
            self._between()

    def _train(self) -> None:
        trial, task = self.trial, self.task
        index = self.method.sample(self)
        x, y = (task.x_clean, task.y_clean) if self.method.only_clean else (task.x, task.y)
        x, y = x[index], y[index]
        if trial.augment:
            x = crop_and_flip(x)
        for group in self.optimizer.param_groups:
            group["lr"] = trial.rate(self.done)
        self.optimizer.zero_grad()
        if trial.method == "fsr":
            w = self.learner.step(index, x, y).weights
        elif self.learner is not None:
            w = self.learner.backward((x, y), self.clean_batch()).weights
        else:
            w = self.method.weights(self, y)
            (w * F.cross_entropy(self.model(x), y, reduction="none")).sum().backward()
        self.optimizer.step()
        if trial.method == "fsr":
            self.learner.after()
        if not self.method.only_clean and 2 * self.done >= trial.steps:
            self.watch.saw(index, w)

    def clean_batch(self) -> tuple[Tensor, Tensor]:
        """m clean examples, all of them where there are no more."""
        kept = torch.randperm(len(self.task.y_clean))[: self.trial.m].to(self.task.y.device)
        x = self.task.x_clean[kept]
        return (crop_and_flip(x) if self.trial.augment else x), self.task.y_clean[kept]

    def _fine_tune(self) -> None:
        task = self.task
        kept = torch.randperm(len(task.y_clean))[: self.trial.n].to(task.y.device)
        x = crop_and_flip(task.x_clean[kept]) if self.trial.augment else task.x_clean[kept]
        for group in self.optimizer.param_groups:
            group["lr"] = self.trial.fine_tune_lr
        self.optimizer.zero_grad()
        F.cross_entropy(self.model(x), task.y_clean[kept]).backward()
        self.optimizer.step()

    def _look(self) -> None:
        """A point of the curve where one is due; at the end of the main training, the test set and the probe."""
        trial = self.trial
        due = self.done == trial.steps or self.done % max(1, round(trial.steps / trial.points)) == 0
        if due:
            self.watch.point(self.done, self.model, self.task)
        if trial.probe and trial.method == "l2r" and self.done == max(1, trial.steps // 2):
            self.found["probe"] = probe(self)
        if self.done == trial.steps:
            self.found |= test_scores(self.model, self.task)
            if self.watch.best is not None:
                self.found["stopped"] = test_scores(self._with(self.watch.best), self.task)

    def _between(self) -> None:
        """The ends of the phases: main training, fine-tuning of its end, fine-tuning of its early-stopped model."""
        phase = (self.done - self.trial.steps) // self.trial.fine_tune
        if phase == 0:
            self.optimizer.state.clear()
        else:
            self.found["fine_tuned" if phase == 1 else "stopped_fine_tuned"] = test_scores(self.model, self.task)
            if phase == 1 and self.phases == 2:
                self.model.load_state_dict(self.watch.best)
                self.optimizer.state.clear()

    def _with(self, state: dict[str, Tensor]) -> torch.nn.Module:
        model = copy.deepcopy(self.model)
        model.load_state_dict(state)
        return model

    def result(self) -> Result:
        learnt = self.learner.result() if self.trial.method == "fsr" else {}
        sizes = {"N": len(self.task.y), "M": len(self.task.y_clean)}
        return {**self.found, **self.watch.result(self.task), **learnt, **sizes}

    def state_dict(self) -> dict[str, Any]:
        learner = self.learner.state_dict() if self.learner is not None else None
        return {
            "done": self.done,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "learner": learner,
            "watch": self.watch.state_dict(),
            "found": self.found,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.done, self.found = state["done"], state["found"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.learner is not None:
            self.learner.load_state_dict(state["learner"])
        self.watch.load_state_dict(state["watch"])


def crop_and_flip(x: Tensor, pad: int = 4) -> Tensor:
    """Each image padded by zeros, cut at a random place to its own size, and mirrored with probability 1/2.
    [n, C, H, W] -> the same."""
    n, _, H, W = x.shape
    top, left = (torch.randint(2 * pad + 1, (n, 1)).to(x.device) for _ in range(2))
    columns = torch.arange(W, device=x.device).expand(n, W)
    columns = torch.where((torch.rand(n, 1) < 0.5).to(x.device), columns.flip(1), columns) + left
    rows = torch.arange(H, device=x.device) + top
    padded = F.pad(x, (pad,) * 4)
    images = torch.arange(n, device=x.device)[:, None, None]
    return padded[images, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
