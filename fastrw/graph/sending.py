"""Direct calls of nodes: what a node sends to its inputs, and whether a hook changes it on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.autograd.graph import Node

from fastrw.graph.recomputed import callable_again
from fastrw.graph.saved import is_custom
from fastrw.graph.walk import Edge, Graph


def send(node: Node, grads: Sequence[Tensor | None]) -> Iterator[tuple[int, Tensor]]:
    """(input, gradient) for each input of the operation that gradients of its outputs (None: 0) reach; shaped and cast
    as the engine does. Impossible during a backward: then a node sends only what that backward needs."""
    assert torch._C._current_graph_task_id() == -1
    filled = [
        torch.zeros(m.shape, dtype=m.dtype, device=m.device) if g is None else g
        for g, m in zip(grads, node._input_metadata, strict=True)
    ]
    with callable_again(node):
        out = node.apply(*copied(filled)) if is_custom(node) else node(*filled)
    sent = out if type(out) in (tuple, list) else (out,)
    if is_custom(node):  # it returns one for each argument, but only tensors are inputs
        needed = iter([g for g, needs in zip(sent, node.needs_input_grad, strict=False) if needs])
        sent = [None if child is None else next(needed, None) for child, _ in node.next_functions]
    for j, (g, (child, k)) in enumerate(zip(sent, node.next_functions, strict=False)):
        if g is not None and child is not None:
            m = child._input_metadata[k]
            if list(g.shape) != list(m.shape):
                g = g.sum_to_size(m.shape)
            yield j, g if g.dtype == m.dtype else g.to(m.dtype)


def copied(grads: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
    """For a node whose backward may write to what it is given."""
    return tuple([None if g is None else g.clone() for g in grads])


def changed_on_the_way(graph: Graph, found: dict[Edge, Tensor]) -> str | None:
    """The name of the first node whose gradient differs from the sum of what is sent to it: a hook has changed it.
    found: edge -> the gradient in a backward, of every node that leads to a leaf, and of the leaves."""
    got: dict[Edge, Tensor] = {}
    terms: dict[Edge, Tensor] = {}  # the sum of the norms of the terms: they may cancel
    for i in (*graph.inner, *graph.leaves):
        node = graph.nodes[i]
        grads = [found.get((i, k)) for k in range(len(node._input_metadata))]
        for k, g in enumerate(grads):
            sent = got.pop((i, k), None)
            if sent is not None and g is not None and g.numel() and not _alike(g, sent, terms.pop((i, k), None)):
                return node.name()
        if i in graph.leaves or all(g is None for g in grads):
            continue
        for j, g in send(node, grads):
            edge = graph.below[i][j]
            if edge in found:
                if edge in got:
                    terms[edge] = terms.get(edge, _norm(got[edge])) + _norm(g)
                    g = got[edge] + g
                got[edge] = g
    return None


def _norm(g: Tensor) -> Tensor:
    return torch.linalg.vector_norm(g.to_dense() if g.layout != torch.strided else g)


def _alike(g: Tensor, sent: Tensor, terms: Tensor | None) -> bool:
    """terms: the sum of the norms of the terms that were added, if more than one."""
    if g.layout == sent.layout == torch.strided and torch.equal(g, sent):
        return True
    g, sent = (t.to_dense() if t.layout != torch.strided else t for t in (g, sent))
    if not g.is_complex():
        g, sent = (t if t.dtype == torch.float64 else t.float() for t in (g, sent))
    limit = {torch.float64: 1e-7}.get(g.dtype, 2e-2)
    norm = _norm(sent)
    scale = limit * norm + 1e4 * torch.finfo(g.dtype).eps * (norm if terms is None else terms)
    return not bool(_norm(g - sent) > scale)
