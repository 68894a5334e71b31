"""A scale gives T = x * d, a shift T = d."""

import torch
from torch import Tensor

from fastrw.rules.directed import Directed, Rule


def scale(input, other):
    return input * other.direction if isinstance(other, Directed) else input.direction * other


def add(input, other, *, alpha=1):
    return other.direction * alpha if isinstance(other, Directed) else input.direction


def sub(input, other, *, alpha=1):
    return -alpha * other.direction if isinstance(other, Directed) else input.direction


SCALES = (torch.mul, Tensor.mul, Tensor.mul_)
SUMS = (torch.add, Tensor.add, Tensor.add_)
SUBTRACTIONS = (torch.sub, Tensor.sub, Tensor.sub_)
RULES = dict.fromkeys(SCALES, Rule(scale, "input", "other"))
RULES |= dict.fromkeys(SUMS, Rule(add, "input", "other"))
RULES |= dict.fromkeys(SUBTRACTIONS, Rule(sub, "input", "other"))
