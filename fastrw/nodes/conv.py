"""Convolutions, linear in weight and bias. Instance form while a per-example gradient is no larger than the example's
rows, else project form."""

from __future__ import annotations

import torch
from torch import Tensor

from fastrw.graph.saved import saved
from fastrw.graph.walk import shape_of
from fastrw.nodes.base import ByInput, Instances, NodeType, Part, Products, Use, by_example, in_sums_of, total, wide
from fastrw.nodes.owned import Owned
from fastrw.nodes.waiting import Summed, serving
from fastrw.ops import backends, conv_tangent

INPUT, WEIGHT, BIAS = 0, 1, 2


class Convolution(Part):
    """x [N, C, ...], g [N, O, ...]: the n training examples, then the validation's."""

    def __init__(self, x: Tensor, g: Tensor, weight: torch.Size, below: tuple[int, ...], geometry: tuple, owned: Owned,
                 products: Products):  # fmt: skip
        self._x, self._g, self._n = x.to(g.dtype), g, owned.n
        self._products, self._geometry, self._kernel = products, geometry, list(weight[2:])
        self._weight = WEIGHT in below
        self._biases = Instances({BIAS: by_example(wide(g).flatten(2).sum(2), owned)}) if BIAS in below else None
        self._G: Tensor | None = None
        instance = weight.numel() <= (x.numel() + g.numel()) // len(x)
        if instance and (weight[1] < 16 or weight[2:].numel() > 9):
            # torch alone makes them an example a group, which is slow for these
            instance = backends.choose("conv_instance", products.backend, self._x).name != "reference"
        self.form = "instance" if instance else "project"

    def why(self) -> str:
        if self.form == "instance":
            return "the gradient of one example is no larger than its rows"
        return "the gradient of one example is larger than its rows"

    def alone(self) -> Tensor | None:
        biases = None if self._biases is None else self._biases.alone()
        if not self._weight:
            return biases
        V = self._outer(self._x[self._n :], self._g[self._n :], None) if self.form == "project" else None
        return total(biases, self._scored(V))

    def validation(self) -> ByInput:
        V = {} if self._biases is None else self._biases.validation()
        if self._weight:
            V[WEIGHT] = self._outer(self._x[self._n :], self._g[self._n :], None)
        return V

    def score(self, V: ByInput) -> Tensor | None:
        biases = None if self._biases is None else self._biases.score(V)
        return total(biases, self._scored(V[WEIGHT]) if self._weight and WEIGHT in V else None)

    def update(self, w: Tensor) -> ByInput:
        found = {} if self._biases is None else self._biases.update(w)
        if self._G is not None:
            found[WEIGHT] = self._op("combine", self._products, self._G, in_sums_of(w, self._G))
        elif self._weight:
            found[WEIGHT] = self._outer(self._x[: self._n], self._g[: self._n], in_sums_of(w, self._g))
        return found

    def _outer(self, x: Tensor, g: Tensor, w: Tensor | None) -> Tensor:
        return self._op("conv_outer", self._products, x, g, w, self._kernel, *self._geometry)

    def _scored(self, V: Tensor | None) -> Tensor:
        """Along V; None: along the sum over the validation examples."""
        n = self._n
        V = None if V is None else V.to(self._x.dtype)
        if self.form == "instance":
            s, self._G, _ = self._op(
                "conv_instance", self._products, self._x, self._g, n, V, self._kernel, *self._geometry
            )
            self._x = self._g = None
            return s
        x, g, V = self._products.narrow(self._x[:n], self._g[:n], V)
        return self._op("conv_dot", self._products, x, g, V, None, *self._geometry)


def _geometry(node) -> tuple:
    """Stride, padding and dilation, a number a dimension, and groups."""
    dims = len(node._input_metadata[0].shape) - 2
    each = (list(x) for x in (saved(node, "stride"), saved(node, "padding"), saved(node, "dilation")))
    return (*(x * dims if len(x) == 1 else x for x in each), saved(node, "groups"))


def _part(node, use: Use, g: Tensor, products: Products) -> Part | None:
    below, owned = use.below, use.owned[0]
    if INPUT in below or not owned.leading or saved(node, "transposed") or not 3 <= g.ndim <= 5:
        return None
    child, k = node.next_functions[WEIGHT]
    if child is None:  # the bias alone
        return Instances({BIAS: by_example(wide(g).flatten(2).sum(2), owned)})
    weight = shape_of(child, k)
    if len(weight) != g.ndim or (g.dtype == torch.float16 and not g.is_cuda):
        return None
    if WEIGHT not in below:
        return Instances({BIAS: by_example(wide(g).flatten(2).sum(2), owned)})
    return Convolution(saved(node, "input"), g, weight, below, _geometry(node), owned, products)


def _tangent(node, ts, backend: str):
    """conv(x, V) + v_b + conv(t, W)."""
    t, V, v_b = (ts.get(j) for j in (INPUT, WEIGHT, BIAS))
    transposed = saved(node, "transposed")
    *geometry, groups = _geometry(node)
    extra = (transposed, list(saved(node, "output_padding")), groups)
    pairs = []
    if V is not None:
        pairs.append((saved(node, "input"), V))
    if t is not None:
        pairs.append((t, saved(node, "weight")))
    if not pairs:
        return {0: v_b.view(1, -1, *[1] * (len(shape_of(node)) - 2)).expand(shape_of(node))}
    if len(pairs) == 2 and pairs[0][0].dtype != pairs[1][0].dtype:
        pairs = [(x.to(pairs[0][0].dtype), W.to(pairs[0][0].dtype)) for x, W in pairs]
    first = torch.convolution(*pairs[0], v_b if pairs[0][1] is V else None, *geometry, *extra)
    found = first if len(pairs) == 1 else first + torch.convolution(*pairs[1], None, *geometry, *extra)
    if v_b is not None and pairs[0][1] is not V:
        found = found + v_b.view(1, -1, *[1] * (found.ndim - 2))
    return {0: found}


def _summed_tangent(node, ts, reader, backend: str) -> dict | None:
    """The tangent of a convolution's output y with its sums, for the BatchNorm that reads it alone: one kernel; None
    where none serves."""
    if not saved(reader, "training"):
        return None
    y = saved(reader, "input")
    if saved(node, "transposed") or y.dtype not in (torch.float32, torch.float64):
        return None
    t, V, v_b = (ts.get(j) for j in (INPUT, WEIGHT, BIAS))
    pairs = [] if V is None else [(saved(node, "input"), V)]
    pairs += [] if t is None else [(t, saved(node, "weight"))]
    if not pairs or any(s.dtype != y.dtype for pair in pairs for s in pair):
        return None
    (x, V), (t, W) = (*pairs, (None, None))[:2]
    asked = (x, V, v_b, t, W, y, *_geometry(node))
    chosen = serving("conv_tangent", backend, *asked)
    return None if chosen == "reference" else {0: Summed(*conv_tangent(*asked, backend=chosen))}


_READ_BY = dict.fromkeys(("NativeBatchNormBackward0", "CudnnBatchNormBackward0"), _summed_tangent)
TYPES = {"ConvolutionBackward0": NodeType(_part, _tangent, _READ_BY)}
