"""Ordinary backwards: the validation gradient, the weighted gradient, and letting a graph go."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastrw.engine import guards
from fastrw.graph import nested
from fastrw.graph.walk import Graph


def gradient(
    loss: Tensor, leaves: Sequence[Tensor], scaling: Tensor | None = None, retain: bool = True
) -> list[Tensor | None]:
    """The dense gradient of a 0-d loss, times `scaling`, by each leaf. Raises Refused where a node runs a backward of
    its own, or is compiled."""
    guards.served(Graph(loss.grad_fn), "fastrw.backward: ")
    seed = torch.ones_like(loss) if scaling is None else scaling.to(loss.dtype).expand(loss.shape)
    with nested.refused():
        found = torch.autograd.grad(loss, leaves, seed, retain_graph=retain, allow_unused=True)
    return [v.to_dense() if v is not None and v.layout != torch.strided else v for v in found]


def weighted_gradient(
    losses: Tensor, w: Tensor, scaling: Tensor | None, scale: float | Tensor, retain: bool
) -> list[tuple[Tensor, Tensor]]:
    """[(leaf, scale * sum_i w_i grad f_i)], of every leaf that a backward fills."""
    seed = w.to(losses.dtype) * scale
    seed = seed if scaling is None else seed * scaling.to(seed.dtype)
    leaves = list(Graph(losses.grad_fn).leaves.values())
    found = torch.autograd.grad(losses, leaves, seed, retain_graph=retain, allow_unused=True)
    return [(leaf, g) for leaf, g in zip(leaves, found, strict=True) if g is not None]


def free(*losses: Tensor | None) -> None:
    """Lets go what the nodes below saved, as a backward does: by one of no gradient at all, which computes nothing."""
    for loss in losses:
        if loss is None:
            continue
        graph = Graph(loss.grad_fn)
        handle = loss.grad_fn.register_prehook(lambda grads: (None,) * len(grads))
        try:
            torch.autograd.grad(loss, list(graph.leaves.values()), torch.ones_like(loss), allow_unused=True)
        except Exception:  # a part of it is freed already, or a hook that watches does not expect None
            pass
        finally:
            handle.remove()
