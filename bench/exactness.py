"""A step is checked against Algorithm 1 in float64 and in its own dtype before it is timed.

In float64 two exact methods agree to 1e-10. In float32 they may differ by as much as float32 itself leaves open: in a
deep ResNet with BatchNorm, where rounding turns ReLUs on and off, Algorithm 1 is 1e-3 from its own float64 result."""

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bench.models import Batch
from bench.steps import Step, double_backward
from fastrw.ops.tolerance import SCORE_GOAL, relative_error


class Errors(NamedTuple):
    """Relative to the norm of what is expected."""

    scores: float
    gradient: float


class Truth(NamedTuple):
    """A model with its batches in one dtype, the result of Algorithm 1, and how far from it a step may be."""

    model: nn.Module
    batch: Batch
    val_batch: Batch
    scores: Tensor  # [n]
    gradient: Tensor  # [parameters]
    allowed: Errors


class Red(ArithmeticError):
    """A step ran and is wrong."""


def truths(model: nn.Module, batch: Batch, val_batch: Batch, expected: Step = double_backward) -> tuple[Truth, Truth]:
    """In float64 and in the model's own dtype."""
    exact = copy.deepcopy(model).double(), double(batch), double(val_batch)
    best, found = run(expected, *exact)[:2], run(expected, model, batch, val_batch)[:2]
    goal, dtype_goal = SCORE_GOAL[torch.float64], SCORE_GOAL[found[0].dtype]
    left_open = [dtype_goal + 2 * relative_error(x, y) for x, y in zip(found, best, strict=True)]
    return Truth(*exact, *best, Errors(goal, goal)), Truth(model, batch, val_batch, *found, Errors(*left_open))


def check(step: Step, truths: tuple[Truth, ...]) -> tuple[Errors, str]:
    """The errors of `step` in the dtype that is timed, and what served it. Raises Red when it is wrong in any dtype."""
    for truth in truths:
        scores, gradient, served_by = run(step, truth.model, truth.batch, truth.val_batch)
        errors = Errors(relative_error(scores, truth.scores), relative_error(gradient, truth.gradient))
        for name, error, allowed in zip(Errors._fields, errors, truth.allowed, strict=True):
            if not error <= allowed:
                raise Red(f"wrong: error of the {name} in {scores.dtype} {error:.0e}, allowed {allowed:.0e}")
    return errors, served_by


def run(step: Step, model: nn.Module, batch: Batch, val_batch: Batch) -> tuple[Tensor, Tensor, str]:
    """Scores, gradient of all parameters, and what served; the model stays as it was."""
    model = copy.deepcopy(model)
    scores, served_by = step(model, batch, val_batch)
    return scores.detach(), torch.cat([p.grad.flatten() for p in model.parameters()]), served_by


def double(batch: Batch) -> Batch:
    inputs, targets = batch
    return (inputs.double() if inputs.is_floating_point() else inputs), targets
