"""What a call found and did: the method, the form and backend of each use, and why other methods were refused."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class UseReport:
    """One use of parameters: an operation that combines them with the batch."""

    op: str  # the node of the autograd graph
    name: str  # the parameters in it, by name
    rows: int  # elements of the output divided by its last dimension
    form: str  # "gram" | "project" | "instance" | "gather" | "generic" | "once per example"
    backend: str  # of its score: "cpp", "triton", "cuda", "reference" or "torch"
    why: str  # is the graph not cut lower; this form


@dataclass(frozen=True)
class Report:
    """What one call did. Tensors stay on their device; nothing here forces a synchronisation."""

    method: str
    scores: Tensor  # [n] raw s_i, not finite where an example's loss or gradient is not
    losses: Tensor  # [n] f_i, detached
    refused: dict[str, str] = field(default_factory=dict)  # method -> reason, in the order tried
    uses: tuple[UseReport, ...] = ()  # empty for methods that do not work use by use

    @property
    def nonfinite(self) -> Tensor:
        """0-d integer tensor: how many examples have a score that is not finite (they get weight 0)."""
        return (~self.scores.isfinite()).sum()

    def __str__(self) -> str:
        lines = [f"method: {self.method}"]
        lines += [f"  not {name}: {reason}" for name, reason in self.refused.items()]
        if self.uses:
            rows = [("op", "parameters", "rows", "form", "backend", "why")]
            rows += [(u.op, u.name, str(u.rows), u.form, u.backend, u.why) for u in self.uses]
            lines += table(rows)
        return "\n".join(lines)


def table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """The lines of a table with left-aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


@dataclass(frozen=True)
class Compilation:
    """What torch.compile did for a `Reweighter` so far."""

    used: bool  # did compiled code compute this step (or, where both are compared, the same as an eager one)?
    graphs: int = 0  # steps that were compiled: of another kind, or of other shapes
    seconds: float = 0.0  # that took
    why: str = ""  # this step was not compiled
    by: str = (
        ""  # what computed it: a backend of torch.compile, on a CPU also "the recorded graph", if faster or more exact
    )

    @property
    def recompilations(self) -> int:
        """After the first."""
        return max(self.graphs - 1, 0)


@dataclass
class Step:
    """The result of `Reweighter.backward` or `fastrw.backward`. Tensors stay on their device; nothing here waits for a
    GPU."""

    weights: Tensor  # [n] w_i
    losses: Tensor  # [n] f_i
    scores: Tensor | None  # [n] raw s_i; None of a plain step
    val_loss: Tensor | None  # f^v, 0-d; None of a plain step
    method: str  # "layerwise", "tangent", "double_backward", "per_example", or "plain"
    update: str  # "assembled" or "backward"
    refused: dict[str, str] = field(default_factory=dict)  # method -> reason, in the order tried
    account: Callable[[], tuple[UseReport, ...]] = tuple
    timeline: list[tuple[str, float]] | None = None  # (phase, seconds), on request
    compilation: Compilation | None = None  # of a `Reweighter` that compiles

    @classmethod
    def plain(cls, losses: Tensor) -> Self:
        """Of equal weights."""
        w = torch.full_like(losses, 1 / len(losses), dtype=torch.promote_types(losses.dtype, torch.float32))
        return cls(w, losses, None, None, "plain", "backward")

    @cached_property
    def uses(self) -> tuple[UseReport, ...]:
        """The form and backend of each use; empty for methods that do not work use by use."""
        return self.account()

    @property
    def nonfinite(self) -> Tensor:
        """0-d integer tensor: how many examples have a score that is not finite; they get weight 0 and add nothing."""
        return (~(self.losses if self.scores is None else self.scores).isfinite()).sum()

    @property
    def peak_memory(self) -> int:
        """Bytes: the peak of torch's allocations on the GPU of the losses so far; on a CPU, the peak resident memory of
        the process."""
        if self.losses.is_cuda:
            return torch.cuda.max_memory_allocated(self.losses.device)
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
