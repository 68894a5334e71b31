"""Rows times a matrix: y = a M + b, M [p, q]. Gram or project form, and a weighted outer product for the update."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from fastrw.graph.saved import saved
from fastrw.graph.walk import shape_of
from fastrw.nodes import cost
from fastrw.nodes.base import ByInput, NodeType, Part, Products, Use, in_sums_of, total, wide
from fastrw.nodes.owned import Owned, Rows

_COSTS = "r={} k={} p={} q={}: gram {:.3g} us, project {:.3g} us by the cost model"


class Linear(Part):
    """a [rows, p], g [rows, q] by owner; matrix and bias: the inputs that lead to parameters, or None.

    waiting: the operands of gram_dot, where `alone` leaves them to `gram_scores`: all small layers in one call.
    """

    waiting: tuple | None = None
    _costs: tuple | None = None

    def __init__(self, a: Tensor, g: Tensor, rows: Rows, matrix: int | None, bias: int | None, products: Products):
        self._rows, self._products, self._matrix, self._bias = rows, products, matrix, bias
        a = a if a.dtype == g.dtype else a.to(g.dtype)
        self._a, self._g = a, g  # of the training examples
        self._validating: tuple[Tensor, Tensor] | None = None  # of the validation
        if rows.of is None:
            r = rows.training
            sizes = (r, len(g) - r)
            (self._a, a), (self._g, g) = self._a.split_with_sizes(sizes), g.split_with_sizes(sizes)
            self._validating = a, g

    def why(self) -> str | tuple:
        return "the rows of the operation along V" if self._costs is None else (_COSTS, *self._costs)

    def alone(self) -> Tensor | None:
        if self._validating is not None and self._matrix is not None:
            (r, p), q, k = self._a.shape, self._g.shape[1], len(self._validating[0])
            machine = cost.machine_of(self._a.device)
            gram, project = machine.gram(r, k, p, q), machine.project(r, k, p, q)
            self._costs = (r, k, p, q, gram * 1e6, project * 1e6)
            if gram < project:
                self.form = "gram"
                operands = self._products.narrow(self._a, self._g, *self._validating)
                self.waiting = (*operands, float(self._bias is not None))
                return None
        return self.score(self.validation())

    def validation(self) -> ByInput:
        if self._validating is not None:
            return self._outer(*self._validating, None)
        return self._outer(self._a, self._g, self._rows.validating(wide(self._g)))

    def update(self, w: Tensor) -> ByInput:
        return self._outer(self._a, self._g, self._rows.weights(in_sums_of(w, self._g)))

    def score(self, V: ByInput) -> Tensor | None:
        v, v_b = V.get(self._matrix), V.get(self._bias)
        if v is None:
            return None if v_b is None else self._rows.sums(wide(self._g) @ wide(v_b))
        operands = (self._a, self._g, v.mT, v_b)
        narrow = self._products.narrow(*(None if t is None else t.to(self._a.dtype) for t in operands))
        return self._rows.sums(self._op("project_dot", self._products, *narrow))

    def _outer(self, a: Tensor, g: Tensor, w: Tensor | None) -> ByInput:
        if self._matrix is None:  # the bias alone
            return {self._bias: self._op("weighted_outer", self._products, a[:, :0], g, w)[1]}
        M, b = self._op("weighted_outer", self._products, a, g, w)
        return {self._matrix: M.mT} if self._bias is None else {self._matrix: M.mT, self._bias: b}


def gram_scores(parts: Iterable[Part], n: int, backend: str) -> list[Tensor]:
    """[n] each: the scores of the uses in gram form."""
    waiting = [part for part in parts if isinstance(part, Linear) and part.waiting is not None]
    if backend == "triton":  # which has no grouped form
        return [part._op("gram_dot", Products(backend), *part.waiting).view(n, -1).sum(1) for part in waiting]
    groups: dict[tuple, list[Linear]] = {}
    for part in waiting:
        groups.setdefault((part.waiting[0].device, part.waiting[0].dtype), []).append(part)
    found = []
    for group in groups.values():
        *matrices, bias = zip(*(part.waiting for part in group), strict=True)
        args = (n, bias, *(t for side in matrices for t in side))
        found.append(group[0]._op("grouped_gram_dot", Products(backend), *args)[0])
        for part in group:
            part.backend = group[0].backend
    return found


def _part(node, use: Use, g: Tensor, products: Products, a: str, matrix: int, bias: int | None) -> Part | None:
    rows = use.memo.get("rows", use)
    if rows is use:
        served = g.ndim == 2 and g.shape[1] and all(j in (matrix, bias) for j in use.below)
        rows = use.memo["rows"] = use.owned[0].rows(g.shape[1]) if served else None
    if rows is None:
        return None
    if matrix not in use.below:
        return Linear(g[:, :0], g, rows, None, bias, products)
    return Linear(saved(node, a), g, rows, matrix, bias if bias in use.below else None, products)


def _addmm(node, use: Use, g: Tensor, products: Products) -> Part | None:
    """self + mat1 mat2: inputs 0, 1, 2."""
    if saved(node, "alpha") != 1 or saved(node, "beta") != 1:
        return None
    if 0 in use.below and "rows" not in use.memo:
        child, k = node.next_functions[0]
        if shape_of(child, k) != g.shape[1:]:
            use.memo["rows"] = None
    return _part(node, use, g, products, "mat1", 2, 0)


def _mm(node, use: Use, g: Tensor, products: Products) -> Part | None:
    """self mat2: inputs 0, 1."""
    if use.below == (0,):  # M x, the rows of x being columns
        across = _transposed(use.owned[0])
        rows = across and across.rows(g.shape[0]) if g.ndim == 2 and g.shape[0] else None
        return rows and _Turned(saved(node, "mat2").mT, g.mT, rows, 0, None, products)
    return _part(node, use, g, products, "self", 1, None)


class _Turned(Linear):
    """The matrix is [q, p]."""

    def score(self, V: ByInput) -> Tensor | None:
        return super().score({j: v.mT for j, v in V.items()})

    def _outer(self, a: Tensor, g: Tensor, w: Tensor | None) -> ByInput:
        return {j: M.mT for j, M in super()._outer(a, g, w).items()}


def _transposed(owned: Owned) -> Owned | None:
    if len(owned.shape) != 2 or owned.dim is None:
        return None
    shape = torch.Size(reversed(owned.shape))
    return Owned(owned.n, shape, 1 - owned.dim, owned.of, owned.each, owned.complete)


def _addmm_tangent(node, ts, backend):
    scaled = lambda t, by: t if by == 1 else t * by  # noqa: E731
    product = total(
        ts[1] @ saved(node, "mat2") if 1 in ts else None,
        saved(node, "mat1") @ ts[2] if 2 in ts else None,
    )
    bias = scaled(ts[0], saved(node, "beta")) if 0 in ts else None
    return {0: total(None if product is None else scaled(product, saved(node, "alpha")), bias)}


def _mm_tangent(node, ts, backend):
    return {
        0: total(ts[0] @ saved(node, "mat2") if 0 in ts else None, saved(node, "self") @ ts[1] if 1 in ts else None)
    }


TYPES = {
    "AddmmBackward0": NodeType(_addmm, _addmm_tangent),
    "MmBackward0": NodeType(_mm, _mm_tangent),
    "BmmBackward0": NodeType(None, _mm_tangent),
}
