"""combine: the weighted sum of per-example gradients, those of weight 0 left out."""

from torch import Tensor

from .backends import register
from .call import lean


def combine(
    G: Tensor,  # [n, ...] a gradient an example, read in place where an example is dense in memory
    w: Tensor,  # [n] weights
    *,
    backend: str = "auto",
) -> Tensor:  # [...]
    """sum_i w_i G_i

    The step sum_i w_i grad f_i that Eq. 8-9 of Ren et al. 2018 weight, from gradients that conv_instance kept. An
    example of weight 0 adds nothing, whatever it holds: the C++ kernel does not read it.
    """
    return lean("combine", backend, G, w)


register(
    combine,
    letters={"G": "n*", "w": "n"},
    wide=("w",),
    outputs=("*",),
    sample=lambda whole: (whole(5, 7, 9).transpose(1, 2), whole(5)),
    order={"cpu": ("cpp",), "cuda": ("triton",)},
    triton=True,
)
