"""The part of a table: gathered rows of V dotted with g; scattered rows of w g for the update."""

from __future__ import annotations

import torch
from torch import Tensor

from fastrw.ops.function import value
from fastrw.parts.part import Gradients, Owned, Part, Products
from fastrw.rules.embedding import SCALED, UntracedUse
from fastrw.tape import Use

NAMES = ("input", "weight", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse")


class Lookup(Part):
    """idx [rows], g [rows, q]."""

    form = "gather"

    def __init__(self, idx: Tensor, weight: Tensor, padding: int, g: Tensor, owned: Owned, products: Products):
        self._idx, self._g = idx.reshape(-1), g.reshape(-1, weight.shape[1])
        self._key, self._size, self._padding = id(weight), len(weight), padding
        self._owned, self._products = owned, products

    def validation(self) -> Gradients:
        return self._scatter(self._owned.validating(self._g))

    def update(self, w: Tensor) -> Gradients:
        return self._scatter(self._owned.training(w.to(self._g.dtype)))

    def score(self, V: Gradients) -> Tensor | None:
        if self._key not in V:
            return None
        g, v = self._products.narrow(self._g, V[self._key].to(self._g.dtype))
        dots = value("embedding_dot", self._products.backend, self._idx, g, v, self._padding)
        return self._owned.sums(dots)

    def _scatter(self, w: Tensor) -> Gradients:
        g = self._owned.weigh(self._g, w)
        return {self._key: torch.ops.aten.embedding_dense_backward(g, self._idx, self._size, self._padding, False)}


def embedding(use: Use, g: Tensor, owned: Owned, products: Products) -> Part | None:
    given = dict(zip(NAMES, use.call.args, strict=False)) | use.call.kwargs
    if given.get("scale_grad_by_freq"):
        raise UntracedUse(SCALED)
    weight, padding = given["weight"], given.get("padding_idx")
    if given.get("max_norm") is not None or id(weight) not in use.directed:
        return None
    padding = -1 if padding is None else padding % len(weight)
    return Lookup(given["input"], weight, padding, g, owned, products)
