"""project_dot: the scores of one linear use from rows and the validation gradient V."""

from torch import Tensor

from .backends import register
from .call import lean


def project_dot(
    a: Tensor,  # [r, p] inputs of the train rows
    g: Tensor,  # [r, q] output-gradients of the train rows
    V: Tensor,  # [q, p] validation gradient of the weight
    v_b: Tensor | None = None,  # [q] validation gradient of the bias; None where the use has none
    *,
    backend: str = "auto",
) -> Tensor:  # [r]
    """s_r = g_r . (V a_r + v_b)

    Eq. 12 of Ren et al. 2018 for one linear use, its sum over validation rows k taken first: V = sum_k g_k a_k^T,
    v_b = sum_k g_k. The product V a is not written to memory.
    """
    return lean("project_dot", backend, a, g, V, v_b)


register(
    project_dot,
    letters={"a": "rp", "g": "rq", "V": "qp", "v_b": "q"},
    wide=("V", "v_b"),
    outputs=("r",),
    sample={"r": 35, "p": 67, "q": 19},
    order={"cpu": ("cpp",), "cuda": ("triton",)},
    triton=True,
)
