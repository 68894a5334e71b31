"""weighted_outer: the weighted gradient of one linear use from rows; those of weight 0 are never read."""

import torch
from torch import Tensor

from . import backends, checks, reference
from .function import lean
from .sample import whole

_LETTERS = {"a": "rp", "g": "rq", "w": "r"}


def weighted_outer(
    a: Tensor,  # [r, p] inputs
    g: Tensor,  # [r, q] output-gradients
    w: Tensor | None = None,  # [r] weight of each row
    *,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:  # [q, p], [q]
    """W = sum_r w_r g_r a_r^T and b = sum_r w_r g_r

    The gradient sum_i w_i grad f_i of a linear use, with which "Learning to Reweight Examples for Robust Deep
    Learning" (Ren et al. 2018) takes its step; of validation rows, without w, V and v_b of Eq. 12. A row of weight 0
    adds nothing, whatever it holds.

    Args:
        a, g: matrices [r, p], [r, q] of one dtype (float32, bfloat16, float16, or float64) on one device, with any
            strides. Any size may be 0: an empty sum is 0.
        w: [r] of their dtype, or float32 where they have 16 bits; None: every weight is 1.
        backend: "auto" (the fastest measured one that can serve), "reference", "cpp" or "triton". float64 is served by
            reference and cpp alone.

    Returns:
        W [q, p] and b [q], float32 (float64 for float64 inputs); sums are kept in that dtype. Differentiable in every
        tensor, to any order, in reverse and forward mode, and under vmap.

    Raises:
        TypeError: an argument is not a tensor.
        ValueError: dtypes, devices or shapes break the rules above, or no backend has that name.
        fastrw.Refused: the backend asked for cannot serve these tensors; the text says why.
    """
    return lean("weighted_outer", backend, _check, a, g, w)


def _check(a, g, w) -> None:
    checks.tensors("weighted_outer", _LETTERS, wide=("w",), a=a, g=g, w=w)


def _triton(*args) -> tuple[Tensor, Tensor]:
    from fastrw.kernels.weighted_outer import launch_weighted_outer  # Triton is imported when it is first used

    return launch_weighted_outer(*args)


def _sample(device: torch.device, dtype: torch.dtype) -> tuple:
    r, p, q = 35, 67, 19
    return (
        whole(r, p, step=3, device=device, dtype=dtype),
        whole(r, q, step=7, device=device, dtype=dtype),
        whole(r, step=11, device=device, dtype=checks.sums(dtype)).clamp(min=0),
    )


def _empty(a: Tensor, g: Tensor, w: Tensor | None) -> tuple[Tensor, Tensor]:
    _check(a, g, w)
    p, q, dtype = a.shape[1], g.shape[1], checks.sums(a.dtype)
    return a.new_empty(q, p, dtype=dtype), a.new_empty(q, dtype=dtype)


backends.register(
    "weighted_outer",
    schema="(Tensor a, Tensor g, Tensor? w) -> (Tensor, Tensor)",
    reference=reference.weighted_outer,
    triton=_triton,
    fake=_empty,
    order={
        "cpu": ("cpp",),
        "cuda": ("triton",),  # by the roof; not measured yet
    },
    sample=_sample,
)
