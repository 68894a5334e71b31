"""The look-ahead: Θ^meta, and the step from it to Θ̂, where the reward loss and the margin are computed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fastrw.api.problem import select
from fastrw.nodes.base import wide
from fastrw.state.structure import Structure


class Lookahead:
    """Θ̂ = Θ - η (μ m + g + wd Θ) for every parameter Θ of Θ^meta, g = (1/b) Σ_i ∇f_i(Θ)           (Algorithm 1)

    `FSR` describes the arguments; `how` is its `lookahead`. The buffer m is read at each step, and is 0 before the
    optimizer's first. Dampening and Nesterov momentum are not modelled.
    """

    def __init__(self, model: nn.Module, params: Any, optimizer: Optimizer | None, how: str | None,
                 eta: float | None, weight_decay: float | None):  # fmt: skip
        self.structure = Structure(model)
        every = isinstance(params, str) and params == "all"
        self.params = select(self.structure, None if every else params, "fastrw.FSR: ")
        self._optimizer, self._eta, self._weight_decay = optimizer, eta, weight_decay
        if eta is None and optimizer is None:
            raise ValueError("fastrw.FSR: eta=None takes the learning rate of optimizer, got no optimizer")
        home = {} if optimizer is None else {p: k for k, g in enumerate(optimizer.param_groups) for p in g["params"]}
        if optimizer is not None and (missing := [name for name, p in self.params.items() if p not in home]):
            raise ValueError(f"fastrw.FSR: optimizer must train every parameter of params, got none of {missing[0]!r}")
        self._group_numbers = [home.get(p) for p in self.params.values()]
        has_momentum = all(mu for _, _, mu in self._settings())
        if how == "momentum" and not has_momentum:
            got = "no optimizer" if optimizer is None else f"{type(optimizer).__name__} without momentum"
            raise ValueError(f'fastrw.FSR: lookahead="momentum" needs an optimizer that has momentum, got {got}')
        self.how = how or ("momentum" if has_momentum else "plain")

    @torch.no_grad()
    def ahead(self, gradients: list[Tensor | None]) -> list[Tensor]:
        """Θ̂ from g, both in the order of `params`; None is a gradient of 0. No graph, in the scores' precision."""
        found = []
        for p, g, (eta, wd, mu) in zip(self.params.values(), gradients, self._settings(), strict=True):
            theta = wide(p.detach())
            step = torch.zeros_like(theta) if g is None else wide(g).clone()
            if wd:
                step.add_(theta, alpha=wd)
            if self.how == "momentum" and (m := self._optimizer.state.get(p, {}).get("momentum_buffer")) is not None:
                step.add_(wide(m), alpha=mu)
            found.append(theta.sub(step, alpha=eta))
        return found

    @torch.no_grad()
    def direction(self, gradients: list[Tensor | None], ahead: list[Tensor]) -> list[Tensor]:
        """η (V + wd Θ̂), V the gradient of the reward loss at Θ̂: its product with ∇f_i is -∂L^R/∂ω_i."""
        found = []
        for v, hat, (eta, wd, _) in zip(gradients, ahead, self._settings(), strict=True):
            v = torch.zeros_like(hat) if v is None else wide(v)
            found.append(v.add(hat, alpha=wd).mul_(eta))
        return found

    def _settings(self) -> Iterator[tuple[float, float, float]]:
        """η, wd and μ for each parameter. Groups are found by number, since loading a state replaces them."""
        for k in self._group_numbers:
            group = {} if k is None else self._optimizer.param_groups[k]
            decay = 0.0 if group.get("decoupled_weight_decay") else float(group.get("weight_decay", 0.0))
            yield (
                float(group["lr"]) if self._eta is None else self._eta,
                decay if self._weight_decay is None else self._weight_decay,
                group.get("momentum", 0.0),
            )
