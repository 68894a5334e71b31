"""How far two right results may differ: by the coarsest precision that entered them."""

from __future__ import annotations

import torch
from torch import Tensor

from fastrw.graph.walk import Graph
from fastrw.nodes import precision

# Relative limits on differences: a wrong rule errs by far more; rounding by far less.
RELATIVE = {torch.float64: 1e-7, torch.float32: 1e-3, torch.float16: 3e-2, torch.bfloat16: 1e-1}
# Sums of products are rounded at the scale of the factors, |grad f_i| |V|, however small the sum: so many eps of them.
ROUNDINGS = {torch.float64: 64, torch.float32: 64, torch.float16: 4, torch.bfloat16: 4}
# Relative limits on differences between the losses of one batch in two forwards: those of rounding, for an operation
# that mixes the batch may change little (an expert that has no room for the last of its tokens).
SAME = {torch.float64: 1e-10, torch.float32: 2e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}


def coarsest(kinds: set[torch.dtype]) -> torch.dtype:
    """The dtype that limits the accuracy of numbers that pass through these."""
    return max({kind.to_real() for kind in kinds} & {*RELATIVE}, key=list(RELATIVE).index, default=torch.float32)


def of(*outputs: Tensor, graph: Graph | None = None) -> torch.dtype:
    """The dtype as which the outputs are rounded: the coarsest in their graph, with what torch is told of float32.
    Autocast inside a forward shows there, but not in the dtypes of parameters and losses."""
    if graph is None:
        graph = Graph(*(t.grad_fn for t in outputs if t.grad_fn is not None))
    return coarsest({precision.rounds_as(t.dtype, t.device) for t in outputs} | precision.of_graph(graph.nodes))


def agree(found: Tensor, truth: Tensor, noise: Tensor, kind: torch.dtype) -> Tensor:
    """Is the difference one that rounding in `kind` explains? noise: the scale at which terms are rounded."""
    limit = RELATIVE[kind] * truth.abs() + ROUNDINGS[kind] * torch.finfo(kind).eps * noise
    return (found - truth).abs() <= limit


def differ(found: Tensor, expected: Tensor, kind: torch.dtype) -> Tensor:
    """Does any loss of a batch differ between two forwards by more than rounding in `kind`? Losses that are not finite
    are not compared."""
    if len(found) != len(expected):
        return found.new_ones((), dtype=torch.bool)
    return ((found - expected).abs() > SAME[kind] * expected.square().mean().sqrt()).any()
