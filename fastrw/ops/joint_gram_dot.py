"""joint_gram_dot: the scores of a batch from the whole rows of all its linear uses at once."""

from collections.abc import Sequence

from torch import Tensor

from fastrw.kernels.precision import of_products

from . import checks, reference
from .backends import register
from .call import run
from .sample import Whole

_OP = "joint_gram_dot"


def joint_gram_dot(
    a: Sequence[Tensor],  # of each use [r, p], inputs of the train rows, then of the validation rows
    g: Sequence[Tensor],  # [r, q] output-gradients of the same rows
    bias: Sequence[float],  # 1 for a use that has a bias, else 0
    n: int,  # train examples
    m: int,  # validation examples
    *,
    backend: str = "auto",
) -> Tensor:  # [n]
    """s_i = sum_uses sum_{r of example i} sum_k (a_r . a_k + bias)(g_r . g_k)

    `grouped_gram_dot` of uses whose rows are not split, at least one: first those of the n train examples, then those
    of the m validation examples. The rows of one example are adjacent, and r is a multiple of n + m.
    """
    _check(a, g, bias, n, m)
    return run(_OP, backend, *_flat(a, g, bias, n, m))


def _check(a, g, bias, n, m) -> None:
    checks.lists(_OP, a=a, g=g, bias=bias)
    checks.integer(_OP, 0, n=n, m=m)
    for i in range(len(a)):
        checks.number(_OP, f"bias[{i}]", bias[i])
        checks.tensors(_OP, {f"a[{i}]": "rp", f"g[{i}]": "rq"}, {f"a[{i}]": a[i], f"g[{i}]": g[i]})
        checks.like_first(_OP, "a", a, i)
        r, examples = a[i].shape[0], n + m
        if r % examples if examples else r:
            raise ValueError(f"fastrw.{_OP}: the rows of a[{i}] must be a multiple of n + m, got {r} and {examples}")


def _outputs(a, g, bias, n, m, tf32=False) -> Tensor:
    _check(a, g, bias, n, m)
    return a[0].new_empty(n, dtype=checks.sums(a[0].dtype))


def _flat(a, g, bias, n, m) -> tuple:
    """As the backends are chosen and differentiated: the numbers, then every tensor by itself."""
    return (n, m, tuple(map(float, bias)), *a, *g)


def nested(n: int, m: int, bias: tuple[float, ...], *tensors: Tensor) -> tuple:
    """The arguments of the op from those of `_flat`."""
    uses = len(bias)
    return list(tensors[:uses]), list(tensors[uses:]), list(bias), n, m


def _sample(whole: Whole) -> tuple:
    uses = [(14, 35, 10), (28, 67, 5), (14, 1, 1)]
    sides = zip(*(((r, p), (r, q)) for r, p, q in uses), strict=True)
    return _flat(*([whole(*shape) for shape in side] for side in sides), [1.0, 0.0, 0.0], 9, 5)


register(
    joint_gram_dot,
    letters={},
    outputs=_outputs,
    sample=_sample,
    reference=lambda *args: reference.joint_gram_dot(*nested(*args)),
    arguments=lambda *args: (*nested(*args), of_products() == "tf32"),
    order={"cpu": ("cpp",), "cuda": ("cuda",)},
)
