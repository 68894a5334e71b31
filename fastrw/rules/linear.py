"""Products of the batch with a matrix: T_r = D_W a_r + d_b (project form; the gram form is in `methods.layerwise`)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fastrw.rules.directed import Directed, Rule, direction, total


def linear(input, weight, bias=None):
    d = direction(weight)
    return total(None if d is None else F.linear(input, d), direction(bias))


def matmul(input, other):
    if isinstance(other, Directed):
        return torch.matmul(input, other.direction)
    return torch.matmul(input.direction, other)


def addmm(input, mat1, mat2, *, beta=1, alpha=1):
    d, shift = direction(mat2), direction(input)
    return total(None if d is None else alpha * (mat1 @ d), None if shift is None else beta * shift)


RULES = {F.linear: Rule(linear, "weight", "bias")}
RULES |= dict.fromkeys((torch.matmul, Tensor.matmul, Tensor.__matmul__), Rule(matmul, "input", "other"))
RULES |= dict.fromkeys((torch.addmm, Tensor.addmm), Rule(addmm, "input", "mat2"))
