"""The part of a product of rows with one matrix: gram or project form, and a weighted outer product for the update."""

from __future__ import annotations

from torch import Tensor

from fastrw import plan
from fastrw.ops.function import value
from fastrw.parts.part import Gradients, Owned, Part, Products, wide
from fastrw.tape import Use


class Rows(Part):
    """a [rows, p], g [rows, q]; `each` neighbouring rows of an example, `outer` times.

    waiting: the operands of gram_dot, where `alone` leaves them to `gram_scores`: all small layers in one call.
    """

    waiting: tuple | None = None

    def __init__(self, use: Use, operands: plan.Gram, g: Tensor, owned: Owned, products: Products):
        p, q = operands.a.shape[-1], g.shape[-1]
        self._owned, self._products = owned, products
        self._each = owned.inner // q
        a, g = operands.a.detach().to(g.dtype).reshape(-1, p), g.reshape(-1, q)
        self._a, self._g = a, g  # of the training examples
        self._validating = None  # the same of the validation examples; None: both follow each other in turns
        if owned.outer == 1:
            r = owned.n * self._each
            k = len(a) - r
            (self._a, a), (self._g, g) = a.split_with_sizes((r, k)), g.split_with_sizes((r, k))
            self._validating = a, g
        self._turned = operands.turned
        self._weight = id(operands.weight) if id(operands.weight) in use.directed else None
        self._bias = id(operands.bias) if operands.bias is not None and id(operands.bias) in use.directed else None

    def alone(self) -> Tensor | None:
        if self._validating is not None and self._weight is not None:
            (r, p), q, k = self._a.shape, self._g.shape[1], len(self._validating[0])
            machine = plan.machine_of(self._a.device)
            if machine.gram(r, k, p, q) < machine.project(r, k, p, q):
                self.form = "gram"
                rows = self._products.narrow(self._a, self._g, *self._validating)
                self.waiting = (*rows, float(self._bias is not None))
                return None
        return self.score(self.validation())

    def validation(self) -> Gradients:
        if self._validating is not None:
            return self._outer(*self._validating, None)
        return self._outer(self._a, self._g, self._spread(self._owned.validating(wide(self._g))))

    def update(self, w: Tensor) -> Gradients:
        return self._outer(self._a, self._g, self._spread(self._owned.training(w) if self._validating is None else w))

    def score(self, V: Gradients) -> Tensor | None:
        v, v_b = V.get(self._weight), V.get(self._bias)
        if v is None:
            return None if v_b is None else self._by_example(wide(self._g) @ wide(v_b))
        v = v.mT if self._turned else v
        rows = self._products.narrow(*(None if t is None else t.to(self._a.dtype) for t in (self._a, self._g, v, v_b)))
        return self._by_example(value("project_dot", self._products.backend, *rows))

    def _by_example(self, dots: Tensor) -> Tensor:
        if self._owned.outer == 1:
            return dots if self._each == 1 else dots.view(-1, self._each).sum(1)
        return self._owned.sums(dots)

    def _spread(self, w: Tensor) -> Tensor:
        """The weights of the rows."""
        w = w if self._each == 1 else w.repeat_interleave(self._each)
        return w if self._owned.outer == 1 else w.repeat(self._owned.outer)

    def _outer(self, a: Tensor, g: Tensor, w: Tensor | None) -> Gradients:
        if self._weight is None:  # the bias alone
            return {self._bias: value("weighted_outer", self._products.backend, a[:, :0], g, w)[1]}
        W, b = value("weighted_outer", self._products.backend, a, g, w)
        found = {self._weight: W.mT if self._turned else W}
        if self._bias is not None:
            found[self._bias] = b
        return found


def gram_scores(parts: list[Part], n: int, backend: str) -> list[Tensor]:
    """[n] each: the scores of the uses in gram form."""
    waiting = [part.waiting for part in parts if isinstance(part, Rows) and part.waiting is not None]
    groups: dict[tuple, list[tuple]] = {}
    for use in waiting:
        groups.setdefault((use[0].device, use[0].dtype), []).append(use)
    if backend == "triton":  # which has no grouped form
        return [value("gram_dot", backend, *use).view(n, -1).sum(1) for use in waiting]
    found = []
    for uses in groups.values():
        *matrices, bias = zip(*uses, strict=True)
        found.append(value("grouped_gram_dot", backend, n, bias, *(t for side in matrices for t in side))[0])
    return found
