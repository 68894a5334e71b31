"""norm_dot: the scores of one affine norm in one pass over its input and output-gradient."""

import torch
from torch import Tensor

from . import backends, checks, reference
from .function import lean
from .sample import whole

_OP = "norm_dot"
_LETTERS = {"x": "nSC", "g": "nSC", "mean": "nSG", "rstd": "nSG", "V_gamma": "C", "V_beta": "C"}


def norm_dot(
    x: Tensor,  # [n, S, C] inputs
    g: Tensor,  # [n, S, C] output-gradients
    mean: Tensor | None,  # [n, S, G] what was subtracted
    rstd: Tensor,  # [n, S, G] what it was multiplied by
    V_gamma: Tensor | None,  # [C] validation gradient of the scale
    V_beta: Tensor | None,  # [C] validation gradient of the shift
    *,
    backend: str = "auto",
) -> Tensor:  # [n]
    """s_i = sum_S sum_C g (x_hat V_gamma + V_beta), x_hat = (x - mean) rstd

    <dL_i/dgamma, V_gamma> + <dL_i/dbeta, V_beta> for a layer, RMS, group, instance or (in eval) batch norm; x_hat is
    formed in registers and never written. n are examples, S what one statistic serves them in turn (positions of a
    sequence or an image), C the channels that gamma and beta run over, in G groups of C / G neighbours:

        layer norm, RMS norm    x [n, S, C], mean and rstd [n, S, 1]; mean None where nothing is subtracted
        group norm              x [n, C, S] transposed to [n, S, C], mean and rstd [n, 1, G] expanded along S
        instance norm           the same with G = C
        batch norm in eval      the same with G = C, mean and rstd [1, 1, C] expanded along n and S

    With S = 1 there is one score a row. The two layouts that matter are read in place, in one pass: channels next to
    each other in memory, and positions next to each other.

    Args:
        x, g: [n, S, C] of one dtype (float32, bfloat16, float16, or float64) on one device, with any strides. Any size
            may be 0: an empty sum is 0.
        mean: [n, S, G] or None, rstd: [n, S, G], G a divisor of C; strides of 0 where they do not vary.
        V_gamma, V_beta: [C]; either may be None. Without V_gamma, x is not read. These four may have the dtype of x or
            that of its sums.
        backend: "auto" (the fastest measured one that can serve), "reference", "cpp", "cuda" or "triton". float64 is
            served by reference and cpp alone.

    Returns:
        s [n] on the same device, float32 (float64 for float64 inputs); sums are kept in that dtype. Differentiable in
        every tensor, to any order, in reverse and forward mode, and under vmap.

    Raises:
        TypeError: an argument is not a tensor.
        ValueError: dtypes, devices or shapes break the rules above, or no backend has that name.
        fastrw.Refused: the backend asked for cannot serve these tensors; the text says why.

    Source: Ren et al. 2018, Eq. 7 at eps = 0 for the parameters of one norm.
    """
    return lean(_OP, backend, _check, x, g, mean, rstd, V_gamma, V_beta)


def check_norm(op: str, **given) -> None:
    """The rules of every op that takes x, g, mean and rstd."""
    checks.tensors(op, _LETTERS, wide=("mean", "rstd", "V_gamma", "V_beta"), **given)
    C, G = given["x"].shape[2], given["rstd"].shape[2]
    if G == 0 or C % G:
        raise ValueError(f"fastrw.{op}: rstd [n, S, G] must have a G that divides C, got {G} and {C}")


def sample(device: torch.device, dtype: torch.dtype) -> tuple:
    """x, g, mean, rstd [n, S, C] of small whole numbers and powers of two: every sum is exact in every dtype."""
    n, S, C, G = 5, 19, 36, 4
    x, g = (whole(n, C, S, step=i, device=device, dtype=dtype).transpose(1, 2) for i in (3, 7))
    mean, rstd = (whole(n, 1, G, step=i, device=device, dtype=dtype) for i in (11, 5))
    V_gamma, V_beta = (whole(C, step=i, device=device, dtype=dtype) for i in (13, 2))
    return x, g, mean.expand(n, S, G), rstd.exp2().expand(n, S, G), V_gamma, V_beta


def _check(x, g, mean, rstd, V_gamma, V_beta) -> None:
    check_norm(_OP, x=x, g=g, mean=mean, rstd=rstd, V_gamma=V_gamma, V_beta=V_beta)
    if V_gamma is None and V_beta is None:
        raise ValueError(f"fastrw.{_OP}: V_gamma or V_beta must be given, got None for both")


def _empty(x, g, mean, rstd, V_gamma, V_beta) -> Tensor:
    _check(x, g, mean, rstd, V_gamma, V_beta)
    return x.new_empty(x.shape[0], dtype=checks.sums(x.dtype))


def _triton(*args) -> Tensor:
    from fastrw.kernels.norm_dot import launch_norm_dot  # Triton is imported when it is first used

    return launch_norm_dot(*args)


backends.register(
    _OP,
    schema="(Tensor x, Tensor g, Tensor? mean, Tensor rstd, Tensor? V_gamma, Tensor? V_beta) -> Tensor",
    reference=reference.norm_dot,
    triton=_triton,
    fake=_empty,
    sample=sample,
    order={
        "cpu": ("cpp",),  # 0.05 to 0.3 of the time of forming x_hat and the product
        "cuda": ("triton", "cuda"),  # bound by bytes: x and g once; not measured yet
    },
)
