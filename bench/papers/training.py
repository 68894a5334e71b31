"""A trial that trains one network by one method on one spoilt set: its settings, its steps, what is kept of it."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.papers.measure import Watch, probe
from bench.papers.methods import METHODS
from bench.papers.models import make_model
from bench.papers.task import Data, make_task
from bench.papers.trial import Result, Work, short
from fastrw import fsr
from fastrw.demo.data import Images
from fastrw.demo.learners import L2R, Batch, ByRule, FSRLearner, Learner, Mixed, cosine, train_step
from fastrw.demo.measure import test_scores


@dataclass(frozen=True)
class Options:
    """FSR's. Defaults: Zhang & Pfister 2021, Table 4, CIFAR with noise, without re-labelling and MixUp ("FSR-Raw")."""

    capacity: int = 2000  # |R|
    q: int = 200
    pusher: str = "meta_margin"
    params: str | tuple[str, ...] = "last"  # Θ^meta
    normalize: str = "rectify"
    label_smoothing: float = 0.0
    warmup: int = 20  # epochs
    relabel: float = 0.0  # p of Eq. 7; 0: no re-labelling
    mixup: bool = False


@dataclass(frozen=True)
class Training(Data):
    # how the network learns
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
    params: str | tuple[str, ...] | None = None  # L2R: parameters whose gradients are compared
    fine_tune: int = 0  # further steps on the clean set alone
    fine_tune_lr: float = 0.01
    # what is measured
    points: int = 12  # of the curve
    probe: bool = False  # the weights of held-out examples at half of the steps
    fsr: Options | None = None

    def start(self, images: Images | None, device: str = "cpu") -> Run:
        return Run(self, images, device)

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        if self.schedule == "cosine":
            return cosine(self.lr, step, self.steps)
        passed = sum(step >= share * self.steps for share in self.milestones) if self.schedule == "steps" else 0
        return self.lr * 0.1**passed


class Run(Work):
    """One training in progress. The random state of a step depends on seed and step alone, so that a stopped run
    resumes exactly without a saved random state."""

    kept = ("done", "model", "optimizer", "learner", "watch", "found")

    def __init__(self, trial: Training, images: Images, device: str):
        self.trial, self.task, self.method = trial, make_task(images, trial, device), METHODS[trial.method]
        self.model = make_model(trial.model, tuple(self.task.x.shape[1:]), self.task.classes, trial.seed).to(device)
        if trial.optimizer == "adam":
            self.optimizer = torch.optim.Adam(self.model.parameters(), trial.lr, weight_decay=trial.weight_decay)
        else:
            options = {"momentum": trial.momentum, "weight_decay": trial.weight_decay}
            self.optimizer = torch.optim.SGD(self.model.parameters(), trial.lr, **options)
        task = self.task
        self.x, self.y = (task.x_clean, task.y_clean) if self.method.only_clean else (task.x, task.y)
        self.n = min(trial.n, len(self.y))
        self.learner = self._learner()
        # fine-tuning: of the end of the main training, and of the model that did best on the held-out examples
        self.phases = 2 if trial.fine_tune and trial.held else 1 if trial.fine_tune else 0
        self.total = trial.steps + self.phases * trial.fine_tune
        self.watch = Watch(len(task.y))
        self.found: Result = {}

    def _learner(self) -> Learner:
        trial = self.trial
        if trial.method == "l2r":
            return L2R(self.model, every=trial.every, params=_listed(trial.params))
        if trial.method == "fsr":
            options = asdict(trial.fsr)
            options |= {"pusher": fsr.PUSHERS[trial.fsr.pusher](), "params": _listed(trial.fsr.params)}
            return FSRLearner(self.model, self.task, self.optimizer, self.n, seed=trial.seed, **options)
        return ByRule(self.model, partial(self.method.rule, task=self.task))

    def step(self) -> None:
        trial, fine_tuning = self.trial, self.done >= self.trial.steps
        torch.manual_seed(trial.seed * 1_000_003 + self.done)
        if fine_tuning:
            self._train(Mixed(self.model), trial.fine_tune_lr, torch.empty(0), *self._clean_batch(trial.n))
        else:
            index = self.method.sample(self.model, self.x, self.y, self.n, trial.seed, self.done)
            x = crop_and_flip(self.x[index]) if trial.augment else self.x[index]
            w = self._train(self.learner, trial.rate(self.done), index, x, self.y[index])
            if not self.method.only_clean and 2 * self.done >= trial.steps:
                self.watch.weights.add(index, w)
        self.done += 1
        if not fine_tuning:
            self._look()
        phase, rest = divmod(self.done - trial.steps, trial.fine_tune or 1)
        if self.phases and phase >= 0 and rest == 0:
            self._phase_ends(phase)

    def _train(self, learner: Learner, rate: float, index: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return train_step(learner, self.optimizer, rate, index, x, y, lambda: self._clean_batch(self.trial.m))

    def _clean_batch(self, size: int) -> Batch:
        """`size` clean examples, all of them where there are no more."""
        kept = torch.randperm(len(self.task.y_clean))[:size].to(self.task.y.device)
        x = self.task.x_clean[kept]
        return (crop_and_flip(x) if self.trial.augment else x), self.task.y_clean[kept]

    def _look(self) -> None:
        """A point of the curve where one is due; at the end of the main training, the test set and the probe."""
        trial, task = self.trial, self.task
        if self.done == trial.steps or self.done % max(1, round(trial.steps / trial.points)) == 0:
            self.watch.point(self.done, self.model, task)
        if trial.probe and trial.method == "l2r" and self.done == max(1, trial.steps // 2):
            weights = self.learner.reweighter.weights
            self.found["probe"] = probe(lambda x, y: weights((x, y), self._clean_batch(trial.m)), task, trial.n,
                                        trial.flip if trial.noise == "background" else None)  # fmt: skip
        if self.done == trial.steps:
            self.found |= test_scores(self.model, task)
            if self.watch.best is not None:
                best = copy.deepcopy(self.model)
                best.load_state_dict(self.watch.best)
                self.found["stopped"] = test_scores(best, task)

    def _phase_ends(self, phase: int) -> None:
        """0: main training, 1: fine-tuning of its end, 2: fine-tuning of its early-stopped model."""
        if phase:
            name = "fine_tuned" if phase == 1 else "stopped_fine_tuned"
            self.found[name] = test_scores(self.model, self.task)
        if phase < self.phases:
            self.optimizer.state.clear()
            if phase == 1:
                self.model.load_state_dict(self.watch.best)

    def result(self) -> Result:
        found = {**self.found, **self.watch.result(self.task)}
        if self.trial.method == "fsr":
            epochs = [[*map(short, epoch[1:])] for epoch in self.learner.epochs[1:]]
            found |= {"purity": epochs[-1][0] if epochs else None, "epochs": epochs}
        return found | {"N": len(self.task.y), "M": len(self.task.y_clean)}


def _listed(params: str | tuple[str, ...] | None) -> str | list[str] | None:
    return list(params) if isinstance(params, tuple) else params


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
