"""What one step asks, what either path answers, and the one forward that both run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from fastrw.engine.weights import as_score


@dataclass
class Question:
    x: Any  # the batch's inputs
    mixed: Any  # the inputs of the weighted loss: x, or x after MixUp
    target: Tensor  # [b] classes or [b, C] shares, of the weighted loss
    reward: tuple[Any, Tensor] | None  # (x, y) of the q examples of the dictionary, or
    features: tuple[Tensor, Tensor] | None  # ([q, p], y [q]): what the last layer read of them at an earlier step
    looks_ahead: bool  # are the logits at Θ̂ wanted?
    trains_plain: bool  # shall `plain` carry a graph?

    @property
    def is_mixed(self) -> bool:
        return self.mixed is not self.x


@dataclass
class Answer:
    losses: Tensor  # [b] f_i of the weighted loss, with their graph
    logits: Tensor  # [b, C] f(x̃; Θ) of the inputs of the weighted loss, with their graph
    plain: Tensor  # [b, C] f(x; Θ) of the inputs as they are
    ahead: Tensor | None  # [b, C] f(x; Θ̂), in the scores' precision
    scores: Tensor | None  # [b] -∂L^R/∂ω_i at ω = 1/b
    reward_loss: Tensor | None  # 0-d L^R(Θ̂)
    features: tuple[Tensor, Tensor] | None = None  # of the reward examples, where the last layer served
    before: Tensor | None = None  # [b] f_i in the precision of `ahead`, where the model's own is lower


def forward(model: nn.Module, x: Any, classes: int, layer: nn.Module | None = None) -> tuple[Tensor, Tensor | None]:
    """Logits [n, C] and what `layer` read [n, p]: None unless it ran once, on rows, and its output is the logits."""
    seen: list[tuple[tuple, Any]] = []
    hook = layer and layer.register_forward_hook(lambda _, args, output: seen.append((args, output)))
    try:
        output = model(**x) if isinstance(x, Mapping) else model(*x) if isinstance(x, tuple | list) else model(x)
    finally:
        if hook:
            hook.remove()
    logits = getattr(output, "logits", output)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[1] != classes:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"fastrw.FSR: the model must return logits [n, C] with C = {classes}, got {got}")
    served = len(seen) == 1 and seen[0][1] is output and len(seen[0][0]) == 1 and seen[0][0][0].ndim == 2
    return logits, seen[0][0][0].detach() if served else None


def losses(logits: Tensor, target: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy [n] in the scores' precision."""
    if (n := len(target)) != len(logits):
        raise ValueError(f"fastrw.FSR: the model must return logits [n, C] with n = {n}, got {len(logits)} rows")
    z = as_score(logits)
    target = target.to(z.dtype) if target.is_floating_point() else target
    return F.cross_entropy(z, target, reduction="none", label_smoothing=smoothing)
