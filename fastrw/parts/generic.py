"""The part of any operation: V and the update by its own reverse mode, the score by its directional derivative."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fastrw.parts.part import Gradients, Owned, Part, wide
from fastrw.rules.generic import jvp
from fastrw.tape import Use


class Generic(Part):
    """gs: output of the use -> its g and owners."""

    masks = False
    form = "generic"

    def __init__(self, use: Use, gs: dict[int, tuple[Tensor, Owned]]):
        self._use, self._gs = use, gs
        self._leaves: Gradients = {}

        def leaf(t: Tensor) -> Tensor:
            if id(t) not in use.directed:
                return t.detach()
            return self._leaves.setdefault(id(t), t.detach().requires_grad_())

        with torch.enable_grad():
            self._outputs = use.call.replay(leaf)

    def validation(self) -> Gradients:
        return self._weighted(lambda g, owned: owned.validating(g))

    def update(self, w: Tensor) -> Gradients:
        return self._weighted(lambda g, owned: owned.training(w.to(g.dtype)))

    def score(self, V: Gradients) -> Tensor | None:
        directions = {key: v.to(self._use.directed[key].tensor.dtype) for key, v in V.items()}
        if not directions:
            return None
        tangents = jvp(self._use.call, directions)
        parts = [owned.sums(wide(t) * wide(g)) for j, (g, owned) in self._gs.items() if (t := tangents[j]) is not None]
        return sum(parts[1:], parts[0]) if parts else None

    def _weighted(self, weights: Callable[[Tensor, Owned], Tensor]) -> Gradients:
        outputs = [self._outputs[j] for j in self._gs]
        cotangents = [owned.weigh(g, weights(g, owned)) for g, owned in self._gs.values()]
        leaves = list(self._leaves.values())
        with torch.enable_grad():
            found = torch.autograd.grad(outputs, leaves, cotangents, retain_graph=True, allow_unused=True)
        pairs = zip(self._leaves, found, strict=True)
        return {key: g.to_dense() if g.is_sparse else g for key, g in pairs if g is not None}
