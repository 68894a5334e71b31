"""The standing check: one example's own gradient, by autograd on the graph at hand, against its score; and the weighted
gradient along V against the weighted scores."""

from __future__ import annotations

import torch
from torch import Tensor

from fastrw.engine import whole
from fastrw.engine.step import Asked, Found
from fastrw.errors import Refused
from fastrw.graph.walk import Graph


def check(
    graph: Graph, losses: Tensor, val_loss: Tensor | None, V: dict[int, Tensor] | None, found: Found, asked: Asked
):
    """Raises Refused where a score is not that of its example's own gradient. The graph must be whole. V: leaf's node
    -> direction; None: the gradient of val_loss.

    Returns whether this batch could tell: one whose numbers are not finite, or all 0, vouches for nothing.
    """
    leaves = graph.leaves
    scaling = 1.0 if asked.scaling is None else float(asked.scaling)
    wanted = [i for i in leaves if i in asked.selected]
    if V is None and wanted:
        seed = torch.full_like(val_loss, scaling)
        grads = torch.autograd.grad(val_loss, [leaves[i] for i in wanted], seed, retain_graph=True, allow_unused=True)
        V = {i: g for i, g in zip(wanted, grads, strict=True) if g is not None}
    finite = (losses.detach().isfinite() & found.scores.isfinite()).nonzero().flatten()
    if not len(finite) or not V:
        return False
    i = int(finite[found.scores[finite].abs().argmax()])  # the largest tells most
    truth, noise = (t / scaling**2 for t in whole.one(losses, i, [(leaves[leaf], v) for leaf, v in V.items()], scaling))
    kind = whole.coarsest({losses.dtype} | {m.dtype for node in graph.nodes for m in node._input_metadata})
    if not bool(truth.isfinite()):
        return False
    whole.judge(found.scores[i], truth, noise, kind, i)
    if asked.update:
        _check_gradient(found, V, asked, kind, scaling)
    return bool(truth != 0)


def _check_gradient(found: Found, V: dict[int, Tensor], asked: Asked, kind: torch.dtype, scaling: float) -> None:
    """<sum_i w_i grad f_i, V> = sum_i w_i s_i."""
    w = torch.where(found.weights == 0, 0, found.weights * found.scores).sum() * asked.scale
    pairs = [(g, V[leaf]) for leaf, g in found.gradients.items() if leaf in V]
    got, noise = (t / scaling**2 for t in whole.along(pairs, w.new_zeros(())))
    limit = whole.RELATIVE[kind] * w.abs() + whole.ROUNDINGS[kind] * torch.finfo(kind).eps * noise
    if not bool((got - w).abs() <= limit):
        raise Refused(
            "fastrw.engine: the gradient must be that of the weighted losses, got a product with the validation "
            f"gradient of {got.item():.6g} where weights and scores give {w.item():.6g}"
        )
