"""grouped_combine: the weighted sums of the per-example gradients of many uses at once."""

from collections.abc import Sequence

from torch import Tensor

from . import checks, reference
from .backends import register
from .call import run
from .sample import Whole

_OP = "grouped_combine"


def grouped_combine(
    G: Sequence[Tensor],  # of each use [n, ...], a gradient an example, read in place where an example is dense
    w: Tensor,  # [n] weights
    *,
    backend: str = "auto",
) -> tuple[Tensor, ...]:  # [...] of each use
    """sum_i w_i G_i of each use

    `combine` of all uses of a model that have kept per-example gradients, at least one, where each is so small that a
    call costs more than its sum. An example of weight 0 adds nothing, whatever it holds.
    """
    _check(G, w)
    return run(_OP, backend, *G, w)


def _check(G, w) -> None:
    checks.lists(_OP, G=G)
    checks.tensors(_OP, {"w": "n"}, {"w": w})
    for i in range(len(G)):
        checks.tensors(_OP, {f"G[{i}]": "n*", "w": "n"}, {f"G[{i}]": G[i], "w": w}, wide=("w",))
        checks.like_first(_OP, "G", G, i)


def _outputs(G, w) -> list[Tensor]:
    _check(G, w)
    return [t.new_empty(t.shape[1:], dtype=checks.sums(t.dtype)) for t in G]


def nested(*tensors: Tensor) -> tuple:
    """The arguments of the op from every tensor by itself."""
    return list(tensors[:-1]), tensors[-1]


def _sample(whole: Whole) -> tuple:
    return whole(5, 7, 9).transpose(1, 2), whole(5, 1), whole(5)


register(
    grouped_combine,
    letters={},
    outputs=_outputs,
    sample=_sample,
    reference=lambda *args: reference.grouped_combine(*nested(*args)),
    arguments=nested,
    order={"cpu": ("cpp",)},
)
