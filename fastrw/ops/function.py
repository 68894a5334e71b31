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
        ctx.is_tensor = [isinstance(x, Tensor) for x in args]
        ctx.constants = [x for x in args if not isinstance(x, Tensor)]
        tensors = [x for x in args if isinstance(x, Tensor)]
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx, *cotangents):
        found, tensors = iter(_vjp(ctx)[1](cotangents)), iter(ctx.saved_tensors)
        floating = [is_tensor and next(tensors).is_floating_point() for is_tensor in ctx.is_tensor]
        return None, None, *(next(found) if x else None for x in floating)

    @staticmethod
    def jvp(ctx, _op, _backend, *tangents):
        # The product with the Jacobian is the transpose of the vjp, which is linear: forward AD cannot be nested here.
        tensors = [x for x in ctx.saved_tensors if x.is_floating_point()]
        tangents = [t for t, is_tensor in zip(tangents, ctx.is_tensor, strict=True) if is_tensor]
        tangents = [t for t, x in zip(tangents, ctx.saved_tensors, strict=True) if x.is_floating_point()]
        tangents = tuple(torch.zeros_like(x) if t is None else t for t, x in zip(tangents, tensors, strict=True))
        outputs, vjp = _vjp(ctx)
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
    """The outputs of the reference as a tuple, and its vjp in the tensors that are no indices."""
    saved = ctx.saved_tensors

    def value(*floating):
        floating, tensors, constants = iter(floating), iter(saved), iter(ctx.constants)
        args = []
        for is_tensor in ctx.is_tensor:
            x = next(tensors if is_tensor else constants)
            args.append(next(floating) if is_tensor and x.is_floating_point() else x)
        outputs = ctx.reference(*args)
        ctx.several = isinstance(outputs, tuple)
        return as_tuple(outputs)

    return torch.func.vjp(value, *(x for x in saved if x.is_floating_point()))
