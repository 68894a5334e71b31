"""instance_dot: the gradient of each example from its rows, dotted with the validation gradient V, kept or not."""

import torch
from torch import Tensor

from . import backends, checks, reference
from .function import call
from .sample import whole

_LETTERS = {"a": "ntp", "g": "ntq", "V": "qp", "v_b": "q"}


def instance_dot(
    a: Tensor,  # [n, t, p] inputs, t rows an example
    g: Tensor,  # [n, t, q] output-gradients
    V: Tensor,  # [q, p] validation gradient of the weight
    v_b: Tensor | None = None,  # [q] validation gradient of the bias
    keep: bool = False,
    *,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:  # [n], [n, q, p]
    """G_i = sum_t g_it a_it^T and s_i = <G_i, V> + <sum_t g_it, v_b>

    Eq. 12 of "Learning to Reweight Examples for Robust Deep Learning" (Ren et al. 2018) for one linear use: G_i is the
    gradient of example i alone, V = sum_j G_j and v_b = sum_j sum_t g_jt that of validation.

    Args:
        a, g, V: tensors [n, t, p], [n, t, q], [q, p] of one dtype (float32, bfloat16, float16, or float64) on one
            device, with any strides; V and v_b may be float32 where a and g have 16 bits. Any size may be 0: an empty
            sum is 0.
        v_b: [q], or None where the use has no bias.
        keep: whether to return G. Without it no G_i is formed in memory.
        backend: "auto" (the fastest measured one that can serve), "reference", "cpp" or "triton". float64 is served by
            reference and cpp alone.

    Returns:
        s [n], and G [n, q, p], or [0, q, p] where it is not kept; both float32 (float64 for float64 inputs), the dtype
        in which sums are kept. Differentiable in every tensor, to any order, in reverse and forward mode, and under
        vmap.

    Raises:
        TypeError: an argument is not a tensor, or keep not a bool.
        ValueError: dtypes, devices or shapes break the rules above, or no backend has that name.
        fastrw.Refused: the backend asked for cannot serve these tensors; the text says why.
    """
    _check(a, g, V, v_b)
    checks.flag("instance_dot", "keep", keep)
    return call("instance_dot", backend, a, g, V, v_b, keep)


def _check(a, g, V, v_b) -> None:
    checks.tensors("instance_dot", _LETTERS, wide=("V", "v_b"), a=a, g=g, V=V, v_b=v_b)


def _triton(*args) -> tuple[Tensor, Tensor]:
    from fastrw.kernels.instance_dot import launch_instance_dot  # Triton is imported when it is first used

    return launch_instance_dot(*args)


def _sample(device: torch.device, dtype: torch.dtype) -> tuple:
    n, t, p, q = 3, 5, 67, 19
    return (
        whole(n, t, p, step=3, device=device, dtype=dtype),
        whole(n, t, q, step=7, device=device, dtype=dtype),
        whole(q, p, step=11, device=device, dtype=dtype),
        whole(q, step=13, device=device, dtype=dtype),
        True,
    )


def _empty(a: Tensor, g: Tensor, V: Tensor, v_b: Tensor | None, keep: bool) -> tuple[Tensor, Tensor]:
    _check(a, g, V, v_b)
    (n, _, p), q, dtype = a.shape, g.shape[2], checks.sums(a.dtype)
    return a.new_empty(n, dtype=dtype), a.new_empty(n if keep else 0, q, p, dtype=dtype)


backends.register(
    "instance_dot",
    schema="(Tensor a, Tensor g, Tensor V, Tensor? v_b, bool keep) -> (Tensor, Tensor)",
    reference=reference.instance_dot,
    triton=_triton,
    fake=_empty,
    order={
        "cpu": ("cpp",),
        "cuda": ("triton",),  # by the roof; not measured yet
    },
    sample=_sample,
)
