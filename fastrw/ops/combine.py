"""combine: the weighted sum of per-example gradients, those of weight 0 left out."""

import torch
from torch import Tensor

from . import backends, checks, reference
from .function import lean
from .sample import whole

_OP = "combine"
_LETTERS = {"G": "n*", "w": "n"}


def combine(
    G: Tensor,  # [n, ...] a gradient an example
    w: Tensor,  # [n] weights
    *,
    backend: str = "auto",
) -> Tensor:  # [...]
    """sum_i w_i G_i

    The step sum_i w_i grad f_i that Eq. 8-9 of "Learning to Reweight Examples for Robust Deep Learning" (Ren et al.
    2018) weigh, from gradients that instance_dot or conv_instance kept. An example of weight 0 adds nothing, whatever
    it holds: the C++ kernel does not read it.

    Args:
        G: a tensor [n, ...] of float32, bfloat16, float16, or float64, with any strides; those that conv_instance
            gives are read as they lie. Any size may be 0: an empty sum is 0.
        w: [n] on the same device, of the dtype of G or of its sums.
        backend: "auto" (the fastest measured one that can serve), "reference", "cpp" or "triton". float64 is served by
            reference and cpp alone.

    Returns:
        [...] on the same device, float32 (float64 for float64 inputs); sums are kept in that dtype. Differentiable in
        both tensors, to any order, in reverse and forward mode, and under vmap.

    Raises:
        TypeError: an argument is not a tensor.
        ValueError: dtypes, devices or shapes break the rules above, or no backend has that name.
        fastrw.Refused: the backend asked for cannot serve these tensors; the text says why.
    """
    return lean(_OP, backend, _check, G, w)


def _check(G, w) -> None:
    checks.tensors(_OP, _LETTERS, wide=("w",), G=G, w=w)


def _triton(*args) -> Tensor:
    from fastrw.kernels.combine import launch_combine  # Triton is imported when it is first used

    return launch_combine(*args)


def _sample(device: torch.device, dtype: torch.dtype) -> tuple:
    G = whole(5, 7, 9, step=3, device=device, dtype=dtype)
    return G.transpose(1, 2), torch.tensor([1, 0, 2, 0, 1], device=device, dtype=dtype)


def _empty(G, w) -> Tensor:
    _check(G, w)
    return G.new_empty(G.shape[1:], dtype=checks.sums(G.dtype))


backends.register(
    _OP,
    schema="(Tensor G, Tensor w) -> Tensor",
    reference=reference.combine,
    triton=_triton,
    fake=_empty,
    sample=_sample,
    order={
        "cpu": ("cpp",),
        "cuda": ("triton",),  # by the roof; not measured yet
    },
)
