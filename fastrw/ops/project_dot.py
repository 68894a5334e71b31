"""project_dot: the scores of one linear use from rows and the validation gradient V."""

import torch
from torch import Tensor

from . import backends, checks, reference
from .function import lean
from .sample import whole

_LETTERS = {"a": "rp", "g": "rq", "V": "qp", "v_b": "q"}


def project_dot(
    a: Tensor,  # [r, p] inputs of the train rows
    g: Tensor,  # [r, q] output-gradients of the train rows
    V: Tensor,  # [q, p] validation gradient of the weight
    v_b: Tensor | None = None,  # [q] validation gradient of the bias
    *,
    backend: str = "auto",
) -> Tensor:  # [r]
    """s_r = g_r . (V a_r + v_b)

    Eq. 12 of "Learning to Reweight Examples for Robust Deep Learning" (Ren et al. 2018) for one linear use, its sum
    over validation rows k taken first: V = sum_k g_k a_k^T, v_b = sum_k g_k. The product V a is not written to memory.

    Args:
        a, g, V: matrices [r, p], [r, q], [q, p] of one dtype (float32, bfloat16, float16, or float64) on one device,
            with any strides; V and v_b may be float32 where a and g have 16 bits. Any size may be 0: an empty sum is 0.
        v_b: [q], or None where the use has no bias.
        backend: "auto" (the fastest measured one that can serve), "reference", "cpp" or "triton". float64 is served by
            reference and cpp alone.

    Returns:
        s [r] on the same device, float32 (float64 for float64 inputs); sums are kept in that dtype. Differentiable in
        every tensor, to any order, in reverse and forward mode, and under vmap.

    Raises:
        TypeError: an argument is not a tensor.
        ValueError: dtypes, devices or shapes break the rules above, or no backend has that name.
        fastrw.Refused: the backend asked for cannot serve these tensors; the text says why.
    """
    return lean("project_dot", backend, _check, a, g, V, v_b)


def _check(a, g, V, v_b) -> None:
    checks.tensors("project_dot", _LETTERS, wide=("V", "v_b"), a=a, g=g, V=V, v_b=v_b)


def _triton(*args) -> Tensor:
    from fastrw.kernels.project_dot import launch_project_dot  # Triton is imported when it is first used

    return launch_project_dot(*args)


def _sample(device: torch.device, dtype: torch.dtype) -> tuple:
    r, p, q = 35, 67, 19
    return (
        whole(r, p, step=3, device=device, dtype=dtype),
        whole(r, q, step=7, device=device, dtype=dtype),
        whole(q, p, step=11, device=device, dtype=dtype),
        whole(q, step=13, device=device, dtype=dtype),
    )


def _empty(a: Tensor, g: Tensor, V: Tensor, v_b: Tensor | None) -> Tensor:
    _check(a, g, V, v_b)
    return a.new_empty(a.shape[0], dtype=checks.sums(a.dtype))


backends.register(
    "project_dot",
    schema="(Tensor a, Tensor g, Tensor V, Tensor? v_b) -> Tensor",
    reference=reference.project_dot,
    triton=_triton,
    fake=_empty,
    order={
        "cpu": ("cpp",),
        "cuda": ("triton",),  # by the roof; not measured yet
    },
    sample=_sample,
)
