"""Operations that can move rows between examples, or mix them, by data: indexing by tensors, sorting, products of two
batch tensors, statistics over a dimension. Owners measured on one batch hold on the next only if no such operation acts
along the examples: the tape notes the size of every dimension acted on, and `owners` compares two batch sizes."""

from collections.abc import Callable, Iterable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from fastrw.calls import tensors_in

STATIC = frozenset({torch.arange, torch.zeros, torch.ones, torch.eye, torch.full, torch.empty, torch.linspace})


def _both(names: str) -> frozenset:
    """The functions of these names, as torch.name and as Tensor.name."""
    return frozenset(
        f for name in names.split() for home in (torch, Tensor) if (f := getattr(home, name, None)) is not None
    )


ALONG_DIM = _both(
    """index_select gather scatter scatter_ scatter_add scatter_add_ scatter_reduce scatter_reduce_ index_add index_add_
    index_copy index_copy_ index_fill index_fill_ sort argsort topk msort kthvalue cummax cummin cumsum cumprod
    logcumsumexp repeat_interleave softmax log_softmax"""
) | {F.softmax, F.log_softmax, F.normalize, F.cosine_similarity}
ALONG_DIMS = _both("roll flip rot90")
ALONG_ALL = _both(
    """masked_select masked_scatter masked_scatter_ take take_along_dim index_put index_put_ put nonzero argwhere
    unique unique_consecutive tensordot kron cdist _pack_padded_sequence"""
)
PRODUCTS = _both("matmul __matmul__ __rmatmul__ mm bmm")
ADDED_PRODUCTS = _both("baddbmm addmm")


def is_random(function: Callable) -> bool:
    name = getattr(function, "__name__", "")
    return "rand" in name or name in ("bernoulli", "multinomial", "normal", "poisson", "dropout")


# whose numbers are sizes or values: they may grow with the batch, and say nothing of which dimension is meant
_SIZED = """view reshape expand repeat tile broadcast_to arange zeros ones empty full eye linspace narrow split
tensor_split split_with_sizes unflatten as_strided resize_ interpolate one_hot bincount add add_ sub sub_ mul mul_ div
div_ pow pow_ __rsub__ __rdiv__ __rpow__ __rtruediv__ floor_divide remainder clamp clip lt le gt ge eq ne tensor"""
_SIZED_NAMES = frozenset(_SIZED.split())


@lru_cache(maxsize=1024)
def _plain_types(function: Callable) -> frozenset[type]:
    name = getattr(function, "__name__", "")
    sized = name in _SIZED_NAMES or name.startswith("new_") or is_random(function)
    return frozenset({bool, str} if sized else {bool, str, int})


def plain_arguments(function: Callable, args: tuple, kwargs: dict) -> list:
    """The words, flags and dimensions of a call, which belong into a signature: `mean(0)` is not `mean(1)`."""
    plain = _plain_types(function)
    found = []
    for a in (*args, *kwargs.values()) if kwargs else args:
        kind = type(a)
        if kind in plain:
            found.append(a)
        elif kind is tuple or kind is list:
            found += [x for x in a if type(x) in plain]
    return found


def moves_of(function: Callable, args: tuple, kwargs: dict, known: dict) -> list[tuple[str, int]]:
    """(operation, size) of every dimension that this call may move or mix rows along. Calls on `known` tensors (id ->
    Known) alone move no example."""
    finder = MOVERS.get(function)
    if finder is None or not args or id(args[0]) in known:
        return []
    name = "indexing" if finder is _indexing else function.__name__
    return [(name, size) for size in finder(args, kwargs, known)]


def _indexing(args, kwargs, known) -> Iterable[int]:
    return _indexed(args[0], args[1] if isinstance(args[1], tuple) else (args[1],), known)


def _indexed(x: Tensor, index: tuple, known: dict) -> Iterable[int]:
    def width(item) -> int:
        return (
            item.ndim if isinstance(item, Tensor) and item.dtype in (torch.bool, torch.uint8) else int(item is not None)
        )

    dim = 0
    for item in index:
        if item is Ellipsis:
            dim += max(x.ndim - sum(width(i) for i in index if i is not Ellipsis), 0)
            continue
        if isinstance(item, list | range) or (isinstance(item, Tensor) and item.ndim and not _static(item, known)):
            yield from x.shape[dim : dim + width(item)]
        dim += width(item)


def _static(t: Tensor, known: dict) -> bool:
    entry = known.get(id(t))
    return entry is not None and entry.static


def _along_dim(args, kwargs, known) -> Iterable[int]:
    x = args[0]
    dim = kwargs.get("dim", next((a for a in args[1:] if type(a) is int), None))
    if type(dim) is int and -x.ndim <= dim < x.ndim:
        return (x.shape[dim],)
    return x.shape


def _along_dims(args, kwargs, known) -> Iterable[int]:
    return args[0].shape


def _product(args, kwargs, known) -> Iterable[int]:
    """A product of two batch tensors mixes along the contracted dimension."""
    y = args[1] if len(args) > 1 else kwargs.get("other", kwargs.get("mat2"))
    return args[0].shape[-1:] if isinstance(y, Tensor) and id(y) not in known else ()


def _added_product(args, kwargs, known) -> Iterable[int]:
    return _product(args[1:], kwargs, known) if len(args) > 2 and id(args[1]) not in known else ()


def _einsum(args, kwargs, known) -> Iterable[int]:
    tensors = tensors_in(args)
    batch = [t for t in tensors if id(t) not in known]
    if len(batch) < 2:
        return
    if not isinstance(args[0], str) or "." in args[0] or "->" not in args[0]:
        yield from (size for t in batch for size in t.shape)
        return
    inputs, _, output = args[0].replace(" ", "").partition("->")
    for letters, t in zip(inputs.split(","), tensors, strict=True):
        if id(t) not in known:
            yield from (size for letter, size in zip(letters, t.shape, strict=True) if letter not in output)


def _table(args, kwargs, known) -> Iterable[int]:
    """Looking rows up in a table that the batch has made."""
    table = args[1] if len(args) > 1 else kwargs["weight"]
    return () if id(table) in known else table.shape[:1]


def _batch_statistics(args, kwargs, known) -> Iterable[int]:
    training = kwargs.get("training", args[5] if len(args) > 5 else False)
    return args[0].shape[:1] if training else ()


MOVERS: dict[Callable, Callable] = {
    **dict.fromkeys((Tensor.__getitem__, Tensor.__setitem__), _indexing),
    **dict.fromkeys(ALONG_DIM, _along_dim),
    **dict.fromkeys(ALONG_DIMS | ALONG_ALL, _along_dims),
    **dict.fromkeys(PRODUCTS, _product),
    **dict.fromkeys(ADDED_PRODUCTS, _added_product),
    torch.functional.einsum: _einsum,
    F.embedding: _table,
    F.batch_norm: _batch_statistics,
}
