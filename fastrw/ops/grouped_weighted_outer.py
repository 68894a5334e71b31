"""grouped_weighted_outer: the weighted gradients of many linear uses at once."""

from collections.abc import Sequence

from torch import Tensor

from . import checks, reference
from .backends import register
from .call import run
from .sample import Whole

_OP = "grouped_weighted_outer"


def grouped_weighted_outer(
    a: Sequence[Tensor],  # of each use [r, p], inputs of the train rows
    g: Sequence[Tensor],  # [r, q] output-gradients of the train rows
    w: Tensor,  # [n] weight of each example
    *,
    backend: str = "auto",
) -> tuple[Tensor, ...]:  # W [q, p] of each use, then b [q] of each
    """W = sum_i w_i sum_{r of example i} g_r a_r^T and b = sum_i w_i sum_{r of example i} g_r, of each use

    `weighted_outer` of all linear uses of a model, at least one, where each is so small that a call costs more than its
    sum. r, p and q may differ from use to use. The rows of one example are adjacent, and r is a multiple of n. An
    example of weight 0 adds nothing, whatever it holds.
    """
    _check(a, g, w)
    return run(_OP, backend, *_flat(a, g, w))


def _check(a, g, w) -> None:
    checks.lists(_OP, a=a, g=g)
    checks.tensors(_OP, {"w": "n"}, {"w": w})
    for i in range(len(a)):
        letters = {f"a[{i}]": "rp", f"g[{i}]": "rq", "w": "n"}
        checks.tensors(_OP, letters, {f"a[{i}]": a[i], f"g[{i}]": g[i], "w": w}, wide=("w",))
        checks.like_first(_OP, "a", a, i)
        r, n = len(a[i]), len(w)
        if r % n if n else r:
            raise ValueError(f"fastrw.{_OP}: the rows of a[{i}] must be a multiple of n, got {r} and {n}")


def _outputs(a, g, w) -> list[Tensor]:
    _check(a, g, w)
    uses, dtype = list(zip(a, g, strict=True)), checks.sums(a[0].dtype)
    W = [x.new_empty(y.shape[1], x.shape[1], dtype=dtype) for x, y in uses]
    return W + [y.new_empty(y.shape[1], dtype=dtype) for _, y in uses]


def _flat(a, g, w) -> tuple:
    """As the backends are chosen and differentiated: every tensor by itself."""
    return (len(a), *a, *g, w)


def nested(uses: int, *tensors: Tensor) -> tuple:
    """The arguments of the op from those of `_flat`."""
    return list(tensors[:uses]), list(tensors[uses : 2 * uses]), tensors[-1]


def _sample(whole: Whole) -> tuple:
    sizes = [(10, 67, 19), (5, 3, 1), (0, 2, 2)]
    return _flat([whole(r, p) for r, p, _ in sizes], [whole(r, q) for r, _, q in sizes], whole(5))


register(
    grouped_weighted_outer,
    letters={},
    outputs=_outputs,
    sample=_sample,
    reference=lambda *args: reference.grouped_weighted_outer(*nested(*args)),
    arguments=nested,
    order={"cpu": ("cpp",)},
)
