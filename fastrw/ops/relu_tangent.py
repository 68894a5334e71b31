"""relu_tangent: forward mode through a ReLU."""

import torch
from torch import Tensor

from fastrw.kernels.dense import dense

from . import backends, checks, reference
from .function import call


def relu_tangent(
    t: Tensor,  # the tangent of the ReLU's input, of any shape
    output: Tensor,  # what the ReLU gave, like t
    *,
    backend: str = "auto",
) -> Tensor:  # like t
    """t, 0 where output <= 0

    Args:
        t, output: of one shape, dtype (float32, bfloat16, float16, or float64) and device, with any strides. Any size
            may be 0.
        backend: "auto" (the fastest measured one that can serve), "reference", "cpp" or "triton". float64 is served by
            reference and cpp alone.

    Returns:
        The tangent in the dtype of t, contiguous or channels-last as t is. Differentiable in t, to any order, in
        reverse and forward mode, and under vmap.

    Raises:
        TypeError: an argument is not a tensor.
        ValueError: dtypes, devices or shapes break the rules above, or no backend has that name.
        fastrw.Refused: the backend asked for cannot serve these tensors; the text says why.
    """
    _check(t, output)
    return call("relu_tangent", backend, t, output)


def _check(t: Tensor, output: Tensor) -> None:
    checks.tensors("relu_tangent", {"t": "*", "output": "*"}, t=t, output=output)
    checks.alike("relu_tangent", "t", t, output=output)


def _empty(t: Tensor, output: Tensor) -> Tensor:
    _check(t, output)
    return torch.empty_like(dense(t))


def _triton(*args) -> Tensor:
    from fastrw.kernels.relu_tangent import launch_relu_tangent  # Triton is imported when it is first used

    return launch_relu_tangent(*args)


def _sample(device: torch.device, dtype: torch.dtype) -> tuple:
    i = torch.arange(35 * 19, device=device)
    return tuple((i * i * step % 31 % 5 - 2).view(35, 19).to(dtype) for step in (3, 7))


backends.register(
    "relu_tangent",
    schema="(Tensor t, Tensor output) -> Tensor",
    reference=reference.relu_tangent,
    triton=_triton,
    fake=_empty,
    order={},  # the reference is one kernel of torch, and on a CPU 0.5 to 0.8 of the time of cpp
    sample=_sample,
)
