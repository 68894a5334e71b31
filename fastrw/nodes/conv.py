"""Convolutions, linear in weight and bias. Instance form if a per-example gradient is no larger than the operands of
that example, else project form. On a GPU, gradients of small weights are instances like those of a norm: one launch a
use, and a few for all of them together."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fastrw.nodes.base import ByInput, Group, NodeType, Part, Products, Use, in_sums_of, total, wide
from fastrw.nodes.instances import Instances, by_example, is_small
from fastrw.nodes.lazy import TangentWithSums, serving
from fastrw.ops import backends
from fastrw.ops.call import can_serve, has_kernel, served

INPUT, WEIGHT, BIAS = 0, 1, 2


class Convolution(Part):
    """The weight [O, C / groups, ...] of a convolution: inputs x [N, C, ...] and output gradients g [N, O, ...], of the
    n training examples, then of the validation examples."""

    def __init__(self, x: Tensor, g: Tensor, weight: torch.Size, geometry: tuple, n: int, products: Products):
        self._x, self._g, self._n, self._weight = x, g, n, weight
        self._products, self._geometry, self._kernel = products, geometry, list(weight[2:])
        self._G: Tensor | None = None
        costs = self.costs()
        instance = costs["instance"] <= costs["project"]
        if instance and (weight[1] < 16 or weight[2:].numel() > 9):
            # torch computes them with one group per example, which is slow for these sizes
            instance = has_kernel("conv_instance", products.backend, x)
        self.form = "instance" if instance else "project"

    def why(self) -> str:
        if self.form == "instance":
            return "a per-example gradient is no larger than the operands of the example"
        return "a per-example gradient is larger than the operands of the example"

    def costs(self) -> dict[str, float]:
        """The elements kept per example until the weights are known."""
        kept = (self._x.numel() + self._g.numel()) // self._x.shape[0]
        return {"instance": float(self._weight.numel()), "project": float(kept)}

    def alone(self, kept: bool = True) -> Tensor | None:
        return self._scored(self.validation()[WEIGHT] if self.form == "project" else None)

    def validation(self) -> ByInput:
        return {WEIGHT: self._outer(self._x[self._n :], self._g[self._n :], None)}

    def score(self, V: ByInput) -> Tensor | None:
        return self._scored(V[WEIGHT]) if WEIGHT in V else None

    def joins(self) -> tuple | None:
        if self._G is None or (self._G.is_cuda and not is_small(self._G.numel(), self._G.device)):
            return None
        if not can_serve("grouped_combine", self._products.backend, self._G):
            return None
        return Combined, self._G.device, self._G.dtype

    def update(self, w: Tensor) -> ByInput:
        if self._G is not None:
            args = self._G, in_sums_of(w, self._G)
            M, self.backend = served("combine", self._products.backend, *args)
            return {WEIGHT: M}
        return {WEIGHT: self._outer(self._x[: self._n], self._g[: self._n], in_sums_of(w, self._g))}

    def instances(self) -> ByInput:
        return {WEIGHT: self._instances(None)[1] if self._G is None else self._G}

    def _outer(self, x: Tensor, g: Tensor, w: Tensor | None) -> Tensor:
        args = (x, g, w, self._kernel, *self._geometry)
        M, self.backend = served("conv_outer", self._products.backend, *args)
        return M

    def _instances(self, V: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        args = (self._x, self._g, self._n, V, self._kernel, *self._geometry)
        found, self.backend = served("conv_instance", self._products.backend, *args)
        return found

    def _scored(self, V: Tensor | None) -> Tensor:
        """Along V; None: along the sum over the validation examples."""
        V = None if V is None else V.to(self._x.dtype)
        if self.form == "instance":
            s, self._G, _ = self._instances(V)
            self._x = self._g = None
            return s
        n = self._n
        x, g, V = self._products.narrow(self._x[:n], self._g[:n], V)
        args = (x, g, V, None, *self._geometry)
        s, self.backend = served("conv_dot", self._products.backend, *args)
        return s


class Combined(Group):
    """Convolutions that have kept the gradients of single examples."""

    def updates(self, part: Part, w: Tensor) -> Iterator[tuple[Part, ByInput]]:
        kept = [one._G for one in self._parts]
        found, by = served("grouped_combine", self._backend, *kept, in_sums_of(w, kept[0]))
        for one, M in zip(self._parts, found, strict=True):
            one.backend = by
            yield one, {WEIGHT: M}


class Both(Part):
    """A use whose inputs have separate parts."""

    def __init__(self, first: Part, second: Part):
        self._first, self._second, self.form = first, second, first.form

    @property
    def members(self) -> tuple[Part, ...]:
        return self._first, self._second

    @property
    def waiting(self) -> bool:
        return self._first.waiting or self._second.waiting

    @property
    def backend(self) -> str:
        return self._first.backend

    def why(self) -> str | tuple:
        return self._first.why()

    def alone(self, kept: bool = True) -> Tensor | None:
        return total(self._second.alone(kept), self._first.alone(kept))

    def along(self, V: ByInput, kept: bool = True) -> Tensor | None:
        return total(self._second.along(V, kept), self._first.along(V, kept))

    def validation(self) -> ByInput:
        return self._second.validation() | self._first.validation()

    def score(self, V: ByInput) -> Tensor | None:
        return total(self._second.score(V), self._first.score(V))

    def update(self, w: Tensor) -> ByInput:
        return self._second.update(w) | self._first.update(w)

    def instances(self) -> ByInput:
        return self._second.instances() | self._first.instances()


def _geometry(s, dims: int) -> tuple:
    """Stride, padding and dilation, one number per dimension, and groups."""
    stride, padding, dilation = s.stride, s.padding, s.dilation
    if not len(stride) == len(padding) == len(dilation) == dims:
        stride, padding, dilation = (x * dims if len(x) == 1 else x for x in (stride, padding, dilation))
    return stride, padding, dilation, s.groups


def _part(s, use: Use, g: Tensor, products: Products) -> Part | None:
    below, owned = use.below, use.owned[0]
    if INPUT in below or not owned.leading or not 3 <= g.ndim <= 5:
        return None
    bias = Instances({BIAS: by_example(wide(g).flatten(2).sum(2), owned)}, owned.n) if BIAS in below else None
    if WEIGHT not in below:
        return bias
    weight = use.memo.get("weight")
    if weight is None:
        weight = use.memo["weight"] = s.shape(WEIGHT)
    if len(weight) != g.ndim or (g.dtype == torch.float16 and not g.is_cuda):
        return None
    x, geometry = s.input, _geometry(s, g.ndim - 2)
    x = x if x.dtype == g.dtype else x.to(g.dtype)
    if s.transposed:  # the gradient of its weight is that of a convolution from its output to its input
        x, g = g, x
        stride, padding, dilation, _ = geometry
        sizes = zip(x.shape[2:], weight[2:], padding, dilation, stride, strict=True)
        if [(size + 2 * p - d * (k - 1) - 1) // step + 1 for size, k, p, d, step in sizes] != list(g.shape[2:]):
            return None  # the output padding is so large that a further position would fit
    if x.is_cuda and is_small(len(x) * weight.numel(), x.device):
        G, by = served("conv_gradients", products.backend, x, g, list(weight[2:]), *geometry)
        small = Instances({WEIGHT: G} if bias is None else {WEIGHT: G} | bias.G, owned.n)
        small.backend = by
        return small
    part = Convolution(x, g, weight, geometry, owned.n, products)
    return part if bias is None else Both(part, bias)


def _jvp(s, ts: ByInput, backend: str) -> ByInput:
    """conv(x, V) + v_b + conv(t, W)."""
    t, V, v_b = ts.get(INPUT), ts.get(WEIGHT), ts.get(BIAS)
    pairs = [] if V is None else [(s.input, V)]
    pairs += [] if t is None else [(t, s.weight)]
    if not pairs:
        shape = s.output.shape
        return {0: v_b.view(1, -1, *[1] * (len(shape) - 2)).expand(shape)}
    (x, W), *others = pairs
    *geometry, groups = _geometry(s, W.ndim - 2)
    geometry += s.transposed, s.output_padding, groups
    W = W if W.dtype == x.dtype else W.to(x.dtype)
    found = torch.convolution(x, W, None if V is None else v_b, *geometry)
    for y, W in others:
        y, W = (one if one.dtype == x.dtype else one.to(x.dtype) for one in (y, W))
        found = found + torch.convolution(y, W, None, *geometry)
    if v_b is not None and V is None:
        found = found + v_b.view(1, -1, *[1] * (found.ndim - 2))
    return {0: found}


def _jvp_with_sums(s, ts: ByInput, norm, backend: str) -> dict | None:
    """The tangent of a convolution's output y with its sums, for the BatchNorm that is its only reader: one kernel;
    None where no kernel supports it."""
    y = norm.input
    if not backends.get("conv_tangent").order.get(y.device.type) or not norm.training:
        return None
    if s.transposed or y.dtype not in (torch.float32, torch.float64):
        return None
    t, V, v_b = (ts.get(j) for j in (INPUT, WEIGHT, BIAS))
    pairs = [] if V is None else [(s.input, V)]
    pairs += [] if t is None else [(t, s.weight)]
    if not pairs or any(one.dtype != y.dtype for pair in pairs for one in pair):
        return None
    (x, V), (t, W) = (*pairs, (None, None))[:2]
    args = (x, V, v_b, t, W, y, *_geometry(s, y.ndim - 2))
    chosen = serving("conv_tangent", backend, *args)
    if not has_kernel("conv_tangent", chosen, *args):
        return None
    return {0: TangentWithSums(*served("conv_tangent", chosen, *args)[0])}


TYPES = {
    "ConvolutionBackward0": NodeType(
        "input weight stride padding dilation transposed output_padding groups", _part, _jvp,
        dict.fromkeys(("NativeBatchNormBackward0", "CudnnBatchNormBackward0"), _jvp_with_sums),
        stacked=("input", "stride padding dilation transposed groups"),
    )
}  # fmt: skip
