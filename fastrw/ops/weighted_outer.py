"""weighted_outer: the weighted gradient of one linear use from rows; those of weight 0 are never read."""

from torch import Tensor

from .backends import register
from .call import lean


def weighted_outer(
    a: Tensor,  # [r, p] inputs
    g: Tensor,  # [r, q] output-gradients
    w: Tensor | None = None,  # [r] weight of each row; None: every weight is 1
    *,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:  # W [q, p], b [q]
    """W = sum_r w_r g_r a_r^T and b = sum_r w_r g_r

    The gradient sum_i w_i grad f_i of a linear use, with which Ren et al. 2018 take their step; of validation rows,
    without w, V and v_b of Eq. 12. A row of weight 0 adds nothing, whatever it holds.
    """
    return lean("weighted_outer", backend, a, g, w)


register(
    weighted_outer,
    letters={"a": "rp", "g": "rq", "w": "r"},
    wide=("w",),
    outputs=("qp", "q"),
    sample={"r": 35, "p": 67, "q": 19},
    order={"cpu": ("cpp",), "cuda": ("triton",)},
    triton=True,
)
