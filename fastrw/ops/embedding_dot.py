"""embedding_dot: the scores of looked-up rows of a table."""

import torch
from torch import Tensor

from . import backends, checks, reference
from .function import lean
from .sample import whole

_OP = "embedding_dot"
_LETTERS = {"idx": "r", "g": "rq", "V": "vq"}


def embedding_dot(
    idx: Tensor,  # [r] the row of the table that each train row looks up
    g: Tensor,  # [r, q] output-gradients of the train rows
    V: Tensor,  # [v, q] validation gradient of the table
    padding_idx: int = -1,
    *,
    backend: str = "auto",
) -> Tensor:  # [r]
    """s_r = g_r . V[idx_r], 0 where idx_r is padding_idx (-1: no row is padding)

    Rows of V are read where they lie: V[idx] is never written.

    Args:
        idx: [r] int64 or int32, each at least 0 and less than v, with any stride.
        g: [r, q] float32, bfloat16, float16, or float64, with any strides. Any size may be 0: an empty sum is 0.
        V: [v, q] in the dtype of g or that of its sums, with any strides.
        padding_idx: the index whose rows get 0, as `torch.nn.Embedding` leaves its gradient 0.
        backend: "auto" (the fastest measured one that can serve), "reference", "cpp", "cuda" or "triton". float64 is
            served by reference and cpp alone.

    Returns:
        s [r] on the same device, float32 (float64 for float64 inputs); sums are kept in that dtype. Differentiable in
        g and V, to any order, in reverse and forward mode, and under vmap.

    Raises:
        TypeError: an argument is not a tensor, or padding_idx not an integer.
        ValueError: dtypes, devices or shapes break the rules above, or no backend has that name; on the CPU also an
            index outside the table (IndexError from the reference). On a GPU nobody waits to look: such a row is nan.
        fastrw.Refused: the backend asked for cannot serve these tensors; the text says why.

    Source: Ren et al. 2018, Eq. 12 with the one-hot row of idx_r as the input.
    """
    if isinstance(padding_idx, bool) or not isinstance(padding_idx, int):
        raise TypeError(f"fastrw.{_OP}: padding_idx must be an integer, got {type(padding_idx).__name__}")
    return lean(_OP, backend, _check, idx, g, V, padding_idx)


def _check(idx, g, V, padding_idx) -> None:
    checks.tensors(_OP, _LETTERS, wide=("V",), index=("idx",), idx=idx, g=g, V=V)


def _empty(idx, g, V, padding_idx) -> Tensor:
    _check(idx, g, V, padding_idx)
    return g.new_empty(g.shape[0], dtype=checks.sums(g.dtype))


def _triton(*args) -> Tensor:
    from fastrw.kernels.embedding_dot import launch_embedding_dot  # Triton is imported when it is first used

    return launch_embedding_dot(*args)


def _sample(device: torch.device, dtype: torch.dtype) -> tuple:
    """Small whole numbers: every sum is exact in every dtype. Index 3 is the padding."""
    r, q, v = 37, 67, 11
    g, V = whole(r, q, step=3, device=device, dtype=dtype), whole(v, q, step=7, device=device, dtype=dtype)
    return torch.arange(r, device=device) * 7 % v, g, V, 3


backends.register(
    _OP,
    schema="(Tensor idx, Tensor g, Tensor V, int padding_idx) -> Tensor",
    reference=reference.embedding_dot,
    triton=_triton,
    fake=_empty,
    sample=_sample,
    order={
        "cpu": ("cpp",),  # 0.4 to 0.8 of the time of looking up, multiplying and adding
        "cuda": ("triton", "cuda"),  # bound by bytes: g and the rows of V once; not measured yet
    },
)
