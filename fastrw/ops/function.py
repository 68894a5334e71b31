"""The autograd.Function that carries every op: the value from a backend, the derivatives from the reference.

An op of torch.library that has a backward alone, or none, gives tangents of zero under forward AD and raises nothing;
a Function with backward, jvp and vmap is right under torch.autograd and torch.func alike, at any order. The
derivatives are those of the reference, in torch ops, and form its intermediates in memory.
"""

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor

from . import backends


def call(op: str, backend: str, *args) -> Tensor:
    """The op on the backend that serves it, differentiable in each of its tensors."""
    if torch.compiler.is_dynamo_compiling():
        from .in_graph import apply  # imports torch._dynamo: a second that only torch.compile is to pay

        return apply(op, backend, *args)
    return apply_eagerly(op, backend, *args)


def apply_eagerly(op: str, backend: str, *args) -> Tensor:
    """Choose the backend, then run it inside the Function."""
    chosen = backends.choose(op, backend, *(x for x in args if isinstance(x, Tensor)))
    if _nothing_to_differentiate():  # the Function's own cost is ten times that of a small op
        return chosen.run(*args)
    return _Op.apply(op, chosen.name, *args)


def _nothing_to_differentiate() -> bool:
    transformed = forward_ad._current_level >= 0 or torch._C._functorch.peek_interpreter_stack() is not None
    return not transformed and not torch.is_grad_enabled()


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
    def backward(ctx, cotangent):
        gradients = iter(_vjp(ctx)[1](cotangent))
        return None, None, *(next(gradients) if is_tensor else None for is_tensor in ctx.is_tensor)

    @staticmethod
    def jvp(ctx, _op, _backend, *tangents):
        # The product with the Jacobian is the transpose of the vjp, which is linear: forward AD cannot be nested here.
        tangents = tuple(t for t, is_tensor in zip(tangents, ctx.is_tensor, strict=True) if is_tensor)
        output, vjp = _vjp(ctx)
        return torch.func.vjp(vjp, torch.zeros_like(output))[1](tangents)[0]

    @staticmethod
    def vmap(info, in_dims, op, backend, *args):
        # One call an item, on the backend that was asked for.
        items = [
            [x if dim is None else x.select(dim, i) for x, dim in zip(args, in_dims[2:], strict=True)]
            for i in range(info.batch_size)
        ]
        return torch.stack([_Op.apply(op, backend, *item) for item in items]), 0


def _vjp(ctx):
    def value(*tensors):
        tensors, constants = iter(tensors), iter(ctx.constants)
        return ctx.reference(*(next(tensors if is_tensor else constants) for is_tensor in ctx.is_tensor))

    return torch.func.vjp(value, *ctx.saved_tensors)
