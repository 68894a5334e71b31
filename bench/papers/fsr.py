"""Zhang & Pfister's FSR as a method of a trial: its settings, and its epochs' reports beside its steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.utils.data import TensorDataset

from bench.papers.measure import _short

if TYPE_CHECKING:
    from bench.papers.training import Run
    from fastrw.fsr import FSRStep


@dataclass(frozen=True)
class Options:
    """Defaults: Table 4, CIFAR with noise, without re-labelling and MixUp ("FSR-Raw")."""

    capacity: int = 2000  # |R|
    q: int = 200
    pusher: str = "meta_margin"
    params: str | tuple[str, ...] = "last"  # Θ^meta
    normalize: str = "rectify"
    label_smoothing: float = 0.0
    warmup: int = 20  # epochs
    relabel: float = 0.0  # p of Eq. 7; 0: no re-labelling
    mixup: bool = False


class Learner:
    """FSR's steps and, after the last step of each epoch, its new dictionary."""

    def __init__(self, run: Run):
        from fastrw import fsr  # here: the other experiments do without

        options: Options = run.trial.fsr
        task, N = run.task, len(run.task.y)
        params = options.params if isinstance(options.params, str) else list(options.params)
        self.fsr = fsr.FSR(
            run.model, N, task.classes, dataset=TensorDataset(task.x, task.y), labels=task.y, optimizer=run.optimizer,
            capacity=options.capacity, q=options.q, pusher=fsr.PUSHERS[options.pusher](), params=params,
            normalize=options.normalize, label_smoothing=options.label_smoothing, warmup=options.warmup,
            seed=run.trial.seed, mixup=fsr.MixUp(task.classes) if options.mixup else None,
            relabel=fsr.Relabel(N, task.classes, p=options.relabel, device=task.x.device) if options.relabel else None,
        )  # fmt: skip
        self.true = task.true
        self.epoch_steps = max(1, N // min(run.trial.n, N))
        self.steps = 0
        self.epochs: list[list[float | None]] = []  # [purity, share of zero weights, loss]

    def step(self, index: Tensor, x: Tensor, y: Tensor) -> FSRStep:
        found = self.fsr.step(index, x, y)
        self.steps += 1
        return found

    def after(self) -> None:
        """Once the optimizer has stepped."""
        if self.steps % self.epoch_steps == 0:
            report = self.fsr.end_epoch(self.true)
            self.epochs.append([_short(report.purity), _short(report.zero_share), _short(report.loss)])

    def result(self) -> dict[str, Any]:
        return {"purity": self.epochs[-1][0] if self.epochs else None, "epochs": self.epochs}

    def state_dict(self) -> dict[str, Any]:
        return {"fsr": self.fsr.state_dict(), "steps": self.steps, "epochs": self.epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.fsr.load_state_dict(state["fsr"])
        self.steps, self.epochs = state["steps"], state["epochs"]
