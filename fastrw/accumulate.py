"""How gradients come into `.grad`: all of them or, where something raises, none."""

import torch
from torch import Tensor, nn


def backward(total: Tensor, model: nn.Module, none: bool = False) -> None:
    """An ordinary backward of the 0-d loss into `.grad`; `none`: no example counts, and all that it adds is 0."""
    params = [p for p in model.parameters() if p.requires_grad]
    if any(p._post_accumulate_grad_hooks for p in params):
        return total.backward()
    grads = torch.autograd.grad(total, params, allow_unused=True)  # all of them, or an error and none
    pairs = zip(params, grads, strict=True)
    accumulate({p: torch.zeros_like(p) if none else g for p, g in pairs if g is not None})


@torch.no_grad()
def accumulate(gradients: dict[nn.Parameter, Tensor]) -> None:
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
        home = g.untyped_storage().data_ptr()
        alone = home not in taken and g.untyped_storage().nbytes() == g.numel() * g.element_size()
        taken.add(home)
        p.grad = (
            g.detach() if alone and (g.dtype, g.stride()) == (p.dtype, p.stride()) else torch.empty_like(p).copy_(g)
        )
