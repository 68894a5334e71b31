"""embedding_dot: the scores of looked-up rows of a table."""

import torch
from torch import Tensor

from . import checks
from .backends import register
from .call import lean


def embedding_dot(
    idx: Tensor,  # [r] int64 or int32 in [0, v): the row of the table that each train row looks up
    g: Tensor,  # [r, q] output-gradients of the train rows
    V: Tensor,  # [v, q] validation gradient of the table
    padding_idx: int = -1,  # whose rows get 0, as `torch.nn.Embedding` leaves its gradient 0; -1: no row is padding
    *,
    backend: str = "auto",
) -> Tensor:  # [r]
    """s_r = g_r . V[idx_r], 0 where idx_r is padding_idx

    Eq. 12 of Ren et al. 2018 with the one-hot row of idx_r as the input. Rows of V are read where they lie: V[idx] is
    never written.

    Raises:
        ValueError: on the CPU also where an index is outside the table (IndexError from the reference). On a GPU no
            check waits for the device: the score of such a row is nan.
    """
    checks.integer("embedding_dot", padding_idx=padding_idx)
    return lean("embedding_dot", backend, idx, g, V, padding_idx)


register(
    embedding_dot,
    letters={"idx": "r", "g": "rq", "V": "vq"},
    wide=("V",),
    index=("idx",),
    outputs=("r",),
    sample=lambda whole: (torch.arange(37, device=whole.device) * 7 % 11, whole(37, 67), whole(11, 67), 3),
    order={
        "cpu": ("cpp",),  # 0.4 to 0.8 of the time of looking up, multiplying and adding
        "cuda": ("triton", "cuda"),  # bound by bytes: g and the rows of V once
    },
    triton=True,
)
