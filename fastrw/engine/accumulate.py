"""How gradients come into `.grad`: all of them or, where something raises, none."""

import torch
from torch import Tensor

from fastrw.errors import ForThisBatch
from fastrw.graph.walk import Graph


def backward(total: Tensor, none: bool = False, finite: bool = False) -> None:
    """An ordinary backward of the 0-d loss into `.grad` of every leaf; `none`: no example counts, and all that it adds
    is 0; `finite`: raises ForThisBatch where a gradient is not."""
    leaves = list(Graph(total.grad_fn).leaves.values())
    if any(p._post_accumulate_grad_hooks for p in leaves):
        return total.backward()
    grads = torch.autograd.grad(total, leaves, allow_unused=True)  # all of them, or an error and none
    found = {p: torch.zeros_like(p) if none else g for p, g in zip(leaves, grads, strict=True) if g is not None}
    if finite and not all(bool((g.to_dense() if g.is_sparse else g).isfinite().all()) for g in found.values()):
        raise ForThisBatch(
            "fastrw.Reweighter: an example that is not finite must be one of a dimension of the batch, to be left out, "
            "got one that could not be"
        )
    accumulate(found)


@torch.no_grad()
def accumulate(gradients: dict[Tensor, Tensor]) -> None:
    """Add to `.grad`, each in memory of its own, laid out as its parameter."""
    taken = set()
    for p, g in gradients.items():
        if p.grad is not None:
            if p.grad.is_sparse and not g.is_sparse:
                p.grad = p.grad + g
            else:
                p.grad.add_(g)
            continue
        if g.is_sparse:
            p.grad = g
            continue
        storage = g.untyped_storage()
        home = storage.data_ptr()
        alone = home not in taken and storage.nbytes() == g.nbytes
        taken.add(home)
        p.grad = (
            g.detach() if alone and (g.dtype, g.stride()) == (p.dtype, p.stride()) else torch.empty_like(p).copy_(g)
        )
