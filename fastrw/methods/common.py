"""What every method takes and gives: the options, the scored batch, and the validation gradient."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fastrw.isolation import State
from fastrw.problem import Problem
from fastrw.report import UseReport


@dataclass(frozen=True)
class Options:
    backend: str = "auto"
    score_dtype: torch.dtype | None = None
    keep_graph: bool = False  # the losses keep their graph, for a backward of the caller's own
    scale: Tensor | None = None  # what losses are multiplied with in a backward, so that float16 gradients stay above 0

    def scaled(self, loss: Tensor) -> Tensor:
        return loss if self.scale is None else loss * self.scale.to(loss.dtype)

    def unscaled(self, scores: Tensor) -> Tensor:
        """Both gradients of a score were scaled."""
        return scores if self.scale is None else scores / self.scale / self.scale


@dataclass
class Scored:
    scores: Tensor  # [n] s_i
    losses: Tensor  # [n] f_i, with their graph where Options.keep_graph
    signature: object = None  # what the spot check of one call may stand for in later ones
    uses: tuple[UseReport, ...] = ()
    method: str = ""
    refused: dict[str, str] = field(default_factory=dict)


def as_score(t: Tensor) -> Tensor:
    """Scores are accumulated in float64 for float64, else in float32; a sparse gradient is made dense."""
    t = t.to_dense() if t.is_sparse else t
    return t if t.dtype == torch.float64 else t.float()


def validation_gradient(problem: Problem, state: State) -> dict[nn.Parameter, Tensor]:
    """V = grad of the mean validation loss. The state is rewound afterwards: training starts where it would have.

    Parameters that the validation loss does not reach are left out: their product is 0.
    """
    params = list(problem.params.values())
    grads = torch.autograd.grad(problem.losses(problem.val_batch).mean(), params, allow_unused=True)
    state.rewind()
    return {p: g.to_dense() if g.is_sparse else g for p, g in zip(params, grads, strict=True) if g is not None}


def of_finite(scores: Tensor, losses: Tensor) -> Tensor:
    """The scores, nan where the loss is not finite: its gradient may be, but means nothing."""
    return torch.where(losses.detach().isfinite(), scores, torch.nan)
