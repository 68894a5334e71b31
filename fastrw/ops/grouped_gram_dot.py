"""grouped_gram_dot: the scores and weights of a batch from the rows of all its linear uses at once."""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import backends, checks, reference
from .function import call

_LETTERS = {"a": "rp", "g": "rq", "a_val": "kp", "g_val": "kq"}
_OP = "grouped_gram_dot"


def grouped_gram_dot(
    a: Sequence[Tensor],  # of each use [r, p], inputs of the train rows
    g: Sequence[Tensor],  # [r, q] output-gradients of the train rows
    a_val: Sequence[Tensor],  # [k, p] inputs of the validation rows
    g_val: Sequence[Tensor],  # [k, q] output-gradients of the validation rows
    bias: Sequence[float],
    n: int,
    *,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:  # s [n], w [n]
    """s_i = sum_uses sum_{r owned by i} sum_k (a_r . a_k + bias)(g_r . g_k) and w_i = max(s_i, 0) / sum_j max(s_j, 0)

    Eq. 12 and Eq. 8-9 of "Learning to Reweight Examples for Robust Deep Learning" (Ren et al. 2018) for a whole model
    whose uses are linear. The rows of one example are neighbours: of the r rows of a use, example i owns those from
    i r / n on. On a GPU two launches lead from the rows to the weights, for 45 uses; one more for each further 45.

    Args:
        a, g, a_val, g_val: as many matrices each as there are uses, at least one, of one dtype (float32, bfloat16,
            float16, or float64) on one device, with any strides. r, k, p and q may differ from use to use; r is a
            multiple of n. Any size may be 0.
        bias: a number a use, added to every product of inputs: 1 where it has a bias, else 0.
        n: examples.
        backend: "auto" (the fastest measured one that can serve), "reference", "cpp" or "cuda". On a GPU float32
            products are TF32 where `torch.backends.cuda.matmul` allows it; float64 is served by reference and cpp.

    Returns:
        s [n] and w [n] on the same device, float32 (float64 for float64 inputs); sums are kept in that dtype. A score
        that is not finite has weight 0. Differentiable in every matrix, to any order, in reverse and forward mode, and
        under vmap.

    Raises:
        TypeError: an argument is not of the type above.
        ValueError: dtypes, devices, shapes or numbers of uses break the rules above, or no backend has that name.
        fastrw.Refused: the backend asked for cannot serve these tensors; the text says why.
    """
    _check(a, g, a_val, g_val, bias, n)
    return call(_OP, backend, *_flat(a, g, a_val, g_val, bias, n))


def _check(a, g, a_val, g_val, bias, n) -> None:
    given = {"a": a, "g": g, "a_val": a_val, "g_val": g_val, "bias": bias}
    for name, x in given.items():
        if not isinstance(x, (list, tuple)):
            raise TypeError(f"fastrw.{_OP}: {name} must be a list, one item a use, got {type(x).__name__}")
    if not a:
        raise ValueError(f"fastrw.{_OP}: a must have at least one use, got none")
    for name, x in given.items():
        if len(x) != len(a):
            raise ValueError(f"fastrw.{_OP}: {name} must have as many uses as a, got {len(x)} and {len(a)}")
    if isinstance(n, bool) or not isinstance(n, (int, torch.SymInt)):
        raise TypeError(f"fastrw.{_OP}: n must be an integer, got {type(n).__name__}")
    if n < 0:
        raise ValueError(f"fastrw.{_OP}: n must be 0 or more, got {n}")
    for i in range(len(a)):
        checks.number(_OP, f"bias[{i}]", bias[i])
        letters = {f"{name}[{i}]": spelled for name, spelled in _LETTERS.items()}
        checks.tensors(_OP, letters, **{f"{name}[{i}]": given[name][i] for name in _LETTERS})
        if a[i].dtype != a[0].dtype:
            raise ValueError(f"fastrw.{_OP}: a[{i}] must have the dtype of a[0], got {a[i].dtype} and {a[0].dtype}")
        if a[i].device != a[0].device:
            raise ValueError(f"fastrw.{_OP}: a[{i}] must be on the device of a[0], got {a[i].device} and {a[0].device}")
        r = a[i].shape[0]
        if r % n if n else r:
            raise ValueError(f"fastrw.{_OP}: the rows of a[{i}] must be a multiple of n, got {r} and {n}")


def _flat(a, g, a_val, g_val, bias, n) -> tuple:
    """As the registry of backends wants them: the numbers, then every tensor by itself."""
    return (n, tuple(map(float, bias)), *a, *g, *a_val, *g_val)


def nested(n: int, bias: tuple[float, ...], *tensors: Tensor) -> tuple:
    """The arguments of the op from those of the registry."""
    uses = len(bias)
    return *(list(tensors[i * uses : (i + 1) * uses]) for i in range(4)), list(bias), n


def _reference(*args) -> tuple[Tensor, Tensor]:
    return reference.grouped_gram_dot(*nested(*args))


def _compiled(*args) -> tuple:
    return *nested(*args), torch.backends.cuda.matmul.fp32_precision == "tf32"


def _sample(device: torch.device, dtype: torch.dtype) -> tuple:
    """Small whole numbers, the largest score, that of example 0, a power of 2: exact up to the last division."""
    n, uses = 9, [(9, 3, 35, 10), (18, 19, 67, 5), (9, 1, 1, 1)]

    def matrix(rows: int, columns: int, step: int) -> Tensor:
        i = torch.arange(rows * columns, device=device)
        return (i * i * step % 31 % 5 - 2).view(rows, columns).to(dtype)

    a, g = [matrix(r, p, 3) for r, k, p, q in uses], [matrix(r, q, 7) for r, k, p, q in uses]
    a_val, g_val = [matrix(k, p, 11) for r, k, p, q in uses], [matrix(k, q, 13) for r, k, p, q in uses]
    for use in range(3):
        g[use][: uses[use][0] // n] = 0
    for x in (a[2], g[2], a_val[2], g_val[2]):
        x[0] = 16
    return _flat(a, g, a_val, g_val, [1.0, 0.0, 0.0], n)


def _empty(a, g, a_val, g_val, bias, n, tf32=False) -> tuple[Tensor, Tensor]:
    _check(a, g, a_val, g_val, bias, n)
    dtype = checks.sums(a[0].dtype)
    return a[0].new_empty(n, dtype=dtype), a[0].new_empty(n, dtype=dtype)


backends.register(
    _OP,
    schema="(Tensor[] a, Tensor[] g, Tensor[] a_val, Tensor[] g_val, float[] bias, int n, bool tf32=False) "
    "-> (Tensor, Tensor)",
    reference=_reference,
    fake=_empty,
    arguments=_compiled,
    order={"cpu": ("cpp",), "cuda": ("cuda",)},
    sample=_sample,
)
