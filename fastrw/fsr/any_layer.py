"""Any Θ^meta: the model is run at Θ̂ for the reward loss and the margin, and the scores come by fastrw's own methods.

s_i = D · ∇f_i(Θ),   D = η (∇L^R(Θ̂) + wd Θ̂)"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fastrw.api.evaluate import evaluate
from fastrw.api.problem import Problem
from fastrw.fsr.lookahead import Lookahead
from fastrw.fsr.question import Answer, Question, forward, losses
from fastrw.state.snapshot import State


@contextmanager
def parameters_at(modules: Iterable[nn.Module], values: dict[nn.Parameter, Tensor]) -> Iterator[None]:
    """Inside, the modules hold these tensors in the place of their parameters, wherever one of them is held. (What
    torch.func.functional_call leaves behind in a module that is reached by two names is not the parameter.)"""
    before = [(m._parameters, dict(m._parameters)) for m in modules]
    try:
        for now, _ in before:
            for name, p in now.items():
                if p is not None and p in values:
                    now[name] = values[p]
        yield
    finally:
        for now, then in before:
            now.update(then)


class AnyLayer:
    """Answers a step's question for every Θ^meta."""

    def __init__(self, model: nn.Module, lookahead: Lookahead, classes: int, smoothing: float):
        self.model, self.lookahead, self.classes, self.smoothing = model, lookahead, classes, smoothing

    def find(self, question: Question, start: State) -> Answer:
        """The answer; buffers and random states, which are at `start`, are left as one training forward leaves them."""
        params = self.lookahead.params
        z, _ = forward(self.model, question.mixed, self.classes)
        after = State(self.lookahead.modules)
        plain = z
        try:
            if question.is_mixed:
                start.rewind()
                with torch.set_grad_enabled(question.trains_plain):
                    plain, _ = forward(self.model, question.x, self.classes)
            f = losses(z, question.target, self.smoothing)
            gradients = torch.autograd.grad(f.mean(), list(params.values()), retain_graph=True, allow_unused=True)
            hat = self.lookahead.ahead(gradients)
            values = {p: value.to(p.dtype).requires_grad_() for p, value in zip(params.values(), hat, strict=True)}
            ahead = scores = reward_loss = None
            if question.looks_ahead:
                start.rewind()
                with torch.no_grad(), self._at(values):
                    ahead, _ = forward(self.model, question.x, self.classes)
            if question.reward is not None:
                start.rewind()
                with self._at(values):
                    z_reward, _ = forward(self.model, question.reward[0], self.classes)
                    reward_loss = losses(z_reward, question.reward[1], self.smoothing).mean()
                V = torch.autograd.grad(reward_loss, list(values.values()), allow_unused=True)
                start.rewind()
                scores = self._scores(question, self.lookahead.direction(V, hat))
                reward_loss = reward_loss.detach()
        finally:
            after.rewind()
        return Answer(f, z, plain, ahead, scores, reward_loss)

    def _at(self, values: dict[nn.Parameter, Tensor]) -> AbstractContextManager:
        return parameters_at(self.lookahead.modules.values(), values)

    def _losses(self, model: nn.Module, batch: Any) -> Tensor:
        return losses(forward(model, batch[0], self.classes)[0], batch[1], self.smoothing)

    def _scores(self, question: Question, direction: list[Tensor]) -> Tensor:
        """s_i = D · ∇f_i of the weighted loss."""
        batch, params = (question.mixed, question.target), self.lookahead.params
        problem = Problem(self.model, batch, batch, losses_fn=self._losses, params=list(params), caller="FSR")
        return evaluate(problem, V={id(p): d for p, d in zip(params.values(), direction, strict=True)}).scores
