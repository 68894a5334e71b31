"""norm_instance: the gradient of scale and shift of one affine norm, per example, in one pass."""

import torch
from torch import Tensor

from . import backends, checks, reference
from .function import lean
from .norm_dot import check_norm, sample

_OP = "norm_instance"


def norm_instance(
    x: Tensor,  # [n, S, C] inputs
    g: Tensor,  # [n, S, C] output-gradients
    mean: Tensor | None,  # [n, S, G] what was subtracted
    rstd: Tensor,  # [n, S, G] what it was multiplied by
    *,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:  # [n, C], [n, C]
    """dL_i/dgamma = sum_S g x_hat and dL_i/dbeta = sum_S g, x_hat = (x - mean) rstd

    Scores, validation gradient and weighted update of a norm follow from these two: <G_i, V>, their sum over validation
    examples, sum_i w_i G_i. x_hat is formed in registers and never written; layouts and statistics as in `norm_dot`.

    Args:
        x, g: [n, S, C] of one dtype (float32, bfloat16, float16, or float64) on one device, with any strides; read in
            place where channels or positions are next to each other in memory. Any size may be 0: an empty sum is 0.
        mean: [n, S, G] or None (nothing is subtracted: RMS norm), rstd: [n, S, G], G a divisor of C, in the dtype of x
            or that of its sums; strides of 0 where they do not vary.
        backend: "auto" (the fastest measured one that can serve), "reference", "cpp" or "cuda".

    Returns:
        gradients of gamma and of beta, each [n, C] on the same device, float32 (float64 for float64 inputs); sums are
        kept in that dtype. Differentiable in every tensor, to any order, in reverse and forward mode, and under vmap.

    Raises:
        TypeError: an argument is not a tensor.
        ValueError: dtypes, devices or shapes break the rules above, or no backend has that name.
        fastrw.Refused: the backend asked for cannot serve these tensors; the text says why.

    Source: the per-example gradients of Ren et al. 2018, Eq. 7, for the parameters of one norm.
    """
    return lean(_OP, backend, _check, x, g, mean, rstd)


def _check(x, g, mean, rstd) -> None:
    check_norm(_OP, x=x, g=g, mean=mean, rstd=rstd)


def _empty(x, g, mean, rstd) -> tuple[Tensor, Tensor]:
    _check(x, g, mean, rstd)
    n, _, C = x.shape
    dtype = checks.sums(x.dtype)
    return x.new_empty(n, C, dtype=dtype), x.new_empty(n, C, dtype=dtype)


def _sample(device: torch.device, dtype: torch.dtype) -> tuple:
    return sample(device, dtype)[:4]


backends.register(
    _OP,
    schema="(Tensor x, Tensor g, Tensor? mean, Tensor rstd) -> (Tensor, Tensor)",
    reference=reference.norm_instance,
    fake=_empty,
    sample=_sample,
    order={
        "cpu": ("cpp",),  # 0.05 to 0.3 of the time of forming x_hat and the product
        "cuda": ("cuda",),  # bound by bytes: x and g once; not measured yet
    },
)
