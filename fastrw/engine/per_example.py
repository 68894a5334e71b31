"""Scores by autograd alone, slow and general; and the check of all others against the gradient of one example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from fastrw.engine import rounding
from fastrw.engine.owners import repeated
from fastrw.engine.request import Options, Request, Result
from fastrw.engine.rounding import agree
from fastrw.engine.step import PassResult
from fastrw.errors import Refused
from fastrw.graph.walk import Graph
from fastrw.nodes.base import wide
from fastrw.nodes.generic import needs_derivative, product

Directions = Sequence[tuple[Tensor, Tensor]]  # (leaf, V)


def per_example(losses: Tensor, V: Directions) -> Tensor:
    """[n]: s_i = <V, grad f_i>, one backward per example. Source: Ren et al. 2018, Eq. 7 at epsilon = 0."""
    zero = wide(losses.detach()).new_zeros(())
    if not V:
        return zero.expand(len(losses))
    scores = []
    for i in range(len(losses)):
        with repeated() if i else nullcontext():
            scores.append(sum(_dots(_gradient(losses, i, V), V), zero))
    return torch.stack(scores)


def double_backward(losses: Tensor, V: Directions) -> Tensor:
    """[n]: Algorithm 1 of Ren et al. 2018, through a backward that is itself differentiated. With theta_hat = theta -
    sum_i epsilon_i grad f_i, s = -d f^v(theta_hat) / d epsilon = d <sum_i epsilon_i grad f_i, V> / d epsilon.

    Raises Refused where a backward has no derivative.
    """
    if not V:
        return per_example(losses, V)
    epsilon = torch.zeros_like(losses, requires_grad=True)
    with needs_derivative("fastrw.double_backward: the backward must be differentiable", Refused):
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            leaves = [leaf for leaf, _ in V]
            grads = torch.autograd.grad(losses, leaves, epsilon, create_graph=True, allow_unused=True)
            dots = [dot for dot in _dots(grads, V) if dot.requires_grad]
        (s,) = torch.autograd.grad(dots, epsilon, allow_unused=True) if dots else (None,)
    return wide(losses.detach().new_zeros(len(losses)) if s is None else s)


METHODS = {"double_backward": double_backward, "per_example": per_example}


def check(graph: Graph, request: Request, V: Mapping[int, Tensor], found: PassResult, assembled: bool) -> bool:
    """Raises Refused where a score is not that of its example's own gradient or, if `assembled`, where the weighted
    gradient is not that of the weights. The graph must not be freed. V: leaf's node -> direction.

    Returns whether this batch can show an error: one whose numbers are not finite, or all 0, cannot.
    """
    leaves, scaling = graph.leaves, _factor(request.options)
    kind = rounding.of(request.losses, graph=graph)
    directions = [(leaves[i], v) for i, v in V.items()]
    if not directions:
        return False
    numbers = _largest(request.losses, directions, found.scores, kind, scaling)
    if assembled:
        pairs = [(g, V[leaf]) for leaf, g in found.gradients.items() if leaf in V]
        got, expected, noise = weighted_product(pairs, found, request.options)
        numbers = torch.cat([numbers, agree(got, expected, noise, kind).to(numbers.dtype)[None]])
    truth, *agrees = _judged(numbers)
    if truth is None:
        return False
    if agrees and not agrees[0]:  # a backward that is not quite linear (an adaptive solver)?
        seed = (found.weights * request.options.scale * scaling).to(request.losses.dtype)
        grads = torch.autograd.grad(request.losses, [leaf for leaf, _ in directions], seed, retain_graph=True,
                                    allow_unused=True)  # fmt: skip
        pairs = [(g, v) for g, (_, v) in zip(grads, directions, strict=True) if g is not None]
        expected, noise = _dot(pairs, expected, scaling)
        if not bool(agree(got, expected, noise, kind)):
            raise Refused(
                "fastrw.engine: the gradient must be that of the weighted losses, got a product with the validation "
                f"gradient of {got.item():.6g} where weights and scores give {expected.item():.6g}"
            )
    return truth != 0


def weighted_product(pairs: Sequence[tuple[Tensor, Tensor]], found: PassResult | Result, options: Options
                     ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """<sum_i w_i grad f_i, V> of pairs of both; sum_i w_i s_i, which it must be; and the scale of its rounding."""
    expected = torch.where(found.weights == 0, 0, found.weights * found.scores).sum() * options.scale
    got, noise = _dot(pairs, expected, _factor(options))
    return got, expected, noise


def _factor(options: Options) -> Tensor | float:
    return 1.0 if options.scaling is None else options.scaling


def is_weighted(pairs: Sequence[tuple[Tensor, Tensor]], found: Result, options: Options, kind: torch.dtype) -> bool:
    """Are these gradients, each with its V, those of the weights and scores?"""
    return bool(agree(*weighted_product(pairs, found, options), kind))


def check_scores(losses: Tensor, V: Directions, scores: Tensor, kind: torch.dtype) -> None:
    """Raises Refused where the largest score and that of its example's own gradient differ by more than `kind`
    explains."""
    if V:
        _judged(_largest(losses, V, scores, kind))


def _largest(losses: Tensor, V: Directions, scores: Tensor, kind: torch.dtype, scaling: Tensor | float = 1.0) -> Tensor:
    """The largest finite score, the most informative one: is there one, its example, the score, the same by the
    gradient of its example alone, do they agree. scaling: the factor on the losses, and in V."""
    usable = losses.detach().isfinite() & scores.isfinite()
    i = torch.where(usable, scores.abs(), -1).argmax()
    pairs = [(g, v) for g, (_, v) in zip(_gradient(losses, i, V, scaling), V, strict=True) if g is not None]
    truth, noise = _dot(pairs, wide(losses.detach()), scaling)
    score = scores.gather(0, i[None])[0]
    numbers = usable.any() & truth.isfinite(), i, score, truth, agree(score, truth, noise, kind)
    return torch.stack([t.to(torch.promote_types(scores.dtype, torch.float32)) for t in numbers])


def _judged(numbers: Tensor) -> list:
    """[the score by its example's gradient, *the rest of these numbers], read at once: a GPU is waited for once. The
    first is None where there is none that is finite. Raises Refused where a score is not that."""
    usable, i, score, truth, agrees, *rest = numbers.tolist()
    if not usable:
        return [None, *rest]
    if not agrees:
        raise Refused(
            f"fastrw.engine: scores must equal one gradient per example, got {score:.6g} where example {int(i)} has "
            f"{truth:.6g}"
        )
    return [truth, *rest]


def _gradient(losses: Tensor, i: Tensor | int, V: Directions, scaling: Tensor | float = 1.0
              ) -> Sequence[Tensor | None]:  # fmt: skip
    """grad f_i, times `scaling`, by each leaf of V."""
    if not V:
        return []
    seed = (torch.arange(len(losses), device=losses.device) == i).to(losses.dtype) * scaling
    return torch.autograd.grad(losses, [leaf for leaf, _ in V], seed, retain_graph=True, allow_unused=True)


def _dots(grads: Sequence[Tensor | None], V: Directions) -> list[Tensor]:
    """<gradient, V> for each leaf that has a gradient."""
    return [product(g, v).sum() for g, (_, v) in zip(grads, V, strict=True) if g is not None]


def _dot(pairs: Sequence[tuple[Tensor, Tensor]], like: Tensor, scaling: Tensor | float) -> tuple[Tensor, Tensor]:
    """Without the scaling of both sides: the sum of <g, v> over the pairs; and |g| |v|, of all g and of all v, the
    scale at which its terms are rounded."""
    zero = like.new_zeros(())
    pairs = [tuple(t.to_dense() if t.layout != torch.strided else t for t in pair) for pair in pairs]
    dot = sum((product(g, v).sum() for g, v in pairs), zero)
    sides = [[wide(torch.linalg.vector_norm(t)) for t in side] for side in zip(*pairs, strict=True)]
    norms = [torch.stack(side).norm() for side in sides]
    return dot / scaling**2, (norms[0] * norms[1] if norms else zero) / scaling**2
