"""Products of the batch with a matrix: T_r = D_W a_r + d_b (project form; the gram form is in `methods.layerwise`)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fastrw.ops import project_dot
from fastrw.rules.directed import Directed, Rule, direction, total


def linear(input, weight, bias=None):
    d = direction(weight)
    return total(None if d is None else F.linear(input, d), direction(bias))


def matmul(input, other):
    if isinstance(other, Directed):
        return torch.matmul(input, other.direction)
    return torch.matmul(input.direction, other)


def linear_dot(g, backend, input, weight, bias=None):
    """[rows]: project_dot, the product never in memory."""
    d, shift = direction(weight), direction(bias)
    if d is None:
        return None
    rows = (t.reshape(-1, t.shape[-1]) for t in (input, g.to(input.dtype)))
    return project_dot(*rows, d, shift, backend=backend)


def matmul_dot(g, backend, input, other):
    if not isinstance(other, Directed) or other.direction.ndim != 2 or input.ndim < 2:
        return None
    rows = (t.reshape(-1, t.shape[-1]) for t in (input, g.to(input.dtype)))
    return project_dot(*rows, other.direction.mT, None, backend=backend)


def addmm_dot(g, backend, input, mat1, mat2, *, beta=1, alpha=1):
    d, shift = direction(mat2), direction(input)
    if d is None or alpha != 1 or (shift is not None and (beta != 1 or shift.ndim != 1)):
        return None
    return project_dot(mat1, g.to(mat1.dtype), d.mT, shift, backend=backend)


def addmm(input, mat1, mat2, *, beta=1, alpha=1):
    d, shift = direction(mat2), direction(input)
    return total(None if d is None else alpha * (mat1 @ d), None if shift is None else beta * shift)


RULES = {F.linear: Rule(linear, "weight", "bias", dot=linear_dot)}
RULES |= dict.fromkeys((torch.matmul, Tensor.matmul, Tensor.__matmul__), Rule(matmul, "input", "other", dot=matmul_dot))
RULES |= dict.fromkeys((torch.addmm, Tensor.addmm), Rule(addmm, "input", "mat2", dot=addmm_dot))
