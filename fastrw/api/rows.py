"""Which operations of a forward compute across examples without a gradient: the order in which experts are filled, a
scale over the batch. The graph does not show them, and their effect may show in some batches only."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from fastrw.nodes.precision import PRODUCT, kinds, rounds_as

# Along a dimension, or over everything where none is given.
ALONG = {
    "all", "amax", "amin", "any", "argmax", "argmin", "argsort", "cummax", "cummin", "cumprod", "cumsum", "kthvalue",
    "logcumsumexp", "logsumexp", "max", "mean", "median", "min", "mode", "nanmedian", "prod", "sort", "std", "sum",
    "topk", "var",
}  # fmt: skip
OVER_ALL = {"bincount", "histc", "unique_dim", "_unique", "_unique2", "unique_consecutive"}
LAST = {"sort", "argsort", "topk", "kthvalue", "median", "mode"}  # along the last dimension by default, if any


class AcrossRows(TorchDispatchMode):
    """`.found`: the name of an operation across the n examples, from whose result something is made for each; None if
    there is none. A number that Python reads decides what is done next, which the graph shows.
    `.rounded`: the dtypes as which its convolutions and RNNs round, those without a gradient among them."""

    def __init__(self, n: int):
        super().__init__()
        self.found: str | None = None
        self.rounded: set[torch.dtype] = set()
        self._n, self._mixed = n, WeakIdKeyDictionary()  # tensor -> the operation across examples that it comes from

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if (made_of := kinds(func.overloadpacket.__name__)) != PRODUCT:
            self.rounded |= {
                rounds_as(t.dtype, t.device, made_of)
                for t in tree_leaves(out)
                if isinstance(t, Tensor) and t.is_floating_point()
            }
        if self.found is not None or self._n < 2:
            return out
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        name = next((self._mixed[t] for t in given if t in self._mixed), None)
        new = name is None
        if new and any(t.requires_grad for t in given):
            return out
        if new and self._is_across(func.overloadpacket.__name__, args, kwargs or {}):
            name = func.overloadpacket.__name__
        if name is not None:
            for t in tree_leaves(out):
                if isinstance(t, Tensor):
                    self._mixed[t] = name
                    if self._n in t.shape or (not new and t.ndim and t.shape[0] % self._n == 0 and len(t)):
                        self.found = name
        return out

    def _is_across(self, name: str, args: tuple, kwargs: dict) -> bool:
        """Does it sum up or order the examples, which lie along a dimension of their number, or along the first?"""
        if name not in ALONG | OVER_ALL or not args or not isinstance(args[0], Tensor):
            return False
        n, shape = self._n, args[0].shape
        rows = {d for d, size in enumerate(shape) if size == n or (d == 0 and size and size % n == 0)}
        at = 2 if name in ("topk", "kthvalue") else 1
        dims = kwargs.get("dim", args[at] if len(args) > at else None)
        if name in LAST and not isinstance(dims, int):
            dims = -1
        if name in OVER_ALL or not isinstance(dims, int | list | tuple) or isinstance(dims, bool) or dims == []:
            return bool(rows)
        return bool(rows & {d % len(shape) for d in ([dims] if isinstance(dims, int) else dims)})
