"""The autograd.Function that carries every op: the value from a backend, the derivatives from the reference.

An op of torch.library that has a backward alone, or none, gives tangents of zero under forward AD and raises nothing;
a Function with backward, jvp and vmap is right under torch.autograd and torch.func alike, at any order. The
derivatives are those of the reference, in torch ops, and form its intermediates in memory.
"""

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor

from . import backends
from .self_test import as_tuple


def apply(op: str, backend: str, *args):
    """Choose the backend, then run it inside the Function."""
    chosen = backends.choose(op, backend, *args)
    if not wanted(args):  # the Function's own cost is ten times that of a small op
        return chosen.run(*args)
    return _Op.apply(op, chosen.name, *args)


def wanted(args) -> bool:
    """Whether anyone may ask for a derivative."""
    transformed = forward_ad._current_level >= 0 or torch._C._functorch.peek_interpreter_stack() is not None
    if transformed:
        return True
    return torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in args)


class _Op(torch.autograd.Function):
    @staticmethod
    def forward(op, backend, *args):
        return backends.get(op).backends[backend].run(*args)

    @staticmethod
    def setup_context(ctx, inputs, output):
        op, _, *args = inputs
        ctx.reference = backends.get(op).backends["reference"].run
        tensors = {i: x for i, x in enumerate(args) if isinstance(x, Tensor)}
        ctx.args = [None if i in tensors else x for i, x in enumerate(args)]
        ctx.tensors = list(tensors)  # their positions
        ctx.floating = [i for i, x in tensors.items() if x.is_floating_point()]
        ctx.save_for_backward(*tensors.values())
        ctx.save_for_forward(*tensors.values())

    @staticmethod
    def backward(ctx, *cotangents):
        found = dict(zip(ctx.floating, _vjp(ctx)[2](cotangents), strict=True))
        return None, None, *(found.get(i) for i in range(len(ctx.args)))

    @staticmethod
    def jvp(ctx, _op, _backend, *tangents):
        # The product with the Jacobian is the transpose of the vjp, which is linear: forward AD cannot be nested here.
        primals, outputs, vjp = _vjp(ctx)
        given = (tangents[i] for i in ctx.floating)
        tangents = tuple(torch.zeros_like(x) if t is None else t for x, t in zip(primals, given, strict=True))
        found = torch.func.vjp(vjp, tuple(torch.zeros_like(o) for o in outputs))[1](tangents)[0]
        return found if ctx.several else found[0]

    @staticmethod
    def vmap(info, in_dims, op, backend, *args):
        # One call an item, on the backend that was asked for.
        items = [
            [x.select(d, i) if isinstance(d, int) else x for x, d in zip(args, in_dims[2:], strict=True)]
            for i in range(info.batch_size)
        ]
        outputs = [_Op.apply(op, backend, *item) for item in items]
        if isinstance(outputs[0], Tensor):
            return torch.stack(outputs), 0
        return tuple(map(torch.stack, zip(*outputs, strict=True))), (0,) * len(outputs[0])


def _vjp(ctx):
    """The floating point arguments, the outputs of the reference as a tuple, and its vjp in those arguments."""
    args = list(ctx.args)
    for i, x in zip(ctx.tensors, ctx.saved_tensors, strict=True):
        args[i] = x
    primals = [args[i] for i in ctx.floating]

    def value(*floating):
        for i, x in zip(ctx.floating, floating, strict=True):
            args[i] = x
        outputs = ctx.reference(*args)
        ctx.several = isinstance(outputs, tuple)
        return as_tuple(outputs)

    return primals, *torch.func.vjp(value, *primals)
