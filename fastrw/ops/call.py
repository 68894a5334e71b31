"""How the public function of an op runs it: check the arguments, choose the backend, keep derivatives."""

import torch
from torch import Tensor

from fastrw.errors import Refused

from . import backends, function


def call(op: str, backend: str, *args):
    """The op on the backend that serves it, differentiable in each of its tensors."""
    backends.get(op).check(*args)
    return run(op, backend, *args)


def lean(op: str, backend: str, *args):
    """`call`, where the checks in Python would cost a small op as much as the op: a compiled kernel checks the same
    rules in the same words, so they are checked first only where another backend serves, or a derivative is wanted."""
    if isinstance(args[0], Tensor) and not torch.compiler.is_dynamo_compiling() and not function.wanted(args):
        try:
            chosen = backends.choose(op, backend, *args)
            if chosen.name in ("cpp", "cuda"):
                return chosen.run(*args)
        except Exception:
            backends.get(op).check(*args)  # what is wrong with the arguments, if they are wrong
            raise
    return call(op, backend, *args)


def run(op: str, backend: str, *args):
    """The op on arguments that have been checked."""
    if torch.compiler.is_dynamo_compiling():
        from .in_graph import apply  # imports torch._dynamo: a second that only torch.compile is to pay

        return apply(op, backend, *args)
    return function.apply(op, backend, *args)


def served(op: str, backend: str, *args) -> tuple:
    """The op below autograd on arguments that have been checked, and the backend that served it."""
    if torch.compiler.is_dynamo_compiling():
        return run(op, backend, *args), backend
    chosen = backends.choose(op, backend, *args)
    return chosen.run(*args), chosen.name


def has_kernel(op: str, backend: str, *args) -> bool:
    """Does a backend other than the reference serve the op on tensors like these?"""
    if torch.compiler.is_dynamo_compiling():
        return True
    return can_serve(op, backend, *args) and backends.choose(op, backend, *args).name != "reference"


def can_serve(op: str, backend: str, *args) -> bool:
    """Does the backend serve the op on tensors like these? One that was chosen by name may not."""
    if backend == "auto" or torch.compiler.is_dynamo_compiling():
        return True
    try:
        backends.choose(op, backend, *args)
    except Refused:
        return False
    return True
