"""Embeddings, and bags of them: gathered rows of V dotted with g; scattered rows of w g for the update."""

from __future__ import annotations

import torch
from torch import Tensor

from fastrw.graph.saved import signed
from fastrw.nodes.base import ByInput, NodeType, Part, Products, Use
from fastrw.nodes.owned import Rows
from fastrw.ops.call import served

TABLE = 0
SUM, MEAN, MAX = 0, 1, 2  # modes of a bag


class Lookup(Part):
    """A table looked up at idx [rows]; g [rows, q]. shape: that of the table, [size, q], or any shape if q is 1.
    padding: the row that gets no gradient, or -1."""

    form = "gather"

    def __init__(self, idx: Tensor, g: Tensor, shape: torch.Size, padding: int, sparse: bool, rows: Rows,
                 products: Products):  # fmt: skip
        self._idx, self._g, self._shape, self._padding, self._sparse = idx, g, shape, padding, sparse
        self._rows, self._products, self._size = rows, products, shape.numel() // g.shape[1]

    def why(self) -> str:
        return "an embedding: the rows of V are gathered"

    def validation(self) -> ByInput:
        if self._rows.of is None:
            r = self._rows.training
            return self._scatter(self._idx[r:], self._g[r:])
        return self._scatter(self._idx, self._g.masked_fill(self._rows.of[:, None] != self._rows.n, 0))

    def update(self, w: Tensor) -> ByInput:
        w = self._rows.weights(w.to(self._g.dtype))[:, None]
        idx, g = self._idx[: len(w)], self._g[: len(w)]
        return self._scatter(idx, (g * w).masked_fill_(w == 0, 0), self._sparse)

    def score(self, V: ByInput) -> Tensor | None:
        if TABLE not in V:
            return None
        r = self._rows.training if self._rows.of is None else len(self._g)
        v = V[TABLE].reshape(self._size, -1)
        g, v = self._products.narrow(self._g[:r], v.to(self._g.dtype))
        s, self.backend = served("embedding_dot", self._products.backend, self._idx[:r], g, v, self._padding)
        return self._rows.sums(s)

    def instances(self) -> ByInput:
        n, size = self._rows.n, self._size
        each = self._rows.weights(torch.arange(1, n + 1, device=self._g.device)) - 1  # the owner of a row; -1: none
        idx, g = self._idx[: len(each)], self._g[: len(each)]
        gone = (each < 0) | (idx == self._padding)
        into = g.new_zeros(n * size, g.shape[1])
        into.index_add_(0, each.clamp(min=0) * size + idx, g.masked_fill(gone[:, None], 0))
        return {TABLE: into.view(n, *self._shape)}

    def _scatter(self, idx: Tensor, g: Tensor, sparse: bool = False) -> ByInput:
        if sparse:
            return {TABLE: torch.ops.aten.embedding_backward(g, idx, self._size, self._padding, False, True)}
        V = torch.ops.aten.embedding_dense_backward(g, idx, self._size, self._padding, False)
        return {TABLE: V.view(self._shape)}


def _part(s, use: Use, g: Tensor, products: Products) -> Part | None:
    if s.scale_grad_by_freq or not g.ndim or not g.shape[-1]:
        return None
    rows = use.owned[0].rows(g.shape[-1])
    if rows is None or g.dtype == torch.float16:
        return None
    idx, g = s.indices.reshape(-1), g.reshape(-1, g.shape[-1])
    return Lookup(idx, g, s.shape(TABLE), signed(s.padding_idx), s.sparse, rows, products)


def _jvp(s, ts: ByInput, backend: str) -> ByInput:
    idx, padding = s.indices, signed(s.padding_idx)
    t = ts[TABLE][idx]
    if s.scale_grad_by_freq:  # torch's own second derivative ignores it
        counts = torch.bincount(idx.reshape(-1), minlength=len(ts[TABLE]))[idx]
        t = t / counts.unsqueeze(-1)
    return {0: t if padding < 0 else t.masked_fill((idx == padding).unsqueeze(-1), 0)}


def _bags(s) -> tuple[Tensor, Tensor | None]:
    """For each index: its bag, and the factor of its row in the sum of the bag (None: 1)."""
    idx, bag, sizes = s.indices, s.result1, s.result2
    if len(bag) != len(idx):  # torch omits it where it does not need it
        starts = s.offsets[: s.output.shape[0]]
        counts = torch.diff(starts, append=starts.new_tensor([len(idx)]))
        bag = torch.repeat_interleave(torch.arange(len(starts), device=idx.device), counts, output_size=len(idx))
    factor, padding = s.per_sample_weights, signed(s.padding_idx)
    if s.mode == MEAN:
        factor = 1 / sizes.clamp(min=1).to(s.output.dtype)[bag]
    if padding >= 0:
        gone = idx == padding
        factor = (~gone).to(s.output.dtype) if factor is None else factor.masked_fill(gone, 0)
    return bag, factor


def _winners(s) -> tuple[Tensor, Tensor]:
    """[bags, q]: the row of each maximum; and whether the bag was empty [bags, 1]."""
    bags = s.output.shape[0]
    return s.result3[:bags].clamp(min=0), (s.result2[:bags] == 0).unsqueeze(-1)


def _bag_part(s, use: Use, g: Tensor, products: Products) -> Part | None:
    owned, width = use.owned[0], g.shape[1]
    if use.below != (TABLE,) or s.scale_grad_by_freq or owned.dim != 0 or not g.numel() or g.dtype == torch.float16:
        return None
    if s.mode == MAX:  # each element of g belongs to another row
        rows, empty = _winners(s)
        idx = (rows * width + torch.arange(width, device=g.device)).reshape(-1)
        g, of = g.masked_fill(empty, 0).reshape(-1, 1), owned.of.repeat_interleave(width)
    else:
        idx, (bag, factor) = s.indices, _bags(s)
        g, of = g[bag] if factor is None else g[bag] * factor.unsqueeze(-1), owned.of[bag]
    sparse = s.sparse and s.mode != MAX
    return Lookup(idx, g, s.shape(TABLE), -1, sparse, Rows(owned.n, 0, of), products)


def _bag_jvp(s, ts: ByInput, backend: str) -> ByInput | None:
    if TABLE not in ts or len(ts) > 1:
        return None
    V = ts[TABLE]
    if s.mode == MAX:
        rows, empty = _winners(s)
        return {0: V.gather(0, rows).masked_fill(empty, 0)}
    bag, factor = _bags(s)
    t = V[s.indices]
    return {0: V.new_zeros(s.output.shape).index_add_(0, bag, t if factor is None else t * factor.unsqueeze(-1))}


TYPES = {
    "EmbeddingBackward0": NodeType("indices padding_idx scale_grad_by_freq sparse", _part, _jvp),
    "EmbeddingBagBackward0": NodeType(
        "indices offsets result1 result2 result3 mode per_sample_weights padding_idx scale_grad_by_freq sparse",
        _bag_part, _bag_jvp,
    ),
}  # fmt: skip
