"""gram_dot: the scores of one linear use straight from rows, Eq. 12 as printed."""

import torch
from torch import Tensor

from . import backends, checks, reference
from .function import lean

_LETTERS = {"a": "rp", "g": "rq", "a_val": "kp", "g_val": "kq"}


def gram_dot(
    a: Tensor,  # [r, p] inputs of the train rows
    g: Tensor,  # [r, q] output-gradients of the train rows
    a_val: Tensor,  # [k, p] inputs of the validation rows
    g_val: Tensor,  # [k, q] output-gradients of the validation rows
    bias: float = 1.0,
    *,
    backend: str = "auto",
) -> Tensor:  # [r]
    """s_r = sum_k (a_r . a_k + bias)(g_r . g_k)

    Eq. 12 of "Learning to Reweight Examples for Robust Deep Learning" (Ren et al. 2018) for one linear use; `bias` is
    1 where the use has a bias and 0 where it has none.

    Args:
        a, g, a_val, g_val: matrices [r, p], [r, q], [k, p], [k, q] of one dtype (float32, bfloat16, float16, or
            float64) on one device, with any strides. Any size may be 0: an empty sum is 0.
        bias: a number added to every product of inputs.
        backend: "auto" (the fastest measured one that can serve), "reference", "cpp", "cuda" or "triton". float64 is
            served by reference and cpp alone.

    Returns:
        s [r] on the same device, float32 (float64 for float64 inputs); sums are kept in that dtype. Differentiable in
        all four matrices, to any order, in reverse and forward mode, and under vmap.

    Raises:
        TypeError: an argument is not a tensor, or the bias not a number.
        ValueError: dtypes, devices or shapes break the rules above, or no backend has that name.
        fastrw.Refused: the backend asked for cannot serve these tensors; the text says why.
    """
    checks.number("gram_dot", "bias", bias)
    return lean("gram_dot", backend, _check, a, g, a_val, g_val, float(bias))


def _check(a, g, a_val, g_val, bias) -> None:
    checks.tensors("gram_dot", _LETTERS, a=a, g=g, a_val=a_val, g_val=g_val)


def _triton(*args) -> Tensor:
    from fastrw.kernels.gram_dot import launch_gram_dot  # Triton is imported when it is first used

    return launch_gram_dot(*args)


def _sample(device: torch.device, dtype: torch.dtype) -> tuple:
    """Small whole numbers: every product and sum is exact in every dtype, in whatever order."""
    r, k, p, q = 35, 19, 67, 40  # few validation rows for these widths: the CPU kernel forms no V

    def matrix(rows: int, columns: int, step: int) -> Tensor:
        i = torch.arange(rows * columns, device=device)
        return (i * i * step % 31 % 5 - 2).view(rows, columns).to(dtype)

    return matrix(r, p, 3), matrix(r, q, 7), matrix(k, p, 11), matrix(k, q, 13), 1.0


def _empty(a: Tensor, g: Tensor, a_val: Tensor, g_val: Tensor, bias: float) -> Tensor:
    _check(a, g, a_val, g_val, bias)
    return a.new_empty(a.shape[0], dtype=torch.promote_types(a.dtype, torch.float32))


backends.register(
    "gram_dot",
    schema="(Tensor a, Tensor g, Tensor a_val, Tensor g_val, float bias) -> Tensor",
    reference=reference.gram_dot,
    triton=_triton,
    fake=_empty,
    order={
        "cpu": ("cpp",),  # 0.4 to 0.8 of the reference's time on rows of real layers
        "cuda": ("triton", "cuda"),  # by the roof: tensor cores, nothing of r x k in memory; not measured yet
    },
    sample=_sample,
)
