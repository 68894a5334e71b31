"""What a step and an epoch report: weights, losses, the share of zero weights, the purity of the dictionary."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass
class FSRStep:
    """The result of `FSR.step`. Tensors stay on their device, without a graph."""

    weights: Tensor  # [b] w_i; 1/b in the warm-up
    losses: Tensor  # [b] f_i of the weighted loss
    scores: Tensor | None  # [b] -∂L^R/∂ω_i at ω = 1/b; None in the warm-up
    reward_loss: Tensor | None  # 0-d L^R(Θ̂); None in the warm-up
    served_by: str  # "last layer" or "any layer"

    @property
    def zero_share(self) -> Tensor:
        """0-d: the share of the batch that has weight 0."""
        return (self.weights == 0).float().mean()


@dataclass(frozen=True)
class EpochReport:
    """One epoch of FSR; means are over its steps."""

    epoch: int  # from 0
    steps: int
    loss: float  # mean of f_i
    zero_share: float | None  # of weights; near the share of wrong labels where FSR does well. None in the warm-up
    reward_loss: float | None  # None in the warm-up
    entered: float  # share of the dictionary that the update brought in
    purity: float | None  # share of the dictionary that is labelled correctly, if the true labels are known

    def __str__(self) -> str:
        words = [f"epoch {self.epoch}: loss {self.loss:.3f}"]
        if self.zero_share is not None:
            words += [f"reward loss {self.reward_loss:.3f}", f"weights of 0: {self.zero_share:.0%}"]
        words.append(f"new in the dictionary: {self.entered:.0%}")
        return ", ".join(words + ([f"purity {self.purity:.1%}"] if self.purity is not None else []))


@dataclass
class Totals:
    """Sums over the steps of an epoch, kept on the device so that no step waits for it."""

    steps: int = 0
    weighed: int = 0  # steps after the warm-up
    loss: Tensor | float = 0.0
    zeros: Tensor | float = 0.0
    reward_loss: Tensor | float = 0.0

    def add(self, step: FSRStep) -> None:
        self.steps += 1
        self.loss = self.loss + step.losses.double().mean()
        if step.scores is not None:
            self.weighed += 1
            self.zeros = self.zeros + step.zero_share.double()
            self.reward_loss = self.reward_loss + step.reward_loss.double()

    def report(self, epoch: int, entered: float, purity: float | None) -> EpochReport:
        zeros, reward = (float(t) / self.weighed if self.weighed else None for t in (self.zeros, self.reward_loss))
        loss = float(self.loss) / self.steps if self.steps else float("nan")
        return EpochReport(epoch, self.steps, loss, zeros, reward, entered, purity)

    def state_dict(self) -> dict[str, float]:
        return {name: t.item() if isinstance(t, Tensor) else t for name, t in vars(self).items()}
