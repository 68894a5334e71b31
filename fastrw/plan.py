"""Which form each use takes: gram (Eq. 12 as printed), project, or the operation's own derivative.

    gram      sum_k (a_r . a_k + 1)(g_r . g_k)         2 r k (p + q) FLOPs, forms no V
    project   g_r . (V a_r + v_b)                      2 r p q FLOPs, and 2 k p q for V

Gram needs a matrix that is a parameter itself and is used once, in both batches: cross terms between two uses of one
matrix appear only in the product with the total V.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fastrw.rules import RULES
from fastrw.tape import PARAMETER, Tape, Use


@dataclass(frozen=True, slots=True)
class Machine:
    """What the forms cost. Fixed numbers, so that a form never changes between runs: fitted to the times of 17 shapes,
    from (64, 8, 128, 2) to (2048, 256, 1024, 1024), where they choose the faster form or one within a fifth of it."""

    flops: float  # of a matrix product, per second
    bytes: float  # of the project form's passes over rows and V, per second
    gram_flops: float  # of the fused gram form, per second
    pair: float  # seconds that a pair of rows costs besides its FLOPs

    def gram(self, r: int, k: int, p: int, q: int) -> float:
        """Seconds of the gram form."""
        return r * k * (2 * (p + q) / self.gram_flops + self.pair)

    def project(self, r: int, k: int, p: int, q: int) -> float:
        """Seconds of the project form, V included."""
        moved = 4 * ((r + k) * (p + 3 * q) + 3 * p * q)
        return max(2 * (r + k) * p * q / self.flops, moved / self.bytes)


MACHINES = {
    "cpu": Machine(210e9, 12e9, 300e9, 2.5e-9),  # two cores with AVX-512
    "cuda": Machine(50e12, 3e12, 20e12, 1e-12),  # by the data sheet of an H100 and no measurement
}


ADDMM = torch.addmm


def machine_of(device: torch.device) -> Machine:
    return MACHINES.get(device.type, MACHINES["cuda"])


@dataclass(frozen=True, slots=True)
class Form:
    name: str  # "gram" | "project" | "generic"
    why: str


@dataclass(frozen=True, slots=True)
class Gram:
    """The operands of a linear use, by name."""

    a: Tensor
    weight: Tensor
    bias: Tensor | None
    turned: bool = False  # the matrix is [p, q]


def gram_operands(use: Use) -> Gram | None:
    """The operands where a use is a product of rows with one matrix, else None."""
    args, kwargs = use.call.args, use.call.kwargs
    if use.function is F.linear:
        bias = args[2] if len(args) > 2 else kwargs.get("bias")
        found = Gram(args[0], args[1] if len(args) > 1 else kwargs["weight"], bias) if args else None
    elif use.function is ADDMM and len(args) == 3 and not kwargs:
        found = Gram(args[1], args[2], args[0], turned=True)
    else:
        return None
    return found if found is None or id(found.a) not in use.directed else None


def choose(use: Use, tape: Tape, val_tape: Tape, dtype: torch.dtype) -> Form:
    """The form of a use, and why."""
    rule = RULES.get(use.function)
    if rule is None or not rule.serves(use, dtype):
        return Form("generic", "no fast rule: the operation's own derivative")
    operands = gram_operands(use)
    if operands is None:
        return Form("project", "the operation applied to the direction")
    for t in (operands.weight, operands.bias):
        if t is None or id(t) not in use.directed:
            continue
        if use.directed[id(t)].kind != PARAMETER:
            return Form("project", "the matrix or bias is derived from parameters")
        if tape.touched[id(t)] != 1 or val_tape.touched[id(t)] != 1:
            return Form("project", "the parameter is used more than once")
    if id(operands.weight) not in use.directed:
        return Form("project", "the bias alone is selected")
    twin = next(u for u in val_tape.uses if id(operands.weight) in u.directed)
    if gram_operands(twin) is None:
        return Form("project", "the validation batch uses the matrix otherwise")
    p, q = operands.a.shape[-1], use.shapes[0][-1]
    r, k = use.shapes[0].numel() // max(q, 1), twin.shapes[0].numel() // max(q, 1)
    machine = machine_of(operands.a.device)
    gram, project = machine.gram(r, k, p, q), machine.project(r, k, p, q)
    why = f"r={r} k={k} p={p} q={q}: gram {gram * 1e6:.3g} us, project {project * 1e6:.3g} us by the cost model"
    return Form("gram" if gram < project else "project", why)
