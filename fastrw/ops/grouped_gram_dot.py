"""grouped_gram_dot: the scores of a batch from the rows of all its linear uses at once."""

from collections.abc import Sequence

from torch import Tensor

from fastrw.kernels.precision import of_products

from . import checks, reference
from .backends import register
from .call import run
from .sample import Whole

_LETTERS = {"a": "rp", "g": "rq", "a_val": "kp", "g_val": "kq"}
_OP = "grouped_gram_dot"


def grouped_gram_dot(
    a: Sequence[Tensor],  # of each use [r, p], inputs of the train rows
    g: Sequence[Tensor],  # [r, q] output-gradients of the train rows
    a_val: Sequence[Tensor],  # [k, p] inputs of the validation rows
    g_val: Sequence[Tensor],  # [k, q] output-gradients of the validation rows
    bias: Sequence[float],  # 1 for a use that has a bias, else 0
    n: int,  # examples
    *,
    backend: str = "auto",
) -> Tensor:  # [n]
    """s_i = sum_uses sum_{r of example i} sum_k (a_r . a_k + bias)(g_r . g_k)

    Eq. 12 of Ren et al. 2018 summed over all linear uses of a model, at least one. r, k, p and q may differ from use to
    use. The rows of one example are adjacent, and r is a multiple of n: example i has those from i r / n on. On a GPU
    two launches serve 45 uses, every further 45 take one more; float32 products are TF32 where
    `torch.backends.cuda.matmul` allows it.
    """
    _check(a, g, a_val, g_val, bias, n)
    return run(_OP, backend, *_flat(a, g, a_val, g_val, bias, n))


def _check(a, g, a_val, g_val, bias, n) -> None:
    given = {"a": a, "g": g, "a_val": a_val, "g_val": g_val, "bias": bias}
    checks.lists(_OP, **given)
    checks.integer(_OP, 0, n=n)
    for i in range(len(a)):
        checks.number(_OP, f"bias[{i}]", bias[i])
        letters = {f"{name}[{i}]": spelled for name, spelled in _LETTERS.items()}
        checks.tensors(_OP, letters, {f"{name}[{i}]": given[name][i] for name in _LETTERS})
        checks.like_first(_OP, "a", a, i)
        r = a[i].shape[0]
        if r % n if n else r:
            raise ValueError(f"fastrw.{_OP}: the rows of a[{i}] must be a multiple of n, got {r} and {n}")


def _outputs(a, g, a_val, g_val, bias, n, tf32=False) -> Tensor:
    _check(a, g, a_val, g_val, bias, n)
    return a[0].new_empty(n, dtype=checks.sums(a[0].dtype))


def _flat(a, g, a_val, g_val, bias, n) -> tuple:
    """As the backends are chosen and differentiated: the numbers, then every tensor by itself."""
    return (n, tuple(map(float, bias)), *a, *g, *a_val, *g_val)


def nested(n: int, bias: tuple[float, ...], *tensors: Tensor) -> tuple:
    """The arguments of the op from those of `_flat`."""
    uses = len(bias)
    return *(list(tensors[i * uses : (i + 1) * uses]) for i in range(4)), list(bias), n


def _sample(whole: Whole) -> tuple:
    uses = [(9, 3, 35, 10), (18, 19, 67, 5), (9, 1, 1, 1)]
    sides = zip(*(((r, p), (r, q), (k, p), (k, q)) for r, k, p, q in uses), strict=True)
    return _flat(*([whole(*shape) for shape in side] for side in sides), [1.0, 0.0, 0.0], 9)


register(
    grouped_gram_dot,
    letters={},
    outputs=_outputs,
    sample=_sample,
    reference=lambda *args: reference.grouped_gram_dot(*nested(*args)),
    arguments=lambda *args: (*nested(*args), of_products() == "tf32"),
    order={"cpu": ("cpp",), "cuda": ("cuda",)},
)
