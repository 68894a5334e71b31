"""The check that makes a recording trustworthy: every edge of the autograd graph into a parameter, or into something
derived from one, must start at a node that the recording has seen."""

from bisect import bisect_right
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge

from fastrw.errors import UntracedUse

_DERIVED = "a tensor derived from a parameter"
_Leaf = type(get_gradient_edge(torch.empty(0, requires_grad=True)).node)  # AccumulateGrad


class Spans:
    """Ranges of autograd sequence numbers, in rising order. (Nested calls give nested spans; the outer one is kept.)"""

    def __init__(self, spans: Iterable[tuple[int, int]]):
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in sorted(spans, key=lambda span: (span[0], -span[1])):
            if not self._ends or start >= self._ends[-1]:
                self._starts.append(start)
                self._ends.append(end)

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __contains__(self, number: int) -> bool:
        i = bisect_right(self._starts, number) - 1
        return i >= 0 and number < self._ends[i]


def walk(losses: Tensor, params: dict[str, Tensor], seen: Spans, derived: Spans, marks: set[Node]) -> set[Node]:
    """Walks the graph of `losses` once.

    Raises UntracedUse where a node outside `seen` leads into a parameter or into a node of `derived`.
    Returns the nodes of `marks` from which no other node of `marks` can be reached: a backward that asks for these
    alone passes all the others.
    """
    names = {id(p): name for name, p in params.items()}
    children: dict[Node, list[Node]] = {}  # of every node that was entered
    above: dict[Node, bool] = {}  # node -> does a marked node lie strictly below it? Of every node that was left
    stack = [losses.grad_fn]
    while stack:
        node = stack[-1]
        if (found := children.get(node)) is not None:  # all below it is known
            stack.pop()
            if node not in above:
                above[node] = any(above[child] or child in marks for child in found)
            continue
        children[node] = found = [child for child, _ in node.next_functions if child is not None]
        for child in found:
            if type(child) is _Leaf:
                what = names.get(id(child.variable))
                above[child] = False
            else:
                what = _DERIVED if derived and child._sequence_nr() in derived else None
                if child not in above:
                    stack.append(child)
            if what is not None and node._sequence_nr() not in seen:
                raise UntracedUse(
                    "fastrw.graph: every operation on a parameter must be seen, got "
                    f"{node.name()} on {what if what is _DERIVED else repr(what)} "
                    "(a custom autograd.Function or compiled code)"
                )
    return {node for node in marks if node in above and not above[node]}


def dtypes(*outputs: Tensor) -> set[torch.dtype]:
    """The dtypes of every gradient that a backward of `outputs` passes on: autocast inside a forward shows here, where
    the dtypes of parameters and losses do not tell of it."""
    found, nodes = {t.dtype for t in outputs}, [t.grad_fn for t in outputs if t.grad_fn is not None]
    seen = set(nodes)
    while nodes:
        node = nodes.pop()
        found |= {metadata.dtype for metadata in node._input_metadata}
        below = {child for child, _ in node.next_functions if child is not None} - seen
        seen |= below
        nodes += below
    return found


def compiled(modules: dict[str, torch.nn.Module]) -> str | None:
    """The name of a module that torch.compile has replaced, or None: what runs in it cannot be recorded."""
    for name, module in modules.items():
        if module._compiled_call_impl is not None or "_orig_mod" in module._modules:
            return name or type(module).__name__
    return None
