"""Looking up rows of a table: gathered rows of V dotted with g; scattered rows of w g for the update."""

from __future__ import annotations

import torch
from torch import Tensor

from fastrw.graph.saved import saved, signed
from fastrw.graph.walk import shape_of
from fastrw.nodes.base import ByInput, NodeType, Part, Products, Use, wide
from fastrw.nodes.owned import Rows

TABLE = 0


class Lookup(Part):
    """idx [rows], g [rows, q]."""

    form = "gather"

    def why(self) -> str:
        return "rows of a table: those of V, gathered"

    def __init__(self, idx: Tensor, g: Tensor, size: int, padding: int, sparse: bool, rows: Rows, products: Products):
        self._idx, self._g, self._size, self._padding, self._sparse = idx, g, size, padding, sparse
        self._rows, self._products = rows, products

    def validation(self) -> ByInput:
        if self._rows.of is None:
            r = self._rows.training
            return {TABLE: self._scatter(self._idx[r:], self._g[r:], sparse=False)}
        g = torch.where(self._rows.of[:, None] == self._rows.n, self._g, 0)
        return {TABLE: self._scatter(self._idx, g, sparse=False)}

    def update(self, w: Tensor) -> ByInput:
        w = self._rows.weights(w.to(self._g.dtype))[:, None]
        idx, g = self._idx[: len(w)], self._g[: len(w)]
        return {TABLE: self._scatter(idx, torch.where(w == 0, 0, g * w), self._sparse)}

    def score(self, V: ByInput) -> Tensor | None:
        if TABLE not in V:
            return None
        r = self._rows.training if self._rows.of is None else len(self._g)
        g, v = self._products.narrow(self._g[:r], V[TABLE].to(self._g.dtype))
        return self._rows.sums(self._op("embedding_dot", self._products, self._idx[:r], g, v, self._padding))

    def _scatter(self, idx: Tensor, g: Tensor, sparse: bool) -> Tensor:
        if sparse:
            return torch.ops.aten.embedding_backward(g, idx, self._size, self._padding, False, True)
        return torch.ops.aten.embedding_dense_backward(g, idx, self._size, self._padding, False)


def _part(node, use: Use, g: Tensor, products: Products) -> Part | None:
    if saved(node, "scale_grad_by_freq") or not g.ndim or not g.shape[-1]:
        return None
    rows = use.owned[0].rows(g.shape[-1])
    if rows is None or (wide(g).dtype != g.dtype and g.dtype == torch.float16):
        return None
    child, k = node.next_functions[TABLE]
    idx, g = saved(node, "indices").reshape(-1), g.reshape(-1, g.shape[-1])
    size = shape_of(child, k)[0]
    return Lookup(idx, g, size, signed(saved(node, "padding_idx")), saved(node, "sparse"), rows, products)


def _tangent(node, ts, backend: str):
    idx, padding = saved(node, "indices"), signed(saved(node, "padding_idx"))
    t = ts[TABLE][idx]
    if saved(node, "scale_grad_by_freq"):  # torch's own second derivative forgets it
        counts = torch.bincount(idx.reshape(-1), minlength=len(ts[TABLE]))[idx]
        t = t / counts.unsqueeze(-1)
    return {0: t if padding < 0 else t.masked_fill((idx == padding).unsqueeze(-1), 0)}


def _bag_tangent(node, ts, backend: str):
    """Sums, means or maxima of rows, in bags: linear in the table but for "max", where the row that won gives its
    own."""
    if TABLE not in ts or len(ts) > 1:
        return None
    V, idx, bag, sizes = ts[TABLE], saved(node, "indices"), saved(node, "result1"), saved(node, "result2")
    shape = shape_of(node)
    if saved(node, "mode") == 2:
        winners = saved(node, "result3")[: shape[0]]
        return {0: V.gather(0, winners.clamp(min=0)).masked_fill((sizes[: shape[0]] == 0).unsqueeze(-1), 0)}
    t, weights = V[idx], saved(node, "per_sample_weights")
    if weights is not None:
        t = t * weights.unsqueeze(-1)
    padding = signed(saved(node, "padding_idx"))
    if padding >= 0:
        t = t.masked_fill((idx == padding).unsqueeze(-1), 0)
    if len(bag) != len(idx):  # torch leaves it out where it needs none, and the sizes
        starts = saved(node, "offsets")[: shape[0]]
        sizes = torch.diff(starts, append=starts.new_tensor([len(idx)]))
        bag = torch.repeat_interleave(torch.arange(shape[0], device=idx.device), sizes)
    if len(bag) != len(idx):
        return None
    found = V.new_zeros(shape).index_add_(0, bag, t)
    return {0: found / sizes[: shape[0]].clamp(min=1).unsqueeze(-1) if saved(node, "mode") == 1 else found}


TYPES = {"EmbeddingBagBackward0": NodeType(None, _bag_tangent), "EmbeddingBackward0": NodeType(_part, _tangent)}
