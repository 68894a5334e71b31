"""Θ^meta is the last layer: all of the look-ahead in products of features with matrices as large as that layer.

The features h = φ(x) do not depend on Θ^meta, so one forward serves Θ and Θ̂ (feature sharing, section 4.2). With
logits z = h Wᵀ + b, loss gradients G_i = ∂f_i/∂z_i, and those of the reward examples R_j = ∂L^R/∂z_j at Θ̂:

    ∇_W Σ f_i = Gᵀ h,    f(x; Θ̂) = h Ŵᵀ + b̂,    V = Rᵀ h^R,    ∇f_i · V = G_i · (V h_i + v_b)       (Eq. 12 by rows)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastrw.engine.weights import as_score
from fastrw.engine.whole import RELATIVE, coarsest
from fastrw.fsr.lookahead import Lookahead
from fastrw.fsr.question import Answer, Question, forward, losses
from fastrw.graph.walk import dtypes
from fastrw.state.snapshot import State


class LastLayer:
    """Answers a step's question where Θ^meta is one `nn.Linear` whose output is the model's; `find` is None where the
    model does not run it so."""

    def __init__(self, model: nn.Module, lookahead: Lookahead, layer: nn.Linear, classes: int, smoothing: float):
        self.model, self.lookahead, self.layer = model, lookahead, layer
        self.classes, self.smoothing = classes, smoothing
        self._checked = False

    @classmethod
    def of(cls, model: nn.Module, lookahead: Lookahead, classes: int, smoothing: float) -> LastLayer | None:
        """None where Θ^meta is not the weight of a linear layer, with its bias or without."""
        params = list(lookahead.params.values())
        for module in lookahead.modules.values():
            own = [p for p in (module._parameters.get(name) for name in ("weight", "bias")) if p is not None]
            its = type(module) is nn.Linear and own[0] is params[0]  # a weight first, then perhaps its bias
            if its and all(p is q for p, q in zip(params, own, strict=False)) and len(params) <= len(own):
                return cls(model, lookahead, module, classes, smoothing)
        return None

    def find(self, question: Question, start: State) -> Answer | None:
        """The answer, or None: then buffers and random states are as they may be, and the caller rewinds to `start`."""
        reward = question.features
        if question.reward is not None:  # first, while no graph is alive
            with torch.no_grad():
                _, h = forward(self.model, question.reward[0], self.classes, self.layer)
            start.rewind()
            if h is None:
                return None
            reward = (h, question.reward[1])
        if question.is_mixed:
            with torch.set_grad_enabled(question.trains_plain):
                plain, h_plain = forward(self.model, question.x, self.classes, self.layer)
            start.rewind()
        z, h = forward(self.model, question.mixed, self.classes, self.layer)
        if h is None or (question.is_mixed and h_plain is None):
            return None
        if not question.is_mixed:
            plain, h_plain = z, h
        f = losses(z, question.target, self.smoothing)
        (G,) = torch.autograd.grad(f.sum(), z, retain_graph=True)
        if not self._verified(f, G, h):
            return None
        with torch.autocast(f.device.type, enabled=False):
            return self._answer(question, reward, f, z, plain, *map(as_score, (G, h, h_plain)))

    def _answer(self, question: Question, reward: tuple[Tensor, Tensor] | None, f: Tensor, z: Tensor, plain: Tensor,
                G: Tensor, h: Tensor, h_plain: Tensor) -> Answer:  # fmt: skip
        hat = self.lookahead.ahead([g / len(f) for g in self._gradients(G, h)])
        ahead = self._logits(h_plain, hat) if question.looks_ahead else None
        before = None
        if ahead is not None and ahead.dtype != z.dtype:  # a margin is a small difference of losses
            theta = [as_score(p.detach()) for p in self.lookahead.params.values()]
            before = losses(self._logits(h, theta), question.target, self.smoothing)
            plain = plain if question.trains_plain else self._logits(h_plain, theta)
        if reward is None:
            return Answer(f, z, plain, ahead, None, None, before=before)
        h_reward = as_score(reward[0])
        z_reward = self._logits(h_reward, hat).requires_grad_()
        reward_loss = losses(z_reward, reward[1], self.smoothing).mean()
        (R,) = torch.autograd.grad(reward_loss, z_reward)
        direction = self.lookahead.direction(self._gradients(R, h_reward), hat)
        scores = (self._logits(h, direction, others=False) * G).sum(1)
        return Answer(f, z, plain, ahead, scores, reward_loss.detach(), reward, before)

    def _gradients(self, g: Tensor, h: Tensor) -> list[Tensor]:
        """Of the layer's trained parameters, in the order of `params`, by g [n, C] and features h [n, p]."""
        return [g.mT @ h if p is self.layer.weight else g.sum(0) for p in self.lookahead.params.values()]

    def _logits(self, h: Tensor, values: list[Tensor], others: bool = True) -> Tensor:
        """h Wᵀ + b with `values` for Θ^meta; if `others`, with the layer's own bias where that is not in Θ^meta."""
        by_id = {id(p): v for p, v in zip(self.lookahead.params.values(), values, strict=True)}
        bias = self.layer.bias
        bias = by_id.get(id(bias), as_score(bias.detach()) if bias is not None and others else None)
        return F.linear(h, by_id[id(self.layer.weight)], bias)

    def _verified(self, f: Tensor, G: Tensor, h: Tensor) -> bool:
        """Once: the products above are autograd's gradients. They are not where the layer's weight is used twice."""
        if not self._checked:
            params = list(self.lookahead.params.values())
            truth = torch.autograd.grad(f.sum(), params, retain_graph=True, allow_unused=True)
            bound = RELATIVE[coarsest(dtypes(f))]
            for t, found in zip(truth, self._gradients(as_score(G), as_score(h)), strict=True):
                if t is None or not bool((found - as_score(t)).norm() <= bound * as_score(t).norm()):
                    return False
            self._checked = True
        return True
