"""The part of a convolution: instance form while a per-example gradient is no larger than its rows, else project."""

from __future__ import annotations

from torch import Tensor

from fastrw.ops import backends
from fastrw.ops.function import value
from fastrw.parts.part import Gradients, Instances, Owned, Part, Products, wide
from fastrw.rules.convolution import DIMENSIONS, each
from fastrw.tape import Use

NAMES = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")


class Convolution(Part):
    """x [n + m, C, ...], g [n + m, O, ...]."""

    def __init__(self, use: Use, given: dict, options: tuple, g: Tensor, owned: Owned, products: Products):
        weight, bias = given["weight"], given.get("bias")
        self._x, self._g = given["input"].detach().to(g.dtype), g
        self._owned, self._products, self._options = owned, products, options
        self._weight = id(weight) if id(weight) in use.directed else None
        self._kernel = list(weight.shape[2:])
        self._biases = None
        if bias is not None and id(bias) in use.directed:
            self._biases = Instances(owned, {id(bias): wide(g).flatten(2).sum(2)})
        self._G: Tensor | None = None
        instance = weight.numel() <= (self._x.numel() + g.numel()) // (owned.n + owned.m)
        if instance and (weight.shape[1] < 16 or weight.shape[2:].numel() > 9):
            # torch alone makes them an example a group, which is slow for these
            instance = backends.choose("conv_instance", products.backend, self._x).name != "reference"
        self.form = "instance" if instance else "project"

    def alone(self) -> Tensor | None:
        parts = [] if self._biases is None else [self._biases.alone()]
        if self._weight is not None:
            V = None
            if self.form == "project":
                V = self._outer(self._x[self._owned.n :], self._g[self._owned.n :], None)
            parts.append(self._scored(V))
        return sum(parts[1:], parts[0]) if parts else None

    def validation(self) -> Gradients:
        V = {} if self._biases is None else self._biases.validation()
        if self._weight is not None:
            V[self._weight] = self._outer(self._x[self._owned.n :], self._g[self._owned.n :], None)
        return V

    def score(self, V: Gradients) -> Tensor | None:
        parts = [] if self._biases is None else [self._biases.score(V)]
        if self._weight in V:
            parts.append(self._scored(V[self._weight]))
        parts = [part for part in parts if part is not None]
        return sum(parts[1:], parts[0]) if parts else None

    def update(self, w: Tensor) -> Gradients:
        found = {} if self._biases is None else self._biases.update(w)
        if self._G is not None:
            found[self._weight] = value("combine", self._products.backend, self._G, w)
        elif self._weight is not None:
            found[self._weight] = self._outer(self._x[: self._owned.n], self._g[: self._owned.n], w)
        return found

    def _outer(self, x: Tensor, g: Tensor, w: Tensor | None) -> Tensor:
        return value("conv_outer", self._products.backend, x, g, w, self._kernel, *self._options)

    def _scored(self, V: Tensor | None) -> Tensor:
        """Along V; None: along the sum over the validation examples."""
        backend, n = self._products.backend, self._owned.n
        if self.form == "instance":
            V = None if V is None else V.to(self._x.dtype)
            s, self._G, _ = value("conv_instance", backend, self._x, self._g, n, V, self._kernel, *self._options)
            self._x = self._g = None
            return s
        x, g, V = self._products.narrow(self._x[:n], self._g[:n], V.to(self._x.dtype))
        return value("conv_dot", backend, x, g, V, None, *self._options)


def convolution(use: Use, g: Tensor, owned: Owned, products: Products) -> Part | None:
    dims = DIMENSIONS[use.function]
    given = dict(zip(NAMES, use.call.args, strict=False)) | use.call.kwargs
    x, padding = given["input"], given.get("padding", 0)
    if id(x) in use.directed or x.ndim != dims + 2 or owned.outer != 1 or len(x) != owned.n + owned.m:
        return None
    if isinstance(padding, str):
        if padding != "valid":
            return None
        padding = 0
    numbers = (each(x, dims) for x in (given.get("stride", 1), padding, given.get("dilation", 1)))
    options = (*numbers, given.get("groups", 1))
    return Convolution(use, given, options, g, owned, products)
