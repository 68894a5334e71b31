"""The check that makes a recording trustworthy: every edge of the autograd graph into a parameter, or into something
derived from one, must start at a node that the recording has seen."""

from bisect import bisect_right
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge

from fastrw.errors import UntracedUse


class Spans:
    """Ranges of autograd sequence numbers, in rising order. (Nested calls give nested spans; the outer one is kept.)"""

    def __init__(self, spans: Iterable[tuple[int, int]]):
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in sorted(spans, key=lambda span: (span[0], -span[1])):
            if not self._ends or start >= self._ends[-1]:
                self._starts.append(start)
                self._ends.append(end)

    def __contains__(self, number: int) -> bool:
        i = bisect_right(self._starts, number) - 1
        return i >= 0 and number < self._ends[i]


def walk(losses: Tensor, params: dict[str, Tensor], seen: Spans, derived: Spans, marks: set[Node]) -> set[Node]:
    """Walks the graph of `losses` once.

    Raises UntracedUse where a node outside `seen` leads into a parameter or into a node of `derived`.
    Returns the nodes of `marks` from which no other node of `marks` can be reached: a backward that asks for these alone
    passes all the others.
    """
    leaves = {get_gradient_edge(p).node: name for name, p in params.items()}
    above: dict[Node, bool] = {}  # node -> does a marked node lie strictly below it?
    stack = [(losses.grad_fn, False)]
    while stack:
        node, left = stack.pop()
        children = [child for child, _ in node.next_functions if child is not None]
        if left:
            above[node] = any(above[c] or c in marks for c in children)
            continue
        if node in above:
            continue
        above[node] = False
        number = node._sequence_nr()
        stack.append((node, True))
        for child in children:
            name = leaves.get(child)
            if name is not None or child._sequence_nr() in derived:
                if number not in seen:
                    raise UntracedUse(
                        f"fastrw: every operation on a parameter must be recorded, got {node.name()} on "
                        f"{name or 'a tensor derived from a parameter'!r} unseen (a custom autograd.Function or compiled code)"
                    )
            if child not in above:
                stack.append((child, False))
    return {node for node in marks if node in above and not above[node]}


def is_compiled(model: torch.nn.Module) -> str | None:
    """The name of a submodule that torch.compile has replaced, or None: what runs in it cannot be recorded."""
    for name, module in model.named_modules():
        if getattr(module, "_compiled_call_impl", None) is not None or hasattr(module, "_orig_mod"):
            return name or type(module).__name__
    return None
