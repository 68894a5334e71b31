"""Lemma 1 of Ren et al. 2018 on a problem whose constants are known: softmax regression on wrong labels, in float64.

    G(θ) = (1/M) Σ_j f^v_j(θ),   θ ← θ - (α/n) Σ_i max(∇G·∇f_i, 0) ∇f_i                              (Eq. 27 and 30)

G never rises while α ≤ 2n/(Lσ²), L the Lipschitz constant of ∇G and σ a bound of |∇f_i|. With logits W x̃ (x̃ the input
and a 1) both are known: the Hessian of softmax cross-entropy in its logits is at most 1/2, so L = λ_max(X̃ᵀX̃/M)/2; and
|∇f_i| = |p - onehot(y)| |x̃_i| ≤ √2 |x̃_i| = σ. L and σ hold for every θ, so that the check is one of the lemma itself.

The factor n of the bound is the lemma's: its Eq. 35-36 takes |Σ_i c_i ∇f_i|² for at most Σ_i c_i² |∇f_i|² by the
triangle inequality, which for n parallel gradients it exceeds n-fold. `safe` is the bound that holds without: 2/(Lσ²).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

import fastrw
from bench.papers.task import Data, make_task
from bench.papers.trial import Result, Trial, Work, short
from fastrw.demo.data import Images


@dataclass(frozen=True)
class Lemma(Trial):
    rate: float = 1.0  # α as a multiple of the lemma's bound
    rule: str = "lemma"  # "lemma": Eq. 30; "normalised": the weights of Eq. 9, which sum to 1
    n: int = 20
    clean: int = 5  # clean examples of each class: M in all, every one used at every step
    flip: float = 0.4
    steps: int = 2000

    def start(self, images: Images | None, device: str = "cpu") -> Descent:
        return Descent(self, images)


class Descent(Work):
    """The lemma's update; every batch comes from seed and step alone."""

    kept = ("done", "model", "loss", "slope", "rises", "largest_rise", "least_slope", "curve")

    def __init__(self, trial: Lemma, images: Images):
        self.trial, self.total = trial, trial.steps
        settings = Data(trial.data, trial.seed, clean=trial.clean, clean_in_training=True, noise="uniform",
                        flip=trial.flip, train=1000)  # fmt: skip
        task = make_task(images, settings)
        self.x, self.y = task.x.double().flatten(1), task.y
        self.x_val, self.y_val = task.x_clean.double().flatten(1), task.y_clean
        self.model = nn.Linear(self.x.shape[1], task.classes, dtype=torch.float64)
        nn.init.zeros_(self.model.weight)
        nn.init.zeros_(self.model.bias)
        self.L, self.sigma = constants(self.x_val, self.x)
        self.bound = 2 * trial.n / (self.L * self.sigma**2)
        self.loss, self.slope = self._look()
        self.first = self.loss
        self.rises, self.largest_rise, self.least_slope = 0, 0.0, self.slope
        self.curve: list[list[float]] = [[0, self.loss, self.slope, self.slope]]  # step, G, |∇G|², least |∇G|²

    def step(self) -> None:
        trial = self.trial
        torch.manual_seed(trial.seed * 1_000_003 + self.done)
        index = torch.randperm(len(self.y))[: trial.n]
        batch, val = (self.x[index], self.y[index]), (self.x_val, self.y_val)
        alpha = trial.rate * self.bound
        self.model.zero_grad()
        if trial.rule == "lemma":
            s = fastrw.gradient_dots(self.model, batch, val)
            w = s.clamp(min=0) / trial.n
            losses = nn.functional.cross_entropy(self.model(batch[0]), batch[1], reduction="none")
            (w * losses).sum().backward()
        else:
            fastrw.Reweighter(self.model).backward(batch, val)
        with torch.no_grad():
            for p in self.model.parameters():
                p.sub_(p.grad, alpha=alpha)
        before, (self.loss, self.slope) = self.loss, self._look()
        self.done += 1
        self.least_slope = min(self.least_slope, self.slope)
        if self.loss > before:
            self.rises += 1
            self.largest_rise = max(self.largest_rise, self.loss - before)
        if self.done % max(1, self.total // 40) == 0:
            self.curve.append([self.done, self.loss, self.slope, self.least_slope])

    def _look(self) -> tuple[float, float]:
        """G and |∇G|²."""
        loss = nn.functional.cross_entropy(self.model(self.x_val), self.y_val)
        gradients = torch.autograd.grad(loss, list(self.model.parameters()))
        return loss.item(), sum(g.square().sum().item() for g in gradients)

    def result(self) -> Result:
        return {
            "L": short(self.L), "sigma": short(self.sigma), "bound": short(self.bound),
            "safe": short(self.bound / self.trial.n), "first": short(self.first), "last": short(self.loss),
            "rises": self.rises, "largest_rise": short(self.largest_rise),
            "curve": [[*map(short, row)] for row in self.curve],
        }  # fmt: skip


def constants(x_val: Tensor, x: Tensor) -> tuple[float, float]:
    """L and σ of softmax regression with a bias: x_val [M, p], x [N, p] float64."""
    with_bias = torch.cat([x_val, x_val.new_ones(len(x_val), 1)], 1)
    L = torch.linalg.eigvalsh(with_bias.T @ with_bias / len(x_val))[-1].item() / 2
    sigma = (2 * (x.square().sum(1).max() + 1)).sqrt().item()
    return L, sigma


def counterexample(n: int, start: float = 1.0) -> dict[str, float]:
    """G before one step and after it, from θ = `start`, where every example is the same: f(θ) = log cosh θ.

    f has a 1-Lipschitz gradient (L = 1) below 1 in size (σ = 1), so that the lemma allows α = 2n and 2 is safe.
    """
    theta = torch.tensor([start], dtype=torch.float64)
    found = {"before": theta.cosh().log().item()}
    for name, alpha in (("lemma", 2.0 * n), ("safe", 2.0)):
        g = theta.tanh()
        after = theta - alpha / n * n * (g * g).clamp(min=0) * g  # Eq. 30: n equal terms
        found[name] = after.cosh().log().item()
    return found
