"""Methods of weighting a training batch: each leaves sum_i w_i grad f_i in `.grad` and returns the weights w [n].

With fastrw a training step is the ordinary step with another backward:

    step = fastrw.Reweighter(model)
    optimizer.zero_grad()
    w = step.backward((x, y), (xv, yv)).weights   # [n]; the weighted gradient is in .grad
    optimizer.step()

and without clean examples:

    fsr = fastrw.fsr.FSR(model, len(train_set), classes, dataset=train_set, optimizer=optimizer)
    optimizer.zero_grad()
    w = fsr.step(index, x, y).weights
    optimizer.step()
    ...
    fsr.end_epoch()   # the dictionary takes the examples that were learned best
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.utils.data import TensorDataset

import fastrw
from fastrw.demo.noise import Task
from fastrw.demo.resume import Resumable
from fastrw.fsr import FSR, MixUp, Relabel

Batch = tuple[Tensor, Tensor]  # x [n, C, H, W] float32, y [n] int64
Rule = Callable[[Tensor, Task, torch.Generator | None], Tensor]  # weights from the labels y [n] alone


def equal(y: Tensor, task: Task, generator: torch.Generator | None = None) -> Tensor:
    """w_i = 1/n: the mean loss of ordinary training."""
    return torch.full((len(y),), 1 / len(y), device=y.device)


def inverse_frequency(y: Tensor, task: Task, generator: torch.Generator | None = None) -> Tensor:
    """w_i = 1/count(y_i), normalized to sum 1: rare classes count as much as others (PROPORTION, Ren et al. 4.1)."""
    w = 1 / task.label_counts[y]
    return w / w.sum()


def random_weights(y: Tensor, task: Task, generator: torch.Generator | None = None) -> Tensor:
    """w_i = max(z_i, 0) / sum_k max(z_k, 0), z_i ~ N(0, 1) (RANDOM, Ren et al. 2018, Eq. 16)."""
    z = torch.randn(len(y), generator=generator).clamp(min=0).to(y.device)
    return z / z.sum().clamp(min=torch.finfo(z.dtype).tiny)


class Learner(Resumable):
    """One method on one model. `clean()` draws a clean batch, for the methods that need one."""

    def __init__(self, model: nn.Module):
        self.model = model

    def backward(self, index: Tensor, x: Tensor, y: Tensor, clean: Callable[[], Batch]) -> Tensor:
        """index [n]: where the batch x [n, C, H, W], y [n] is in the training set -> w [n]."""
        raise NotImplementedError

    def stepped(self) -> None:
        """Called after each step of the optimizer."""


class ByRule(Learner):
    def __init__(self, model: nn.Module, rule: Callable[[Tensor], Tensor]):
        super().__init__(model)
        self.rule = rule

    def backward(self, index, x, y, clean):
        w = self.rule(y)
        (w * F.cross_entropy(self.model(x), y, reduction="none")).sum().backward()
        return w


class Mixed(Learner):
    """Plain training on the mean loss, with MixUp where `classes` is given."""

    def __init__(self, model: nn.Module, classes: int | None = None):
        super().__init__(model)
        self.mixup = classes and MixUp(classes)

    def backward(self, index, x, y, clean):
        if self.mixup:
            x, y = self.mixup(x, y)
        F.cross_entropy(self.model(x), y).backward()
        return torch.full((len(y),), 1 / len(y))


class L2R(Learner):
    """w_i = max(s_i, 0) / sum_k max(s_k, 0): how much example i helps the clean ones (Ren et al. 2018, Eq. 7-9)."""

    kept = ("reweighter",)

    def __init__(self, model: nn.Module, **options: Any):
        super().__init__(model)
        self.reweighter = fastrw.Reweighter(model, **options)

    def backward(self, index, x, y, clean):
        return self.reweighter.backward((x, y), clean()).weights


class DoubleBackward(Learner):
    """The same weights by Ren et al. 2018, Algorithm 1, as printed: what they cost without fastrw."""

    def backward(self, index, x, y, clean):
        parameters = dict(self.model.named_parameters())
        losses = F.cross_entropy(self.model(x), y, reduction="none")
        epsilon = torch.zeros_like(losses, requires_grad=True)
        gradients = torch.autograd.grad((epsilon * losses).sum(), [*parameters.values()], create_graph=True)
        ahead = {name: p - g for (name, p), g in zip(parameters.items(), gradients, strict=True)}
        xv, yv = clean()
        val_loss = F.cross_entropy(functional_call(self.model, ahead, (xv,)), yv)
        (slope,) = torch.autograd.grad(val_loss, epsilon, retain_graph=True)
        w = (-slope).clamp(min=0)
        w = w / (w.sum() + (w.sum() == 0))
        (w * losses).sum().backward()
        return w


class FSRLearner(Learner):
    """Zhang & Pfister 2021: weights without clean examples, optionally re-labelling (factor `relabel`) and MixUp."""

    kept = ("fsr", "steps", "epochs")

    def __init__(self, model: nn.Module, task: Task, optimizer: Optimizer, n: int, *, relabel: float, mixup: bool,
                 **options: Any):  # fmt: skip
        super().__init__(model)
        N, classes, device = len(task.y), task.classes, task.y.device
        self.fsr = FSR(
            model, N, classes, dataset=TensorDataset(task.x, task.y), labels=task.y, optimizer=optimizer,
            mixup=MixUp(classes) if mixup else None,
            relabel=Relabel(N, classes, p=relabel, device=device) if relabel else None, **options,
        )  # fmt: skip
        self.true, self.epoch_steps, self.steps = task.true, max(1, N // n), 0
        # (steps, purity of the dictionary, share of zero weights, mean loss), at the start and after each epoch
        self.epochs: list[tuple] = [(0, self.fsr.dictionary.purity(self.true), None, None)]

    def backward(self, index, x, y, clean):
        return self.fsr.step(index, x, y).weights

    def stepped(self) -> None:
        self.steps += 1
        if self.steps % self.epoch_steps == 0:
            report = self.fsr.end_epoch(self.true)
            self.epochs.append((self.steps, report.purity, report.zero_share, report.loss))


def train_step(learner: Learner, optimizer: Optimizer, rate: float, index: Tensor, x: Tensor, y: Tensor,
               clean: Callable[[], Batch]) -> Tensor:  # fmt: skip
    """One step of the optimizer at this learning rate on the gradient that the learner leaves -> w [n]."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    w = learner.backward(index, x, y, clean)
    optimizer.step()
    learner.stepped()
    return w


def cosine(rate: float, step: int, steps: int) -> float:
    """The learning rate of a step, falling from `rate` to 0."""
    return rate * (1 + math.cos(math.pi * step / steps)) / 2
