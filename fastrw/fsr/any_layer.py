"""Any Θ^meta: the model is run at Θ̂ for the reward loss and the margin, and the scores come by fastrw's own methods.

    s_i = D · ∇f_i(Θ),   D = η (∇L^R(Θ̂) + wd Θ̂)

fastrw scores against the gradient of a validation loss at Θ. The loss Σ ⟨Θ, D⟩, linear in Θ, has the gradient D."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fastrw.fsr.lookahead import Lookahead
from fastrw.fsr.question import Answer, Question, forward, losses
from fastrw.isolation import State
from fastrw.methods import evaluate
from fastrw.problem import Problem

_REWARD = "the reward loss"  # stands for the validation batch


class _Losses:
    """f_i of a batch; of _REWARD, the loss whose gradient is `direction`. One object for all steps: what fastrw learns
    of a model is kept by it."""

    def __init__(self, classes: int, smoothing: float):
        self.classes, self.smoothing = classes, smoothing
        self.direction: dict[str, Tensor] = {}

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        if batch is not _REWARD:
            return losses(forward(model, batch[0], self.classes)[0], batch[1], self.smoothing)
        with torch._C.DisableTorchFunction():  # no use of a parameter on a batch
            named = dict(model.named_parameters())
            return sum((named[name].to(d.dtype) * d).sum() for name, d in self.direction.items())[None]


class _Logits(nn.Module):
    """The forward as a module, so that functional_call can put Θ̂ in."""

    def __init__(self, model: nn.Module, classes: int):
        super().__init__()
        self.model, self.classes = model, classes

    def forward(self, x: Any) -> Tensor:
        return forward(self.model, x, self.classes)[0]


class AnyLayer:
    """Answers a step's question for every Θ^meta."""

    def __init__(self, model: nn.Module, lookahead: Lookahead, classes: int, smoothing: float):
        self.model, self.lookahead, self.classes, self.smoothing = model, lookahead, classes, smoothing
        self._losses, self._module = _Losses(classes, smoothing), _Logits(model, classes)

    def find(self, question: Question, start: State) -> Answer:
        """The answer; buffers and random states, which are at `start`, are left as one training forward leaves them."""
        params = self.lookahead.params
        z, _ = forward(self.model, question.mixed, self.classes)
        after = State(self.lookahead)
        plain = z
        try:
            if question.is_mixed:
                start.rewind()
                with torch.set_grad_enabled(question.trains_plain):
                    plain, _ = forward(self.model, question.x, self.classes)
            f = losses(z, question.target, self.smoothing)
            gradients = torch.autograd.grad(f.mean(), list(params.values()), retain_graph=True, allow_unused=True)
            hat = self.lookahead.ahead(gradients)
            values = {
                f"model.{name}": value.to(p.dtype).requires_grad_()
                for (name, p), value in zip(params.items(), hat, strict=True)
            }
            ahead = scores = reward_loss = None
            if question.looks_ahead:
                start.rewind()
                with torch.no_grad():
                    ahead = functional_call(self._module, values, (question.x,))
            if question.reward is not None:
                start.rewind()
                reward_loss = losses(functional_call(self._module, values, (question.reward[0],)), question.reward[1],
                                     self.smoothing).mean()  # fmt: skip
                V = torch.autograd.grad(reward_loss, list(values.values()), allow_unused=True)
                start.rewind()
                scores = self._scores(question, self.lookahead.direction(V, hat))
                reward_loss = reward_loss.detach()
        finally:
            after.rewind()
        return Answer(f, z, plain, ahead, scores, reward_loss)

    def _scores(self, question: Question, direction: list[Tensor]) -> Tensor:
        """s_i = D · ∇f_i of the weighted loss."""
        self._losses.direction = dict(zip(self.lookahead.params, direction, strict=True))
        try:
            problem = Problem(self.model, (question.mixed, question.target), _REWARD, losses_fn=self._losses,
                              params=list(self.lookahead.params), caller="FSR")  # fmt: skip
            return evaluate(problem).scores
        finally:
            self._losses.direction = {}
