"""The roofs that the figures of a run are held to: those that the same run has measured, else an H100's."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from bench import roof
from bench.cases import Case


@dataclass(frozen=True)
class Roofs:
    """What the machine can do at most, and where that is known from."""

    copy: float  # B/s
    bfloat16: float  # FLOP/s, of float16 too
    tf32: float
    ieee: float
    launch: float  # seconds of the smallest kernel in a graph
    source: str

    def floor(self, op: str, case: Case, dtype: torch.dtype) -> float:
        """Seconds below which nothing that does the work of the case can go."""
        return max(case.flops / getattr(self, precision(op, dtype)), case.bytes(dtype) / self.copy)


ON_PAPER = Roofs(
    roof.H100.bandwidth, roof.H100.flops[torch.bfloat16], roof.H100.flops[torch.bfloat16] / 2,
    roof.H100.flops[torch.float32], 2e-6, "an H100's, known before this run",
)  # fmt: skip


def measured(rows: Iterable[dict]) -> Roofs:
    """Those that the stage `machine` of this run has measured, or those of an H100."""
    found = {row["what"]: row["value"] for row in rows if row["kind"] == "roof"}
    names = ("copy", "bfloat16", "tf32", "ieee", "launch, in a graph")
    if not all(found.get(name) for name in names):
        return ON_PAPER
    return Roofs(*(found[name] for name in names), "measured in this run")


def precision(op: str, dtype: torch.dtype) -> str:
    """Which products torch's settings allow for that op in that dtype: the roof that it is held to."""
    if dtype != torch.float32:
        return "bfloat16"
    of = torch.backends.cudnn.conv if op.startswith("conv") else torch.backends.cuda.matmul
    return "tf32" if of.fp32_precision == "tf32" else "ieee"
