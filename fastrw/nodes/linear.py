"""Matrix products y = alpha a M + beta b, with parameters M and b; rows of a and y belong to examples. Gram or project
form for the scores, and a weighted outer product for the update."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from fastrw.graph.saved import Values
from fastrw.nodes import cost
from fastrw.nodes.base import ByInput, Joint, NodeType, Part, Products, Use, in_sums_of, scaled, total, wide
from fastrw.nodes.grams import Grams, Grouped, Whole
from fastrw.nodes.owned import Owned, Rows
from fastrw.ops.call import served

_COSTS = "r={} k={} p={} q={}: gram {:.3g} us, project {:.3g} us by the cost model"
SMALL = 1 << 18  # multiply-adds of a use, at most, that one call for many computes
SMALL_ON_GPU, COPIED = 1 << 24, 1 << 18  # the same; elements that are copied for it
BATCHES = 64  # the largest batch of products that are scored one by one


class Linear(Part):
    """a [rows, p], g [rows, q] by owner; matrix [p, q] and bias: the inputs that lead to parameters, or None. The bias
    has one element per column, in the shape `bias_shape`, and was multiplied by beta.

    In gram form, all are scored by one call.
    """

    def __init__(self, a: Tensor, g: Tensor, rows: Rows, matrix: int | None, bias: int | None, products: Products,
                 bias_shape: torch.Size | None = None, beta: float = 1):  # fmt: skip
        self._rows, self._products, self._matrix, self._bias = rows, products, matrix, bias
        self._bias_shape, self._beta = bias_shape, beta
        a = a if a.dtype == g.dtype else a.to(g.dtype)
        self._a, self._g = a, g  # of the training examples
        self._validating: tuple[Tensor, Tensor] | None = None  # of the validation
        r, k = a.shape[0], 0
        if rows.of is None:
            r, k = rows.training, r - rows.training
            (self._a, a), (self._g, g) = a.split_with_sizes((r, k)), g.split_with_sizes((r, k))
            self._validating = a, g
        self._size = r, k, a.shape[1], g.shape[1]

    @property
    def _has_gram(self) -> bool:
        return self._validating is not None and self._matrix is not None

    def why(self) -> str | tuple:
        if not self._has_gram:
            return "the rows of the operation along V"
        if self.small:
            return "a call costs more than the products: one serves many"
        gram, project = cost.seconds(self._g.device.type, *self._size)
        return (_COSTS, *self._size, gram * 1e6, project * 1e6)

    def costs(self) -> dict[str, float]:
        """Seconds, by the cost model."""
        gram, project = cost.seconds(self._g.device.type, *self._size)
        return {"project": project, "gram": gram} if self._has_gram else {"project": project}

    def alone(self, kept: bool = True) -> Tensor | None:
        if self._has_gram and (self.small or self._gram_is_faster()):
            self.form, self.waiting = "gram", True
            return None
        return self.score(self.validation())

    def joins(self) -> tuple | None:
        return (Grouped, self._g.device, self._g.dtype) if self.waiting or self.is_updated_with_others else None

    @property
    def small(self) -> bool:
        """Does a call of its own cost more than its sums, in either form?"""
        r, k, p, q = self._size
        return self._has_gram and r * max(p * q, k * (p + q)) <= SMALL

    @property
    def is_updated_with_others(self) -> bool:
        """Is one update for many faster than one for each?"""
        if not self._g.is_cuda:
            return self.small
        r, _, p, q = self._size
        return self._has_gram and r * p * q <= SMALL_ON_GPU and r * (p + q) <= COPIED

    def _gram_is_faster(self) -> bool:
        gram, project = cost.seconds(self._g.device.type, *self._size)
        return gram < project

    def alike(self) -> tuple[type[Joint], Whole] | None:
        _, k, _, _ = self._size
        each, bias = self._rows.each, self._bias is not None
        if type(self) is not Linear or not (self.waiting and self.small) or self._products.score_dtype is not None:
            return None
        if k % each or (bias and (self._beta != 1 or len(self._bias_shape) != 1)):
            return None
        return Grams, Whole(self._rows.n, k // each, self._g.dtype, self._g.device)

    def operands(self) -> tuple:
        """Of gram_dot."""
        operands = self._products.narrow(self._a, self._g, *self._validating)
        return (*operands, 0.0 if self._bias is None else float(self._beta**2))

    def validation(self) -> ByInput:
        if self._validating is not None:
            return self._outer(*self._validating, None)
        return self._outer(self._a, self._g, self._rows.validating(wide(self._g)))

    def update(self, w: Tensor) -> ByInput:
        return self._outer(self._a, self._g, self._rows.weights(in_sums_of(w, self._g)))

    def score(self, V: ByInput) -> Tensor | None:
        v, v_b = V.get(self._matrix), V.get(self._bias)
        v_b = None if v_b is None else scaled(v_b.reshape(-1), self._beta)
        if v is None:
            return None if v_b is None else self._rows.sums(wide(self._g) @ wide(v_b))
        operands = (self._a, self._g, self._layout(v), v_b)
        narrow = self._products.narrow(*(None if t is None else t.to(self._a.dtype) for t in operands))
        s, self.backend = served("project_dot", self._products.backend, *narrow)
        return self._rows.sums(s)

    def instances(self) -> ByInput:
        a, g = self._a, self._g
        if self._rows.of is None:
            a, g = (t.reshape(self._rows.n, self._rows.each, -1) for t in (a, g))
            M = torch.einsum("nrq,nrp->nqp", g, a)
        else:
            mine = (self._rows.of == torch.arange(self._rows.n, device=g.device)[:, None]).to(g.dtype)
            M = torch.einsum("nr,rq,rp->nqp", mine, g, a)
        b = None if self._bias is None else self._rows.sums(self._g)
        return self._by_input(None if self._matrix is None else M, b)

    def _outer(self, a: Tensor, g: Tensor, w: Tensor | None) -> ByInput:
        if self._matrix is None:  # the bias alone
            a = a[:, :0]
        (M, b), self.backend = served("weighted_outer", self._products.backend, a, g, w)
        return self._by_input(None if self._matrix is None else M, b)

    def _by_input(self, M: Tensor | None, b: Tensor | None) -> ByInput:
        """M [..., q, p], b [..., q], laid out as the parameters."""
        found = {} if M is None else {self._matrix: self._layout(M)}
        if self._bias is not None:
            b = b if b.shape == self._bias_shape else b.view(*b.shape[:-1], *self._bias_shape)
            found[self._bias] = scaled(b, self._beta)
        return found

    def _layout(self, M: Tensor) -> Tensor:
        """From [..., q, p], the layout of the ops, to that of the parameter; and back."""
        return M.mT


class Transposed(Linear):
    """The matrix is [q, p]: examples are columns of the product."""

    def _layout(self, M: Tensor) -> Tensor:
        return M


class Vector(Linear):
    """The matrix is a vector [p], for q = 1."""

    def _layout(self, M: Tensor) -> Tensor:
        return M[None] if M.ndim == 1 else M.squeeze(-2)


class Batched(Part):
    """A batch of products with a separate matrix for each: experts, heads. parts: in the order of the batch."""

    def __init__(self, parts: list[Linear]):
        self._parts = parts

    def why(self) -> str:
        return "the rows of each product of the batch along V"

    def validation(self) -> ByInput:
        return _stacked([part.validation() for part in self._parts])

    def score(self, V: ByInput) -> Tensor | None:
        found = total(*(part.score({j: v[b] for j, v in V.items()}) for b, part in enumerate(self._parts)))
        self.backend = self._parts[-1].backend
        return found

    def update(self, w: Tensor) -> ByInput:
        return _stacked([part.update(w) for part in self._parts])

    def instances(self) -> ByInput:
        return _stacked([part.instances() for part in self._parts], 1)


def _stacked(found: list[ByInput], dim: int = 0) -> ByInput:
    return {j: torch.stack([one[j] for one in found], dim) for j in found[0]}


def _product(left: str, right: str, bias: int | None = None, batched: bool = False) -> NodeType:
    """beta bias + alpha left right, with inputs (bias, left, right), or (left, right) where `bias` is None.

    left, right: the names that the operands are saved under. batched: a product for each index of the first dimension.
    """
    first = 0 if bias is None else 1

    def part(s, use: Use, g: Tensor, products: Products) -> Part | None:
        shape = use.memo.get("bias")
        if shape is None and bias in use.below:
            shape = use.memo["bias"] = s.shape(bias)
        scales = (1, 1) if bias is None else (s.alpha, s.beta)
        return (_batched if batched else _part)(s, use, g, products, left, right, first + 1, bias, shape, *scales)

    def jvp(s, ts: ByInput, backend: str) -> ByInput:
        product = total(ts[first] @ getattr(s, right) if first in ts else None,
                        getattr(s, left) @ ts[first + 1] if first + 1 in ts else None)  # fmt: skip
        if bias is None:
            return {0: product}
        b = scaled(ts[bias], s.beta) if bias in ts else None
        found = total(None if product is None else scaled(product, s.alpha), b)
        return {0: found.expand(s.output.shape)}

    return NodeType(f"{left} {right}" if bias is None else f"{left} {right} alpha beta", part, jvp)


def _part(s, use: Use, g: Tensor, products: Products, left: str, right: str, matrix: int, bias: int | None,
          bias_shape: torch.Size | None, alpha: float, beta: float) -> Part | None:  # fmt: skip
    """A use of one product. matrix: which input `right` is; `left` is the one before it."""
    known = use.memo.get("rows")
    if known is None:
        known = use.memo["rows"] = _rows(use, g, matrix, bias, bias_shape)
        use.memo["operand"] = (left,) if bias is None else (left, "alpha", "beta")
    rows, j, bias, transposed = known
    if rows is None:
        return None
    if j is None:
        return Linear(g[:, :0], g, rows, None, bias, products, bias_shape, beta)
    if transposed:
        return Transposed(scaled(getattr(s, right).mT, alpha), g.mT, rows, j, bias, products, bias_shape, beta)
    return Linear(scaled(getattr(s, left), alpha), g, rows, j, bias, products, bias_shape, beta)


def _rows(use: Use, g: Tensor, matrix: int, bias: int | None, bias_shape: torch.Size | None
          ) -> tuple[Rows | None, int | None, int | None, bool]:  # fmt: skip
    """The owners of the rows, if a formula applies; the inputs that lead to parameters, matrix and bias; is the matrix
    the left one? All follow from shapes."""
    below = [j for j in use.below if j != bias]
    bias = bias if bias in use.below else None
    transposed = below == [matrix - 1]  # M x: examples are columns
    owned, width = use.owned[0], g.shape[0 if transposed else -1]
    supported = g.ndim == 2 and below in ([], [matrix - 1], [matrix])
    if bias is not None:  # it must not run along the rows
        supported = supported and bias_shape.numel() == width and bias_shape[-1] == (1 if transposed else width)
    owned = _transposed(owned) if transposed else owned
    rows = owned.rows(width) if supported and owned is not None and width else None
    return rows, below[0] if below else None, bias, transposed


def _transposed(owned: Owned) -> Owned | None:
    """The owners of the transpose of a matrix."""
    if len(owned.shape) != 2 or owned.dim is None:
        return None
    return replace(owned, shape=torch.Size(reversed(owned.shape)), dim=1 - owned.dim)


def _mv(s, use: Use, g: Tensor, products: Products) -> Part | None:
    """self vec: inputs 0, 1."""
    if "rows" not in use.memo:
        use.memo["rows"] = use.owned[0].rows(1) if use.below == (1,) else None
    rows = use.memo["rows"]
    return None if rows is None else Vector(s.self, g[:, None], rows, 1, None, products)


def _batched(s, use: Use, g: Tensor, products: Products, left: str, right: str, matrix: int, bias: int | None,
             bias_shape: torch.Size | None, *scales: float) -> Part | None:  # fmt: skip
    batch = len(g)
    if "one" not in use.memo:
        owned, owns_bias = use.owned[0], bias_shape is None or (len(bias_shape) == 3 and bias_shape[0] == batch)
        supported = owns_bias and batch <= BATCHES and owned.dim not in (None, 0)
        one = replace(owned, shape=owned.shape[1:], dim=owned.dim - 1) if supported else None
        use.memo["one"] = one and Use(use.node, use.below, {0: one})
    one = use.memo["one"]
    if one is None:
        return None
    shape = None if bias_shape is None else bias_shape[1:]
    kept = {name: getattr(s, name) for name, j in ((left, matrix), (right, matrix - 1)) if j in use.below}
    parts = [
        _part(Values(**{name: t[b] for name, t in kept.items()}), one, g[b], products, left, right, matrix,
              bias, shape, *scales)
        for b in range(batch)
    ]  # fmt: skip
    return Batched(parts) if parts and None not in parts else None


TYPES = {
    "AddmmBackward0": _product("mat1", "mat2", bias=0),
    "MmBackward0": _product("self", "mat2"),
    "MvBackward0": _product("self", "vec")._replace(part=_mv),
    "BmmBackward0": _product("self", "mat2", batched=True),
    "BaddbmmBackward0": _product("batch1", "batch2", bias=0, batched=True),
}
