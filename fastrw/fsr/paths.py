"""What a step needs from the model at Θ and at Θ̂, by one of two paths: one for any Θ^meta, and a much cheaper one for
the last layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastrw.api.compiled import uncompiled
from fastrw.api.evaluate import evaluate
from fastrw.api.problem import Problem
from fastrw.engine import rounding
from fastrw.fsr.lookahead import Lookahead
from fastrw.graph.hooks import uncounted
from fastrw.nodes.base import wide
from fastrw.state.snapshot import State


@dataclass
class Inputs:
    x: Any  # the batch's inputs
    mixed: Any  # the inputs of the weighted loss: x, or x after MixUp
    target: Tensor  # [b] classes or [b, C] shares, for the weighted loss
    reward: tuple[Any, Tensor] | None  # (x, y) of the q reward examples; None in the warm-up
    reuses: bool  # reward is `Outputs.features` of an earlier step
    looks_ahead: bool  # are the logits at Θ̂ needed?
    trains_plain: bool  # must `plain` carry a graph?


@dataclass
class Outputs:
    losses: Tensor  # [b] f_i of the weighted loss, with their graph
    logits: Tensor  # [b, C] f(x̃; Θ), x̃ the inputs of the weighted loss, with their graph
    plain: Tensor  # [b, C] f(x; Θ)
    before: Tensor  # [b] f_i without graph, in the precision of `ahead`
    ahead: Tensor | None = None  # [b, C] f(x; Θ̂)
    scores: Tensor | None = None  # [b] -∂L^R/∂ω_i at ω = 1/b
    reward_loss: Tensor | None = None  # 0-d L^R(Θ̂)
    features: tuple[Tensor, Tensor] | None = None  # ([q, p], y [q]): the last layer's inputs for the reward examples


@dataclass
class Path:
    model: nn.Module
    lookahead: Lookahead
    classes: int
    smoothing: float
    layer: nn.Linear | None = None  # its input is recorded

    def _forward(self, x: Any) -> tuple[Tensor, Tensor | None]:
        """Logits [n, C] and the layer's input [n, p]: None unless the layer ran once, on a matrix, and its output is
        the logits."""
        seen: list[tuple[tuple, Any]] = []  # (arguments, output) of each call of the layer
        with uncompiled(), self._recorded(seen):
            if isinstance(x, Mapping):
                output = self.model(**x)
            else:
                output = self.model(*x) if isinstance(x, tuple | list) else self.model(x)
        logits = getattr(output, "logits", output)
        if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[1] != self.classes:
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(f"fastrw.FSR: the model must return logits [n, C] with C = {self.classes}, got {got}")
        match seen:
            case [((h,), z)] if z is output and h.ndim == 2:
                return logits, h.detach()
        return logits, None

    def _recorded(self, seen: list[tuple[Any, ...]]) -> AbstractContextManager:
        with uncounted():
            return self.layer.register_forward_hook(lambda _, *call: seen.append(call)) if self.layer else nullcontext()

    def _forwards(self, inputs: Inputs, start: State) -> tuple[Outputs, Tensor | None, Tensor | None]:
        """What the forwards at Θ give, and the layer's inputs for `mixed` and for `x`. Leaves the state as a forward of
        `mixed` alone does."""
        if inputs.mixed is not inputs.x:
            with torch.set_grad_enabled(inputs.trains_plain):
                plain, h_plain = self._forward(inputs.x)
            start.rewind()
        z, h = self._forward(inputs.mixed)
        if inputs.mixed is inputs.x:
            plain, h_plain = z, h
        f = self._losses(z, inputs.target)
        return Outputs(losses=f, logits=z, plain=plain, before=f.detach()), h, h_plain

    def _losses(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy [n] in the scores' precision."""
        if (n := len(target)) != len(logits):
            raise ValueError(f"fastrw.FSR: the model must return logits [n, C] with n = {n}, got {len(logits)} rows")
        z = wide(logits)
        target = target.to(z.dtype) if target.is_floating_point() else target
        return F.cross_entropy(z, target, reduction="none", label_smoothing=self.smoothing)


class AnyLayer(Path):
    """Any Θ^meta: the model runs at Θ̂ for the reward loss and the margin; fastrw's own methods give the scores.

    s_i = D · ∇f_i(Θ),   D = η (∇L^R(Θ̂) + wd Θ̂)
    """

    def run(self, inputs: Inputs, start: State) -> Outputs:
        """Every forward starts from `start`; buffers and random states are left as one training forward leaves them."""
        params = list(self.lookahead.params.values())
        found, _, _ = self._forwards(inputs, start)
        after = State(self.lookahead.structure, within=start)
        try:
            gradients = torch.autograd.grad(found.losses.mean(), params, retain_graph=True, allow_unused=True)
            hat = self.lookahead.ahead(gradients)
            values = [value.to(p.dtype) for p, value in zip(params, hat, strict=True)]
            if inputs.looks_ahead:
                start.rewind()
                with torch.no_grad(), self._at(values):
                    found.ahead, _ = self._forward(inputs.x)
            if inputs.reward is not None:
                start.rewind()
                with self._at(values):
                    reward_loss = self._batch_losses(self.model, inputs.reward).mean()
                    V = torch.autograd.grad(reward_loss, params, allow_unused=True)
                start.rewind()
                D = {id(p): d.to(p.dtype) for p, d in zip(params, self.lookahead.direction(V, hat), strict=True)}
                batch = (inputs.mixed, inputs.target)
                problem = Problem(self.model, batch, batch, losses_fn=self._batch_losses,
                                  params=list(self.lookahead.params), caller="FSR")  # fmt: skip
                found.scores, found.reward_loss = evaluate(problem, start, V=D)[0].scores, reward_loss.detach()
        finally:
            after.rewind()
        return found

    def _batch_losses(self, _: nn.Module, batch: tuple[Any, Tensor]) -> Tensor:
        return self._losses(self._forward(batch[0])[0], batch[1])

    @contextmanager
    def _at(self, values: list[Tensor]) -> Iterator[None]:
        """In this context the parameters have these values: wherever the model refers to one, under any name, in a list
        or in a closure, it finds the same object."""
        params = list(self.lookahead.params.values())
        before = [p.data for p in params]
        try:
            self._put(params, values)
            yield
        finally:
            self._put(params, before)

    def _put(self, params: list[nn.Parameter], values: list[Tensor]) -> None:
        for p, value in zip(params, values, strict=True):
            p.data = value
        torch.clear_autocast_cache()  # it holds casts of the values before


