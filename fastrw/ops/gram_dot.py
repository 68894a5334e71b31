"""gram_dot: the scores of one linear use straight from rows, Eq. 12 as printed."""

from torch import Tensor

from . import checks
from .backends import register
from .call import lean


def gram_dot(
    a: Tensor,  # [r, p] inputs of the train rows
    g: Tensor,  # [r, q] output-gradients of the train rows
    a_val: Tensor,  # [k, p] inputs of the validation rows
    g_val: Tensor,  # [k, q] output-gradients of the validation rows
    bias: float = 1.0,  # 1 where the use has a bias, 0 where it has none
    *,
    backend: str = "auto",
) -> Tensor:  # [r]
    """s_r = sum_k (a_r . a_k + bias)(g_r . g_k): Eq. 12 of Ren et al. 2018 for one linear use."""
    checks.number("gram_dot", "bias", bias)
    return lean("gram_dot", backend, a, g, a_val, g_val, float(bias))


register(
    gram_dot,
    letters={"a": "rp", "g": "rq", "a_val": "kp", "g_val": "kq"},
    outputs=("r",),
    # few validation rows for these widths: the C++ kernel does not go through V
    sample={"r": 35, "k": 19, "p": 67, "q": 40, "bias": 1.0},
    order={
        "cpu": ("cpp",),  # 0.4 to 0.8 of the reference's time on rows of real layers
        "cuda": ("triton", "cuda"),  # tensor cores, nothing of r x k in memory
    },
    triton=True,
)
