"""Scores at the losses themselves, by autograd alone: slow, general, and what the rest is judged by."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from fastrw.errors import Refused
from fastrw.graph.walk import dtypes
from fastrw.nodes.base import wide
from fastrw.nodes.generic import product

# A wrong rule errs by far more; rounding by far less. Half precision is judged by what its products can carry.
RELATIVE = {torch.float64: 1e-7, torch.float32: 1e-3, torch.float16: 3e-2, torch.bfloat16: 1e-1}
# Sums of products are rounded at the scale of the factors, |grad f_i| |V|, however small the sum: so many eps of them.
ROUNDINGS = {torch.float64: 64, torch.float32: 64, torch.float16: 4, torch.bfloat16: 4}


def coarsest(kinds: set[torch.dtype]) -> torch.dtype:
    """The dtype that limits what can be asked of numbers that pass through these."""
    return max(kinds & {*RELATIVE}, key=list(RELATIVE).index, default=torch.float32)


Directions = Sequence[tuple[Tensor, Tensor]]  # (leaf, V)


def per_example(losses: Tensor, V: Directions) -> Tensor:
    """[n]: s_i = <V, grad f_i>, one backward an example. Source: Ren et al. 2018, Eq. 7 at epsilon = 0."""
    leaves = [leaf for leaf, _ in V]
    scores = []
    for i in range(len(losses)):
        seed = torch.zeros_like(losses)
        seed[i] = 1
        grads = torch.autograd.grad(losses, leaves, seed, retain_graph=True, allow_unused=True)
        dots = [product(g, v).sum() for g, (_, v) in zip(grads, V, strict=True) if g is not None]
        scores.append(sum(dots, wide(losses.detach()).new_zeros(())))
    return torch.stack(scores)


def double_backward(losses: Tensor, V: Directions) -> Tensor:
    """[n]: Algorithm 1 of Ren et al. 2018, through a backward that is itself differentiated. With theta_hat = theta -
    sum_i epsilon_i grad f_i, s = -d f^v(theta_hat) / d epsilon = d <sum_i epsilon_i grad f_i, V> / d epsilon.

    Raises Refused where a backward has no derivative.
    """
    leaves = [leaf for leaf, _ in V]
    epsilon = torch.zeros_like(losses, requires_grad=True)
    try:
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            grads = torch.autograd.grad(losses, leaves, epsilon, create_graph=True, allow_unused=True)
            dots = [
                product(g, v).sum() for g, (_, v) in zip(grads, V, strict=True) if g is not None and g.requires_grad
            ]
        if not dots:
            return wide(losses.detach()).new_zeros(len(losses))
        (s,) = torch.autograd.grad(dots, epsilon, allow_unused=True)
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "second time" in str(error):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise Refused(f"fastrw.double_backward: the backward must be differentiable, got {reason}") from error
    return wide(losses.detach()).new_zeros(len(losses)) if s is None else wide(s)


def check(losses: Tensor, V: Directions, scores: Tensor) -> None:
    """Raises Refused where a score is not that of its example's own gradient."""
    i = int(scores.abs().nan_to_num(0).argmax())
    truth, noise = one(losses, i, V)
    if bool(truth.isfinite()):
        judge(scores[i], truth, noise, coarsest(dtypes(losses)), i)


def one(losses: Tensor, i: int, V: Directions, scaling: float = 1.0, retain: bool = True) -> tuple[Tensor, Tensor]:
    """s_i by example i's own gradient, and |grad f_i| |V|: the scale at which its terms are rounded."""
    seed = torch.zeros_like(losses)
    seed[i] = scaling
    grads = torch.autograd.grad(losses, [leaf for leaf, _ in V], seed, retain_graph=retain, allow_unused=True)
    return along(
        [(g, v) for g, (_, v) in zip(grads, V, strict=True) if g is not None], wide(losses.detach()).new_zeros(())
    )


def along(pairs: Sequence[tuple[Tensor, Tensor]], zero: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of <g, v> over the pairs, and the product of the norms of all g and of all v."""
    pairs = [tuple(t.to_dense() if t.layout != torch.strided else t for t in pair) for pair in pairs]
    dot = sum((product(g, v).sum() for g, v in pairs), zero)
    sides = [[wide(torch.linalg.vector_norm(t)) for t in side] for side in zip(*pairs, strict=True)]
    norms = [torch.stack(side).norm() for side in sides]
    return dot, norms[0] * norms[1] if norms else zero


def judge(found: Tensor, truth: Tensor, noise: Tensor, kind: torch.dtype, i: int) -> None:
    """Raises Refused where `found` is not the score `truth` of example i, in numbers that passed through `kind`."""
    limit = RELATIVE[kind] * truth.abs() + ROUNDINGS[kind] * torch.finfo(kind).eps * noise
    if not bool((found - truth).abs() <= limit):
        raise Refused(
            f"fastrw.engine: scores must equal one gradient per example, got {found.item():.6g} where example {i} has "
            f"{truth.item():.6g}"
        )


METHODS = {"double_backward": double_backward, "per_example": per_example}