@dataclass
class LastLayer(Path):
    """Θ^meta is one `nn.Linear`, with or without its bias, and its output is the model's: the look-ahead is a few
    products of features with matrices as large as that layer.

    The features h = φ(x) do not depend on Θ^meta, so one forward serves Θ and Θ̂ (feature sharing, section 4.2). With
    logits z = h Wᵀ + b, loss gradients G_i = ∂f_i/∂z_i, and those of the reward examples R_j = ∂L^R/∂z_j at Θ̂:

        ∇_W Σ f_i = Gᵀ h,    f(x; Θ̂) = h Ŵᵀ + b̂,    V = Rᵀ h^R,    ∇f_i · V = G_i · (V h_i + v_b)   (Eq. 12, row-wise)
    """

    verified: bool = False  # see _verify

    @classmethod
    def of(cls, model: nn.Module, lookahead: Lookahead, classes: int, smoothing: float) -> LastLayer | None:
        """None unless Θ^meta is the weight of a linear layer, alone or with its bias."""
        params = [*map(id, lookahead.params.values())]
        for layer in lookahead.structure.modules.values():
            if type(layer) is not nn.Linear:
                continue
            own = [id(layer._parameters.get(name)) for name in ("weight", "bias")]
            if params in (own[:1], own):
                return cls(model, lookahead, classes, smoothing, layer)
        return None

    def run(self, inputs: Inputs, start: State) -> Outputs | None:
        """Every forward starts from `start`. None if the layer does not produce the model's logits; the caller then
        rewinds to `start`."""
        if any(p._backward_hooks for p in self.lookahead.params.values()):
            return None  # the products below would not run them
        reward = inputs.reward
        if reward is not None and not inputs.reuses:  # first, while no graph is alive
            with torch.no_grad():
                reward = (self._forward(reward[0])[1], reward[1])
            start.rewind()
            if reward[0] is None:
                return None
        found, h, h_plain = self._forwards(inputs, start)
        if h is None or h_plain is None:
            return None
        f, z = found.losses, found.logits
        (G,) = torch.autograd.grad(f.sum(), z, retain_graph=True)
        with torch.autocast(f.device.type, enabled=False):
            G, h, h_plain = map(wide, (G, h, h_plain))
            if not self._verify(f, G, h):
                return None
            hat = self.lookahead.ahead([g / len(f) for g in self._gradients(G, h)])
            if inputs.looks_ahead:
                found.ahead = self._logits(h_plain, hat)
                if found.ahead.dtype != z.dtype:  # a margin is a small difference of losses
                    theta = [wide(p.detach()) for p in self.lookahead.params.values()]
                    found.before = self._losses(self._logits(h, theta), inputs.target)
                    if not inputs.trains_plain:
                        found.plain = self._logits(h_plain, theta)
            if reward is not None:
                h_reward = wide(reward[0])
                z_reward = self._logits(h_reward, hat).requires_grad_()
                reward_loss = self._losses(z_reward, reward[1]).mean()
                (R,) = torch.autograd.grad(reward_loss, z_reward)
                D = self.lookahead.direction(self._gradients(R, h_reward), hat)
                found.scores, found.reward_loss = (F.linear(h, *D) * G).sum(1), reward_loss.detach()
                found.features = reward
        return found

    def _gradients(self, g: Tensor, h: Tensor) -> list[Tensor]:
        """Of the weight and, if it is in Θ^meta, the bias, from g [n, C] and features h [n, p]."""
        return [g.mT @ h, g.sum(0)][: len(self.lookahead.params)]

    def _logits(self, h: Tensor, values: list[Tensor]) -> Tensor:
        """h Wᵀ + b with `values` for Θ^meta, and the layer's own bias if that is not in Θ^meta."""
        if len(values) == 1 and self.layer.bias is not None:
            values = [*values, wide(self.layer.bias.detach())]
        return F.linear(h, *values)

    def _verify(self, f: Tensor, G: Tensor, h: Tensor) -> bool:
        """Do the products above equal autograd's gradients? Not if the layer's weight is used twice. Kept once true."""
        if not self.verified:
            params = list(self.lookahead.params.values())
            truth = torch.autograd.grad(f.sum(), params, retain_graph=True, allow_unused=True)
            bound = rounding.RELATIVE[rounding.of(f)]
            self.verified = all(
                t is not None and bool((g - wide(t)).norm() <= bound * wide(t).norm())
                for t, g in zip(truth, self._gradients(G, h), strict=True)
            )
        return self.verified
