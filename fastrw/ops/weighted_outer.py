"""weighted_outer: the weighted gradient of one linear use from rows; those of weight 0 are never read."""

from torch import Tensor

from .backends import register
from .call import lean


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
        w: [r] of the dtype of a or of the sums; None: every weight is 1.
        backend: "reference", "cpp" or "triton". Dtypes, results, derivatives and errors: see `fastrw.ops`.

    Returns:
        W [q, p] and b [q]
    """
    return lean("weighted_outer", backend, a, g, w)


register(
    "weighted_outer",
    letters={"a": "rp", "g": "rq", "w": "r"},
    wide=("w",),
    outputs=("qp", "q"),
    sample={"r": 35, "p": 67, "q": 19},
    order={"cpu": ("cpp",), "cuda": ("triton",)},  # cuda: by the roofline; not measured yet
    triton=True,
)
