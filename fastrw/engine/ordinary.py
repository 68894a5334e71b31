"""Ordinary backwards: the validation gradient, the weighted gradient, and how gradients come into `.grad`: all of them
or, where something raises, none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from fastrw.engine import guards
from fastrw.errors import ForThisBatch
from fastrw.graph import hooks, nested
from fastrw.graph.walk import Graph


def gradient(
    loss: Tensor, leaves: Sequence[Tensor], scaling: Tensor | None = None, retain: bool = True
) -> list[Tensor | None]:
    """The dense gradient of a 0-d loss, times `scaling`, by each leaf. Raises Refused where a node is compiled, or runs
    a backward inside its own."""
    guards.supported(Graph(loss.grad_fn), "fastrw.backward: ")
    seed = torch.ones_like(loss) if scaling is None else scaling.to(loss.dtype).expand(loss.shape)
    with nested.refused():
        found = torch.autograd.grad(loss, leaves, seed, retain_graph=retain, allow_unused=True)
    return [v.to_dense() if v is not None and v.layout != torch.strided else v for v in found]


def weighted_gradient(
    losses: Tensor, w: Tensor, scaling: Tensor | None, scale: float | Tensor, retain: bool
) -> list[tuple[Tensor, Tensor]]:
    """[(leaf, scale * sum_i w_i grad f_i)], of every leaf that a backward fills. losses, w: [n]."""
    seed = w.to(losses.dtype) * scale
    return _gradients(losses, seed if scaling is None else seed * scaling.to(seed.dtype), retain)


def averaged_gradient(losses: Tensor, scaling: Tensor | None, scale: float | Tensor) -> list[tuple[Tensor, Tensor]]:
    """The same of a plain step, w_i = 1/n."""
    mean = losses.mean()
    return weighted_gradient(mean, torch.ones_like(mean), scaling, scale, retain=False)


def backward(total: Tensor, wanted: Callable[[], bool] = lambda: True) -> bool:
    """An ordinary backward of the 0-d loss into `.grad` of every leaf, if it is `wanted`: that is asked as late as
    possible, and returned."""
    if _any_hooked(Graph(total.grad_fn).leaves.values()):
        if wanted():
            total.backward()
            return True
        return False
    found = _gradients(total, torch.ones_like(total))  # all of them, or an error and none
    if wanted():
        accumulate(found)
        return True
    return False


def pass_on(gradients: list[tuple[Tensor, Tensor]]) -> None:
    """Adds to `.grad` what a backward would, and runs the hooks that wait for it."""
    if not _any_hooked(leaf for leaf, _ in gradients):
        return accumulate(gradients)
    if any(g.is_sparse or leaf._backward_hooks for leaf, g in gradients):
        raise ForThisBatch("fastrw.Reweighter: gradients must be dense and without hooks of their own, got others")
    sum((leaf * g).sum() for leaf, g in gradients).backward()  # whose gradients these are


def _any_hooked(leaves: Iterable[Tensor]) -> bool:
    return any(leaf._post_accumulate_grad_hooks for leaf in leaves)


def leaves_of(outputs: Tensor) -> list[Tensor]:
    """The leaves that a backward may fill."""
    return list(Graph(outputs.grad_fn).leaves.values())


def _gradients(outputs: Tensor, seed: Tensor, retain: bool = False) -> list[tuple[Tensor, Tensor]]:
    """(leaf, its gradient) of every leaf that a backward fills."""
    leaves = leaves_of(outputs)
    with nested.refused():
        found = torch.autograd.grad(outputs, leaves, seed, retain_graph=retain, allow_unused=True)
    return [(leaf, g) for leaf, g in zip(leaves, found, strict=True) if g is not None]


@torch.no_grad()
def accumulate(gradients: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Add to `.grad` of each leaf, then call post-accumulate hooks. A new `.grad` has memory of its own, in the layout
    of its parameter."""
    taken: set[int] = set()
    copied, added = _Pairs(), _Pairs()
    new: list[tuple[Tensor, Tensor]] = []
    for p, g in gradients:
        grad = p.grad
        if grad is None and not g.is_sparse:
            like = g.dtype == p.dtype and g.stride() == p.stride()
            if like and not g.storage_offset() and _is_alone(g, taken):
                new.append((p, g.detach()))
            else:
                copied.add(own := torch.empty_like(g if like else p), g, like)  # (of a plain tensor it is quicker)
                new.append((p, own))
        elif grad is None:
            new.append((p, g))
        elif g.is_sparse or grad.is_sparse:
            new.append((p, grad + g)) if not g.is_sparse else grad.add_(g)
        else:
            added.add(grad, g, grad.stride() == g.stride())
    for tos, ts in copied.kinds():
        torch._foreach_copy_(tos, ts)
    for tos, ts in added.kinds():
        torch._foreach_add_(tos, ts)
    for p, g in new:
        p.grad = g
    for p, _ in gradients:
        if p._post_accumulate_grad_hooks:
            for hook in [*p._post_accumulate_grad_hooks.values()]:
                hook(p)


def _is_alone(g: Tensor, taken: set[int]) -> bool:
    """Has it memory of its own? taken: where those lie that had it."""
    storage = g.untyped_storage()
    place = storage.data_ptr()
    if place in taken or storage.nbytes() != g.nbytes:
        return False
    taken.add(place)
    return True


class _Pairs:
    """Tensors and what is written to them: torch joins kernels of one kind alone."""

    def __init__(self) -> None:
        self._kinds: dict[tuple, tuple[list[Tensor], list[Tensor]]] = {}

    def add(self, to: Tensor, t: Tensor, alike: bool) -> None:
        """alike: have they the same strides?"""
        kind = to.get_device(), to.dtype, t.dtype, alike
        tos, ts = self._kinds.get(kind) or self._kinds.setdefault(kind, ([], []))
        tos.append(to)
        ts.append(t)

    def kinds(self) -> Iterable[tuple[list[Tensor], list[Tensor]]]:
        return self._kinds.values()


def free(*losses: Tensor | None) -> None:
    """Frees what the nodes below saved, as a backward does: by a backward of no gradient at all, which computes
    nothing."""
    for loss in losses:
        if loss is None:
            continue
        graph = Graph(loss.grad_fn)
        try:
            with hooks.before([(loss.grad_fn, lambda grads: (None,) * len(grads))]):
                torch.autograd.grad(loss, list(graph.leaves.values()), torch.ones_like(loss), allow_unused=True)
        except Exception:  # a part of it is freed already, or a hook that watches does not expect None
            pass
