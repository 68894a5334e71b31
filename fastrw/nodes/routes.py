"""Do the values that a node saved decide where each row goes? Then owners that were measured on one graph hold on
another of the same structure only if these values are the same."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from fastrw.graph.saved import address, is_custom, names, plain, plain_values, saved, signed, tensors
from fastrw.nodes.owned import Owned
from fastrw.nodes.shapes import NUMBERS


def _named(words: str) -> frozenset[str]:
    """The node types of these operations."""
    return frozenset(f"{word}Backward{i}" for word in words.split() for i in range(3))


# Each element of their gradients stays in place, or moves as the shapes determine; what they save are values, or
# choices within a row (the class of a target, the position of a maximum in its window).
LOCAL = _named(
    """Abs Acos Acosh Add AddReluAdd AdaptiveMaxPool2D AdaptiveMaxPool3D AdaptiveAvgPool2D AvgPool2D AvgPool3D Asin
    Asinh Atan Atanh BinaryCrossEntropy BinaryCrossEntropyWithLogits Celu Clamp ClampMin ClampMax Clone
    Convolution Copy Cos Cosh CtcLoss CudnnBatchNorm CudnnConvolution Div Elu Erf Erfc Exp Exp2 Expand Expm1
    Gelu Glu Hardshrink Hardsigmoid Hardswish Hardtanh HuberLoss KlDiv LeakyRelu Lerp LinalgVectorNorm Log Log1P
    Log2 Log10 LogSigmoid MaskedFill MaxPool2DWithIndices MaxPool3DWithIndices MiopenBatchNorm Mish MseLoss Mul
    MultiMarginLoss MultilabelMarginLoss NativeBatchNorm NativeDropout NativeGroupNorm NativeLayerNorm Neg
    NllLoss NllLoss2D Pow PreluKernel Reciprocal Relu Relu6 ReshapeAlias Round Rsqrt Rsub Selu Sigmoid Sign Silu
    Sin Sinh SmoothL1Loss SoftMarginLoss Softplus Softshrink Sqrt Square Sub T Tan Tanh Threshold To ToCopy
    UnsafeView View Where Xlogy FusedRmsNorm"""
)
# Of two operands, each element of the result is a function of one element of each.
ELEMENTWISE = _named(
    """Add Addcdiv Addcmul Atan2 Div Fmax Fmin Fmod Hypot Lerp Logaddexp MaskedFill Maximum Minimum Mul Pow Remainder
    Rsub Sub Where Xlogy"""
)
# They move rows along one dimension, by indices.
ALONG = _named(
    """Gather Scatter ScatterAdd ScatterReduce IndexSelect IndexAdd IndexCopy IndexFill Sort Topk Kthvalue Max Min
    Median Nanmedian Mode Cummax Cummin Argsort"""
)
INDEXED = frozenset({"IndexBackward0", "IndexPutBackward0", "UnsafeIndexBackward0", "UnsafeIndexPutBackward0"})
PRODUCTS = frozenset({"MmBackward0", "AddmmBackward0", "BmmBackward0", "BaddbmmBackward0"})


def content(node: Node, owners: Mapping[int, Owned]) -> tuple:
    """The numbers and tensors of the node that determine the owners of what it sends; tensors stand by themselves, not
    in other items. owners: input -> owners of its gradient, if it has any."""
    name = node.name()
    if has_modes(node):  # with running statistics, it mixes nothing
        return (saved(node, "training"),)
    if name in LOCAL or name in PRODUCTS or name in NUMBERS:
        return ()  # (NUMBERS are part of the structure)
    if name in INDEXED:
        return (name, *_indices(node, owners))
    if is_custom(node):
        return (plain_values(node), *(t for t in node.saved_tensors if t is not None and _chooses(t)))
    kept = frozenset()
    if name in ALONG and "dim" in names(type(node)):
        dim = signed(saved(node, "dim"))
        if all(o.dim is not None and o.shape and dim % len(o.shape) != o.dim for o in owners.values()):
            kept = frozenset(names(type(node))) - {"dim"}  # along another dimension, rows stay with their example
    values = [(key, saved(node, key)) for key in names(type(node)) if key not in kept]
    found: list = [tuple([(key, plain(value)) for key, value in values])]
    for _, value in values:
        for one in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(one, Tensor):
                found += _pattern(one) if one.layout != torch.strided else [one] * _chooses(one)
    return tuple(found)


def _indices(node: Node, owners: Mapping[int, Owned]) -> list:
    indices = list(saved(node, "indices"))
    dims = {o.dim for o in owners.values()}
    if None in dims or not dims:
        return indices
    if any(t is not None and t.dtype in (torch.bool, torch.uint8) for t in indices):
        return indices
    # an index into a dimension other than the batch dimension chooses within an example
    return [t if dim in dims else None for dim, t in enumerate(indices)]


def _pattern(t: Tensor) -> list[Tensor]:
    """Where the elements of a sparse tensor are."""
    if t.layout == torch.sparse_coo:
        return [t._indices()]
    by_rows = t.layout in (torch.sparse_csr, torch.sparse_bsr)
    return [t.crow_indices(), t.col_indices()] if by_rows else [t.ccol_indices(), t.row_indices()]


def _chooses(t: Tensor) -> bool:
    return not (t.is_floating_point() or t.is_complex())


def by_values(node: Node, outputs: Mapping[int, Owned], inputs: Mapping[int, Owned]) -> bool:
    """Do the owners of what this node sends depend on floating-point values (the zeros of a mask, of a matrix)? Then
    they have to be measured in every call. outputs, inputs: by output or input of the operation, the owners of
    its gradient."""
    name, out = node.name(), outputs.get(0)
    several = out is not None and out.dim is not None and bool((out.of != out.of[:1]).any())
    # a sum over the batch dimension, of which zeros leave one example?
    spread = name in ELEMENTWISE or name.startswith("Expand")
    if several and spread and any(_broadcast(o.shape, out.shape, out.dim) for o in inputs.values()):
        return True
    if name in PRODUCTS:
        first = {"MmBackward0": 0, "BmmBackward0": 0, "AddmmBackward0": 1, "BaddbmmBackward0": 1}[name]
        left, right = inputs.get(first), inputs.get(first + 1)
        if out is None or out.dim is None:
            return bool(inputs)
        batch = len(out.shape) - 2
        if out.dim < batch:  # one product per example
            return any(side is not None and side.dim != out.dim for side in (left, right))
        if out.dim == batch:  # rows
            return right is not None or (left is not None and left.dim != batch)
        return left is not None or (right is not None and right.dim != batch + 1)
    if name == "torch::autograd::CopySlices":  # it does not record which slice was written
        out = outputs.get(0)
        whole = out is not None and out.dim == 0 and out.each
        return not whole or any(o.dim != 0 or not torch.equal(o.of, out.of) for o in inputs.values())
    if "Softmax" in name and "dim" in names(type(node)):
        out = outputs.get(0)
        return out is None or out.dim is None or signed(saved(node, "dim")) % max(len(out.shape), 1) == out.dim
    if "DotProduct" in name or "Attention" in name:
        return any(o.dim is None or o.dim > 1 for o in (*outputs.values(), *inputs.values()))
    if is_custom(node):  # its backward may move rows by anything, unless they stay in place
        found = [*outputs.values(), *inputs.values()]
        return any(o.dim != 0 or not o.each for o in found)
    return False


def _broadcast(shape: Sequence[int], whole: Sequence[int], dim: int) -> bool:
    """Is an input of this shape broadcast to the `whole`, along `dim` too?"""
    full = [1] * (len(whole) - len(shape)) + list(shape)
    return len(full) == len(whole) and full[dim] == 1 and all(a in (1, b) for a, b in zip(full, whole, strict=True))


def spreads(node: Node) -> bool:
    """Does it create the batch dimension, from rows of a parameter?"""
    return node.name().startswith(("Expand", "Repeat", "Embedding"))


# The integers that they save are results of their own.
CHOOSING = _named(
    """AdaptiveMaxPool2D AdaptiveMaxPool3D Cummax Cummin Kthvalue LinalgLuFactorEx LinalgSolveEx Max Median Min Mode
    MaxPool2DWithIndices MaxPool3DWithIndices Nanmedian Sort Topk"""
)


def brings_data(node: Node, shapes: Sequence[torch.Size]) -> bool:
    """May it have a batch dimension from an operand without a gradient, or from indices, if its other inputs, of these
    shapes, have none?"""
    if node.name().startswith(("Expand", "Repeat")):  # of the parameter itself
        return False
    if "Norm" in node.name() and node.name().startswith("Native"):  # its weight and its bias may be absent
        return False
    if node.name() == "MvBackward0":  # a matrix times a vector has the rows of the matrix
        return node.next_functions[0][0] is None
    alike = torch.Size(node._input_metadata[0].shape) in shapes
    if is_custom(node):  # a quantiser keeps the shape of the parameter, and saves nothing of another
        return not alike or any(t.shape not in shapes for t in tensors(node) if t.ndim)
    if any(child is None for child, _ in node.next_functions):
        factors = [t for t in tensors(node) if t.ndim == 0] if node.name() in ("MulBackward0", "DivBackward0") else []
        return node.name() not in ELEMENTWISE or not (alike or factors)
    if node.name() in CHOOSING:
        return False
    return any(_chooses(t) and not _are_places(t) for t in tensors(node))


def _are_places(t: Tensor) -> bool:
    """Are these positions, or distances between positions, which depend on shapes alone? They grow evenly."""
    if t.dtype != torch.long:
        return False
    steps = [t.diff(dim=d).unique() for d in range(t.ndim) if t.shape[d] > 1]
    return any(bool(step.any()) for step in steps) and all(len(step) == 1 for step in steps)


def reads_only(node: Node, fixed: Collection[Tensor], places: Collection[int | None]) -> bool:
    """Has it saved nothing but parameters, and these tensors (places: where they lie), their views and copies?"""

    def known(t: Tensor) -> bool:
        if isinstance(t if t._base is None else t._base, nn.Parameter) or address(t) in places:
            return True
        return any(t.shape == one.shape and t.dtype == one.dtype and torch.equal(t, one) for one in fixed)

    found = tensors(node)
    return bool(found) and all(map(known, found))


def may_mix(node: Node) -> bool:
    """Does it mix the batch dimension, as far as its type and mode tell?"""
    return bool(saved(node, "training")) if has_modes(node) else node.name() not in LOCAL


def has_modes(node: Node) -> bool:
    """Does a saved flag decide whether it mixes the batch dimension?"""
    return "BatchNorm" in node.name() and "training" in names(type(node))


def batchwise(node: Node) -> bool:
    """Does its backward depend on the rest of the batch, though each gradient has one owner?"""
    return "scale_grad_by_freq" in names(type(node)) and bool(saved(node, "scale_grad_by_freq"))
