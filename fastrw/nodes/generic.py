"""Any node, by calling it: V and the update are what it sends; the tangent is the transpose of what it sends, which is
linear in what it receives; and if its backward has no derivative, it is called once per example."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.autograd.graph import Node

from fastrw.errors import Refused, ours, reason
from fastrw.graph.saved import is_custom
from fastrw.graph.sending import send
from fastrw.nodes.base import ByInput, Part, Use, total, wide
from fastrw.nodes.lazy import formed
from fastrw.nodes.numbers import holds
from fastrw.nodes.owned import Owned


class NoDerivative(Refused):
    """A node's backward cannot be differentiated."""


class Generic(Part):
    """gs: output of the node's operation -> its gradient; tangent: {input: tangent} -> {output: tangent}."""

    masks = False
    calls_node = True
    form = "generic"

    def why(self) -> str:
        if self.form == "generic":
            return "the tangent of the operation; all else by calling its node"
        return "the node's backward has no derivative"

    def __init__(self, node: Node, use: Use, gs: dict[int, Tensor], tangent: Callable[[dict], dict]):
        self._node, self._below, self._gs, self._owned, self._tangent = node, use.below, gs, use.owned, tangent

    def validation(self) -> ByInput:
        return self._sent(lambda owned, g: owned.validating(g))

    def update(self, w: Tensor) -> ByInput:
        return self._sent(lambda owned, g: owned.weigh(g, w))

    def score(self, V: ByInput) -> Tensor | None:
        if not V:
            return None
        try:
            ts = {k: formed(t) for k, t in self._tangent(V).items()}
        except NoDerivative:
            self.form = "once per example"
            return self._one_by_one(V)
        return total(*(self._owned[k].sums(product(self._gs[k], t)) for k, t in ts.items() if k in self._gs))

    def instances(self) -> ByInput:
        each = [*self._each()]
        return {j: torch.stack([sent[j] for sent in each]) for j in each[0]}

    def _one_by_one(self, V: ByInput) -> Tensor:
        none = wide(next(iter(self._gs.values()))).new_zeros(())
        dots = [[product(sent[j], formed(v)).sum() for j, v in V.items() if j in sent] for sent in self._each()]
        return torch.stack([total(none, *each) for each in dots])

    def _each(self) -> Iterator[ByInput]:
        """What the G of each example sends to each input."""
        for i in range(next(iter(self._owned.values())).n):
            yield self._sent(lambda owned, g, i=i: owned.only(g, i))

    def _sent(self, masked: Callable[[Owned, Tensor], Tensor]) -> ByInput:
        outputs = range(len(self._node._input_metadata))
        gs = [masked(self._owned[k], self._gs[k]) if k in self._gs else None for k in outputs]
        return {j: g for j, g in send(self._node, gs) if j in self._below}


def product(g: Tensor, t: Tensor) -> Tensor:
    """The real terms of <g, t>, elementwise, before the sum. A complex gradient holds those of the real and imaginary
    parts."""
    if g.is_complex() or t.is_complex():
        g, t = (torch.view_as_real(x.resolve_conj().contiguous()) if x.is_complex() else x for x in (g, t))
        return (g * t).sum(-1)
    g, t = (x.to_dense() if x.layout != torch.strided else x for x in (g, t))
    return wide(g) * wide(t)


@contextmanager
def needs_derivative(backward: str, kind: type[Refused] = NoDerivative) -> Iterator[None]:
    """Raises `kind` if torch cannot differentiate the backward in this context."""
    try:
        yield
    except Exception as error:  # of torch, or of a custom function
        if ours(error) or "second time" in str(error):
            raise
        raise kind(f"{backward}, got {reason(error)}") from error


def transposed(node: Node, ts: ByInput) -> dict[int, Tensor]:
    """{output: tangent}: the gradient of u -> <what the node sends for u, ts>, which is linear.

    Raises NoDerivative where torch cannot take it.
    """
    us = [torch.zeros(m.shape, dtype=m.dtype, device=m.device, requires_grad=True) for m in node._input_metadata]
    rule = f"fastrw.nodes: the backward of {node.name()} must have a derivative"
    with needs_derivative(rule):
        with torch.enable_grad():
            dots = {j: product(g, ts[j]).sum() for j, g in send(node, us) if j in ts}
        if bare := {j for j, dot in dots.items() if not dot.requires_grad}:
            ones = [torch.ones_like(u) for u in us]
            if not all(holds((g == 0).all()) for j, g in send(node, ones) if j in bare):
                raise NoDerivative(f"{rule}, got none")
        dots = [dot for j, dot in dots.items() if j not in bare]
        if not dots:
            return {}
        found = torch.autograd.grad(dots, us, allow_unused=True)
        # a detached or once_differentiable backward raises nothing
        if is_custom(node) and not holds(_is_transpose(node, ts, us, found)):
            raise NoDerivative(f"{rule}, got a wrong one")
    return {k: t for k, t in enumerate(found) if t is not None}


def _is_transpose(node: Node, ts: ByInput, us: list[Tensor], found: tuple[Tensor | None, ...]) -> Tensor:
    """Is <what the node sends for r, ts> = <r, found>, for one fixed r? 0-d."""
    wave = [
        torch.arange(1, u.numel() + 1, device=u.device, dtype=torch.float64).sin().view(u.shape).to(u.dtype) for u in us
    ]
    none = wide(us[0]).new_zeros(())
    sent = total(none, *(product(g, ts[j]).sum() for j, g in send(node, wave) if j in ts))
    terms = [product(r, t) for r, t in zip(wave, found, strict=True) if t is not None]
    ours, scale = total(none, *(t.sum() for t in terms)), total(none, *(t.abs().sum() for t in terms))
    return (sent - ours).abs() <= (1e-6 if us[0].dtype == torch.float64 else 1e-2) * torch.maximum(scale, sent.abs())
