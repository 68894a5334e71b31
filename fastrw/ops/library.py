"""What a name in torch.ops.fastrw needs besides its kernels: a fake for torch.compile, and no wrong derivative.

torch gives an op without a formula, or with a backward alone, tangents of zero and no error. These ops are values
only: asked for a derivative they raise, and the Function of function.py runs them below autograd.
"""

import re
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.forward_ad import unpack_dual

_fragment = torch.library.Library("fastrw", "FRAGMENT")
_PLAIN = (Tensor, torch.nn.Parameter)


def define(name: str, schema: str, run: Callable[..., Tensor]) -> None:
    """Make a Python function an op, so that torch.compile keeps its call as one node."""
    _fragment.define(name + schema)
    for device in ("CPU", "CUDA"):
        _fragment.impl(name, run, device)


def schema_of(public: Callable) -> str:
    """The schema of the public function of an op, without its choice of a backend. Its sizes are no symbols, and it has
    no defaults: a trailing argument that equals its default would not arrive."""
    schema = torch.library.infer_schema(public, mutates_args=()).replace("SymInt", "int")
    return re.sub(r", \*, str backend|=[^,)]*", "", schema)


def complete(name: str, fake: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Give the op its fake and its refusal; the result calls it below autograd."""
    op = getattr(torch.ops.fastrw, name).default

    def below_autograd(*args) -> Tensor:
        with torch._C._AutoDispatchBelowAutograd():
            return op(*args)

    def value_only(*args) -> Tensor:
        if not torch.is_grad_enabled() and forward_ad._current_level < 0:  # a compiled step calls many
            return below_autograd(*args)
        items = [item for x in args for item in (x if isinstance(x, list) else [x])]
        tensors = [x for x in items if isinstance(x, Tensor)]
        wanted = torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
        if wanted or any(unpack_dual(x, level=0).tangent is not None for x in tensors):
            raise RuntimeError(f"torch.ops.fastrw.{name} has no derivatives: differentiate the op in fastrw.ops")
        return below_autograd(*args)

    torch.library.register_fake(f"fastrw::{name}", fake, lib=_fragment)
    _fragment.impl(name, value_only, "Autograd")
    return below_autograd


def directly(launch: Callable, op: Callable) -> Callable:
    """A call of the op that is one of what serves it where nothing watches the dispatches: the dispatcher takes as long
    as a launch."""

    def run(*args):
        watched = torch._C._len_torch_dispatch_stack() or torch._C._functorch.peek_interpreter_stack() is not None
        if watched or any(isinstance(x, Tensor) and type(x) not in _PLAIN for x in args):
            return op(*args)
        return launch(*args)

    return run
