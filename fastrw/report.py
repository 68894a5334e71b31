"""What a call did: which method served, which form and backend each use took, and why the others did not."""

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class UseReport:
    """One place where a parameter meets the batch."""

    op: str  # the torch operation
    name: str  # the parameters in it, by name
    rows: int  # elements of the output divided by its last dimension
    form: str  # "gram" | "project" | "generic"
    backend: str  # who computes it: "cpp", "triton", "cuda", "reference" or "torch"
    why: str


@dataclass(frozen=True)
class Report:
    """The account of one call. Tensors stay on their device; nothing here forces a synchronisation."""

    method: str
    scores: Tensor  # [n] raw s_i, not finite where an example's loss or gradient is not
    losses: Tensor  # [n] f_i, detached
    refused: dict[str, str] = field(default_factory=dict)  # method -> reason, in the order tried
    uses: tuple[UseReport, ...] = ()  # empty where the method does not go use by use

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
            widths = [max(len(row[c]) for row in rows) for c in range(5)]
            lines += [
                "  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)) for row in rows
            ]
        return "\n".join(lines)
