"""The standing check: one example's own gradient, by autograd on the graph at hand, against its score; and the weighted
gradient along V against the weighted scores."""

from __future__ import annotations

import torch
from torch import Tensor

from fastrw.engine.step import Asked, Found
from fastrw.errors import Refused
from fastrw.graph.walk import Graph
from fastrw.nodes.generic import product

# A wrong rule errs by far more; rounding by far less. Half precision is judged by what its products can carry.
RELATIVE = {torch.float64: 1e-7, torch.float32: 1e-3, torch.float16: 3e-2, torch.bfloat16: 1e-1}
# Sums of products are rounded at the scale of the factors, |grad f_i| |V|, however small the sum: so many eps of them.
ROUNDINGS = {torch.float64: 64, torch.float32: 64, torch.float16: 4, torch.bfloat16: 4}


def coarsest(kinds: set[torch.dtype]) -> torch.dtype:
    """The dtype that limits what can be asked of numbers that pass through these."""
    return max(kinds & {*RELATIVE}, key=list(RELATIVE).index, default=torch.float32)


def check(graph: Graph, question, V: dict[int, Tensor] | None, found: Found, asked: Asked) -> bool:
    """Raises Refused where a score is not that of its example's own gradient. The graph must be whole.

    Returns whether this batch could tell: one whose numbers are not finite, or all 0, vouches for nothing.
    """
    leaves, losses = graph.leaves(), question.losses
    wanted = [i for i in leaves if i in asked.selected]
    targets = [leaves[i] for i in wanted]
    scaling = 1.0 if asked.scaling is None else float(asked.scaling)
    if V is None:
        seed = torch.full_like(question.val_loss, scaling)
        grads = torch.autograd.grad(question.val_loss, targets, seed, retain_graph=True, allow_unused=True)
        V = {i: g for i, g in zip(wanted, grads, strict=True) if g is not None}
    finite = (losses.detach().isfinite() & found.scores.isfinite()).nonzero().flatten()
    if not len(finite) or not V:
        return False
    # the largest score tells most
    i = int(finite[found.scores[finite].abs().argmax()])
    seeds = torch.zeros_like(losses)
    seeds[i] = scaling
    grads = torch.autograd.grad(losses, targets, seeds, retain_graph=True, allow_unused=True)
    pairs = [(g, V[leaf]) for leaf, g in zip(wanted, grads, strict=True) if g is not None and leaf in V]
    if not pairs:
        truth = noise = found.scores.new_zeros(())
    else:
        truth = sum(product(g, v).sum() for g, v in pairs) / scaling**2
        norm = [torch.stack([torch.linalg.vector_norm(x).double() for x in side]).norm() for side in zip(*_dense(pairs), strict=True)]
        noise = norm[0] * norm[1] / scaling**2
    kind = coarsest({losses.dtype} | {m.dtype for node in graph.nodes for m in node._input_metadata})
    limit = RELATIVE[kind] * truth.abs() + ROUNDINGS[kind] * torch.finfo(kind).eps * noise
    if not bool((found.scores[i] - truth).abs() <= limit):
        raise Refused(
            f"fastrw.engine: scores must equal one gradient per example, got {found.scores[i].item():.6g} where example {i} "
            f"has {truth.item():.6g}"
        )
    if asked.update:
        _check_gradient(found, V, asked, kind, scaling)
    return bool(truth != 0) or len(losses) == 1


def _dense(pairs):
    return [tuple(t.to_dense() if t.layout != torch.strided else t for t in pair) for pair in pairs]


def _check_gradient(found: Found, V: dict[int, Tensor], asked: Asked, kind: torch.dtype, scaling: float) -> None:
    """<sum_i w_i grad f_i, V> = sum_i w_i s_i."""
    pairs = _dense([(g, V[leaf]) for leaf, g in found.gradients.items() if leaf in V])
    w = torch.where(found.weights == 0, 0, found.weights * found.scores).sum() * asked.scale
    if not pairs:
        got = noise = w.new_zeros(())
    else:
        got = sum(product(g, v).sum() for g, v in pairs) / scaling**2
        norm = [torch.stack([torch.linalg.vector_norm(x).double() for x in side]).norm() for side in zip(*pairs, strict=True)]
        noise = norm[0] * norm[1] / scaling**2
    limit = RELATIVE[kind] * w.abs() + ROUNDINGS[kind] * torch.finfo(kind).eps * noise
    if not bool((got - w).abs() <= limit):
        raise Refused(
            "fastrw.engine: the gradient must be that of the weighted losses, got a product with the validation gradient of "
            f"{got.item():.6g} where their weights and scores give {w.item():.6g}"
        )
