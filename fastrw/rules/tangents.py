"""Forward-mode rules of the operations where time goes: the primal is computed once, with its graph, and the tangent
from what it left behind. Every other operation is served by `generic.jvp`, which computes its primal a second time.

A rule takes the call and the tangents of its arguments (id -> tangent) and returns (what the call returns, the tangents
of the tensors in it), or None where it does not serve this call. A tangent may be broadcast to its tensor and may wait
(see `pending`)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fastrw.calls import outputs_of, substituted
from fastrw.ops import conv_tangent
from fastrw.rules import RULES, convolution, elementwise, embedding, linear
from fastrw.rules.directed import Directed, total
from fastrw.rules.pending import Normed, Summed, Tangent, Tangents, serving, through_relu


def _values(tree):
    return substituted(tree, Tensor.detach)


def product(function, args, kwargs, tangents: Tangents):
    """Linear in the input and linear in the parameters: f(x, V) + f(x', W)."""
    return (function(*args, **kwargs), [_of_product(function, args, kwargs, tangents)]) if args else None


@torch.no_grad()
def _of_product(function, args, kwargs, tangents: Tangents) -> Tensor:
    x, *rest = args

    def direct(t: Tensor):
        found = tangents.get(id(t))
        return t.detach() if found is None else Directed(t.detach(), found)

    parts = []
    if any(id(t) in tangents for t in (*rest, *kwargs.values())):
        parts.append(RULES[function].tangent(x.detach(), *substituted(rest, direct), **substituted(kwargs, direct)))
    if (tx := tangents.get(id(x))) is not None:
        weight, *more = _values(rest) if rest else [kwargs["weight"].detach()]
        options = {k: v for k, v in _values(kwargs).items() if k not in ("weight", "bias")}
        parts.append(function(tx, weight, None, *more[1:], **options))
    return total(*parts)


def convolved(function, args, kwargs, tangents: Tangents):
    """A convolution. A kernel that forms both products at once takes the sums that a BatchNorm asks for on the way."""
    if not args:
        return None
    out = function(*args, **kwargs)
    with torch.no_grad():
        asked = _asked_of_kernel(out, args, kwargs, tangents)
        backend = "reference" if asked is None else serving("conv_tangent", tangents.backend, *asked)
        if backend == "reference":
            return out, [_of_product(function, args, kwargs, tangents)]
        return out, [Summed(*conv_tangent(*asked, backend=backend))]


def _asked_of_kernel(y: Tensor, args, kwargs, tangents: Tangents) -> tuple | None:
    """The arguments of `conv_tangent` for y = convolution(*args, **kwargs); None where it does not compute this."""
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    given = (
        dict(zip(names, (None, None, None, 1, 0, 1, 1), strict=True)) | dict(zip(names, args, strict=False)) | kwargs
    )
    x, weight, bias, *geometry, groups = given.values()
    tx, tw, tb = (None if a is None else tangents.get(id(a)) for a in (x, weight, bias))
    pairs = [(a.detach(), b.detach()) for a, b in ((x, tw), (tx, weight)) if a is not None and b is not None]
    if not pairs or x.ndim != weight.ndim or isinstance(given["padding"], str):
        return None
    if x.dtype not in (torch.float32, torch.float64) or y.dtype != x.dtype:
        return None
    geometry = ([g] * (x.ndim - 2) if isinstance(g, int) else g for g in geometry)
    (x, V), (t, W) = (*pairs, (None, None))[:2]
    return x, V, tb, t, W, y.detach(), *geometry, groups


def both(function, args, kwargs, tangents: Tangents):
    """x y, x + y, x - y and matrix products: the sum of the derivatives in each argument."""
    if len(args) != 2 or "out" in kwargs or not _leaves_arguments(function, args):
        return None
    x, y = (a.detach() if isinstance(a, Tensor) else a for a in args)
    tx, ty = (tangents.get(id(a)) for a in args)
    rule = RULES[function].tangent
    with torch.no_grad():
        t = total(
            None if tx is None else rule(Directed(x, tx), y, **kwargs),
            None if ty is None else rule(x, Directed(y, ty), **kwargs),
        )
    return function(*args, **kwargs), [t]


def _leaves_arguments(function, args) -> bool:
    """As far as the derivative needs them: that of a sum needs none. (Views may share the memory written to.)"""
    if not function.__name__.endswith("_"):
        return True
    return function in _SUMS_IN_PLACE and not any(isinstance(a, Tensor) and a._is_view() for a in args)


def add(function, args, kwargs, tangents: Tangents):
    """x + y: a tangent that waits goes on waiting, for the other's sake."""
    if len(args) == 2 and not kwargs and _leaves_arguments(function, args):
        for x, y in (args, reversed(args)):
            t = tangents.waiting(x)
            if isinstance(t, Normed) and isinstance(y, Tensor) and x is not y and _alike(x, y):
                with torch.no_grad():
                    ty = tangents.get(id(y))
                    t = t if ty is None else t.plus(ty)
                return function(*args), [t]
    return both(function, args, kwargs, tangents)


def _alike(x: Tensor, y: Tensor) -> bool:
    return x.shape == y.shape and x.dtype == y.dtype


def lookup(function, args, kwargs, tangents: Tangents):
    """Rows of a table that is a parameter."""
    if len(args) < 2 or id(args[1]) not in tangents:
        return None
    out = function(*args, **kwargs)
    with torch.no_grad():
        table = Directed(args[1].detach(), tangents[id(args[1])])
        return out, [RULES[function].tangent(args[0], table, *args[2:], **kwargs)]


def relu(function, args, kwargs, tangents: Tangents):
    """The tangent where the output is positive; the output tells, also when it was written in place."""
    if not args:
        return None
    t = tangents.waiting(args[0])
    out = function(*args, **kwargs)
    with torch.no_grad():
        if isinstance(t, Normed):
            return out, [t.masked(out.detach())]
        return out, [through_relu(tangents[id(args[0])], out.detach(), tangents.backend)]


def structural(function, args, kwargs, tangents: Tangents):
    """Linear in the first argument and in nothing else: the same call on the tangent."""
    if id(args[0]) not in tangents or any(id(a) in tangents for a in (*args[1:], *kwargs.values())):
        return None
    if function is Tensor.view and isinstance(args[1], torch.dtype):
        return None
    out = function(*args, **kwargs)
    with torch.no_grad():
        same = Tensor.reshape if function is Tensor.view else function
        return out, outputs_of(same(tangents[id(args[0])], *args[1:], **kwargs))


def max_pool2d(function, args, kwargs, tangents: Tangents):
    """The tangent of the input at the place of each maximum."""
    names = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
    given = dict(zip(names, args, strict=False)) | kwargs
    if given.pop("return_indices", False):
        return None
    stride = given.pop("stride", None)
    out, where = F.max_pool2d_with_indices(stride=given["kernel_size"] if stride is None else stride, **given)
    with torch.no_grad():
        tx = tangents[id(given["input"])]
        return out, [tx.flatten(-2).gather(-1, where.flatten(-2)).view_as(out)]


def batch_norm(function, args, kwargs, tangents: Tangents):
    """y = (x - mean) rstd gamma + beta, with the statistics of the batch (which move with x) or the running ones."""
    names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    given = (
        dict.fromkeys(names)
        | {"training": False, "momentum": 0.1, "eps": 1e-5}
        | dict(zip(names, args, strict=False))
        | kwargs
    )
    x, mean, var, weight, bias, training, momentum, eps = given.values()
    if x.dtype not in (torch.float32, torch.float64):
        return None
    if training:
        out, mean, rstd = torch.native_batch_norm(
            x, weight, bias, mean, var, True, 0.0 if momentum is None else momentum, eps
        )
    else:
        out, rstd = F.batch_norm(x, mean, var, weight, bias, False, momentum, eps), (var.detach() + eps).rsqrt()
    tx, tw, tb = tangents.waiting(given["input"]), *(None if a is None else tangents.get(id(a)) for a in (weight, bias))
    sums = None
    if isinstance(tx, Summed):
        tx, sums = tx.tangent, tx.sums
    elif tx is not None:
        tx = tangents[id(given["input"])]
    if not training:
        sums = mean.new_zeros(2, len(mean))
    x, mean, rstd, weight = (None if a is None else a.detach() for a in (x, mean, rstd, weight))
    t = Normed((x, tx, mean, rstd, weight, tw, tb), sums, tangents.backend)
    with torch.no_grad():
        return out, [t if tangents.waits else t.form()]


_STRUCTURAL = (
    "view reshape flatten permute transpose mean sum __getitem__ unsqueeze squeeze expand contiguous chunk split "
    "unbind clone neg to float"
)

_SUMS_IN_PLACE = (Tensor.add_, Tensor.sub_)

Rule = Callable[[Callable, tuple, dict, Tangents], tuple[object, list[Tangent]] | None]
TANGENT_RULES: dict[object, Rule] = {
    **dict.fromkeys([F.linear, *convolution.RULES], product),
    **dict.fromkeys((torch.conv1d, torch.conv2d, torch.conv3d), convolved),
    **dict.fromkeys(
        [f for f in (*elementwise.RULES, *linear.RULES) if f in elementwise.RULES or "matmul" in f.__name__], both
    ),
    **dict.fromkeys((torch.add, Tensor.add, Tensor.add_), add),
    **dict.fromkeys(embedding.RULES, lookup),
    **dict.fromkeys((F.relu, torch.relu, Tensor.relu, torch.relu_, Tensor.relu_), relu),
    **dict.fromkeys((getattr(Tensor, name) for name in _STRUCTURAL.split()), structural),
    **dict.fromkeys((torch.flatten, F.avg_pool2d, F.adaptive_avg_pool2d, F.pad), structural),
    F.max_pool2d: max_pool2d,
    F.batch_norm: batch_norm,
}
