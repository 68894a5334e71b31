"""The rule for every operation that has no rule: its own directional derivative, from forward-mode AD, or from two
reverse passes where an operation has no forward mode (float32 LSTM, embedding_bag, `_weight_norm`, ctc_loss, ...)."""

import warnings
from contextlib import nullcontext
from functools import cache

import torch
import torch.autograd.forward_ad as forward_ad
import torch.nn.functional as F
from torch import Tensor
from torch._ops import OpOverload, OpOverloadPacket
from torch.nn.attention import SDPBackend, sdpa_kernel

from fastrw.calls import Call, function_name
from fastrw.errors import Refused


def jvp(call: Call, directions: dict[int, Tensor]) -> list[Tensor | None]:
    """The derivative of each tensor that `call` returns along `directions` (id of an argument -> its direction, in the
    argument's dtype), the other arguments held fixed. None where it is 0. Draws what the call drew."""
    attention = call.function is F.scaled_dot_product_attention  # whose other kernels have neither derivative
    with sdpa_kernel(SDPBackend.MATH) if attention else nullcontext():
        # an operation registered with `register_autograd` alone has zero tangents, silently: torch's own only
        if not isinstance(call.function, OpOverload | OpOverloadPacket):
            try:
                return _forward_mode(call, directions)
            except (NotImplementedError, RuntimeError) as error:
                if isinstance(error, torch.OutOfMemoryError):
                    raise
        try:
            return _reverse_twice(call, directions)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            reason = str(error).strip().splitlines()[0]
            name = function_name(call.function)
            raise Refused(f"fastrw.rules: {name} must have a forward or a second derivative, got {reason}") from error


def _forward_mode(call: Call, directions: dict[int, Tensor]) -> list[Tensor | None]:
    def dual(t: Tensor) -> Tensor:
        d = directions.get(id(t))
        return t.detach() if d is None else forward_ad.make_dual(t.detach(), d)

    _load_decompositions()
    with torch.no_grad(), forward_ad.dual_level():
        return [
            forward_ad.unpack_dual(o).tangent if o.is_floating_point() or o.is_complex() else None
            for o in call.replay(dual)
        ]


@cache
def _load_decompositions() -> None:
    """What the first `make_dual` of a process imports: it scripts, and torch warns of its own scripting, in a category
    that differs from version to version."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.filterwarnings("ignore", ".*torch.jit.script")
        forward_ad.make_dual(torch.zeros(()), torch.zeros(()))


def _reverse_twice(call: Call, directions: dict[int, Tensor]) -> list[Tensor | None]:
    """J d, as the derivative of u -> J^T u, which is linear in u, along d."""
    inputs: dict[int, Tensor] = {}

    def leaf(t: Tensor) -> Tensor:
        if id(t) not in directions:
            return t.detach()
        return inputs.setdefault(id(t), t.detach().requires_grad_())

    with torch.enable_grad():
        outputs = call.replay(leaf)
        live = [o for o in outputs if o.requires_grad]
        u = [torch.zeros_like(o, requires_grad=True) for o in live]
        back = torch.autograd.grad(live, list(inputs.values()), u, create_graph=True, allow_unused=True)
    pairs = [(b, directions[key]) for key, b in zip(inputs, back, strict=True) if b is not None]
    found = iter(torch.autograd.grad([b for b, _ in pairs], u, [d for _, d in pairs]))
    return [next(found) if o.requires_grad else None for o in outputs]


def derived_direction(derived: Tensor, params: dict[Tensor, Tensor]) -> Tensor:
    """The direction of a derived parameter along those of the parameters it is made of: through its own recorded graph,
    so that what was drawn for it (dropped connections) stays drawn."""
    with torch.enable_grad():
        u = torch.zeros_like(derived, requires_grad=True)
        back = torch.autograd.grad(derived, list(params), u, create_graph=True, allow_unused=True)
    pairs = [(b, d) for b, d in zip(back, params.values(), strict=True) if b is not None]
    if not pairs:
        return torch.zeros_like(derived)
    (found,) = torch.autograd.grad([b for b, _ in pairs], [u], [d for _, d in pairs], retain_graph=True)
    return found
