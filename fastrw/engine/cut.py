"""Where the graph is cut: the lowest edges on which every element of a gradient belongs to one example.

A node is *apart* when all nodes that send to it are and its gradients have owners. A *use* is a node apart with an
input
that leads to a leaf and is not apart: every path from a loss to a leaf leaves the nodes apart exactly once, at a use,
so none can be missed or counted twice, whatever Python, writes in place, hooks or vmap made the graph. What lies below
a use (views and casts of a parameter, weight_norm, all of BatchNorm's net) is its parameter side.

    s_i = sum over uses of <G_i, t>      G: gradient of sum_k f_k at the use; t: its tangent along V"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fastrw.engine import owners
from fastrw.graph.walk import Edge, Graph
from fastrw.nodes import routes, views
from fastrw.nodes.base import Use
from fastrw.nodes.owned import Owned


@dataclass(frozen=True, slots=True)
class Cut:
    """What is learned of a graph, in numbers of its nodes: it holds no node and no tensor of it."""

    uses: tuple[Use, ...]
    lowest: frozenset[int]  # uses below which there is no other: a backward that asks for these passes all
    side: tuple[int, ...]  # nodes of the parameter side, each after all that send to it
    content: tuple[int, ...]  # nodes of which more than the structure has to be the same
    sends: dict[int, dict[int, Owned]]  # of these, input -> owners of what it gets
    lasting: bool  # serves the next graph of the same structure and content
    asleep: tuple[
        Edge, ...
    ] = ()  # gradients that are 0 everywhere (a gate of 0): whose they are shows when they are not


def inner_nodes(graph: Graph, order: Sequence[int]) -> list[int]:
    """The nodes that lead to a leaf, without the leaves, each after all that send to it."""
    leaves, below = graph.leaves, graph.below
    leads = dict.fromkeys(leaves, True)
    for i in reversed(order):
        if i not in leads:
            leads[i] = any(edge is not None and leads[edge[0]] for edge in below[i])
    return [i for i in order if leads[i] and i not in leaves]


def find(graph: Graph, outputs: Sequence[Tensor], n: int, inner: Sequence[int]):
    """(the cut; edge -> gradient of sum_k c f_k) of the graph at hand, by measurement."""
    plain = _views_of_leaves(graph, inner, graph.leaves)
    looked = [i for i in inner if i not in plain]
    mixed, asleep, sound, owned, gradients = owners.measure(graph, outputs, n, looked)
    cut = _cut(graph, inner, mixed, asleep, owned)
    return replace(cut, lasting=cut.lasting and sound), gradients


def at_the_losses(graph: Graph, losses: Tensor, inner: Sequence[int]) -> Cut:
    """The highest cut: one use, the operation that the losses come from."""
    root, n = graph.index[losses.grad_fn], len(losses)
    of = torch.arange(n, device=losses.device)
    leads = {*inner, *graph.leaves}
    below = tuple(j for j, (node, _) in enumerate(graph.next[root]) if node is not None and graph.index[node] in leads)
    use = Use(root, below, {losses.output_nr: Owned(n, losses.shape, 0, of, 1, complete=True)})
    return Cut((use,), frozenset((root,)), tuple(i for i in inner if i != root), (), {}, True)


def where_examples_mix(graph: Graph, cut: Cut, leaves: Collection[int]) -> str | None:
    """The first operation of the parameter side, on the way to one of `leaves`, that takes examples, told by sizes that
    the uses have along theirs; None where all of it is made of parameters. (A word for reports: the scores are exact
    either way.)"""
    plain = _views_of_leaves(graph, cut.side, graph.leaves)
    sizes = {len(o.of) for use in cut.uses for o in use.owned.values() if o.dim is not None and len(o.of) > 1}
    dims = {o.dim for use in cut.uses for o in use.owned.values() if o.dim is not None} | {0}
    leads = set(leaves)
    for i in reversed(cut.side):
        if any(node is not None and graph.index[node] in leads for node, _ in graph.next[i]):
            leads.add(i)
    if name := next((graph.nodes[i].name() for i in graph.index.values() if routes.batchwise(graph.nodes[i])), None):
        return name
    for i in cut.side:
        name = graph.nodes[i].name()
        if i in leads and i not in plain and not routes.spreads(graph.nodes[i]):
            shapes = [m.shape for m in graph.nodes[i]._input_metadata]
            if any(dim < len(shape) - (dim > 0) and shape[dim] in sizes for shape in shapes for dim in dims):
                return name
    return None


def _cut(graph: Graph, inner: Sequence[int], mixed: set[int], asleep: set[Edge], owned: dict[Edge, Owned]) -> Cut:
    below = graph.below
    leaves = graph.leaves
    reached = {i for i, _ in (*owned, *asleep)}
    within = set(inner)
    apart = set()
    plain = _views_of_leaves(graph, inner, leaves)
    parents: dict[int, list[int]] = {}
    for i in inner:
        for edge in below[i]:
            if edge is not None:
                parents.setdefault(edge[0], []).append(i)
    for i in inner:
        if i in reached and i not in mixed and i not in plain and all(q in apart for q in parents.get(i, ())):
            apart.add(i)
    uses, content, sends, lasting = [], [], {}, True
    for i in inner:
        if routes.has_modes(graph.nodes[i]):
            content.append(i)
            sends[i] = {}
        if i not in apart:
            continue
        mine = _of(owned, graph, i)
        lasting = lasting and all(o.complete for o in mine.values())
        to = {j: owned[e] for j, e in enumerate(below[i]) if e is not None and e[0] in apart and e in owned}
        if to and mine:  # one that is asleep sends nothing
            if routes.by_values(graph.nodes[i], mine, to, below[i]):
                lasting = False
            elif i not in sends and routes.content(graph.nodes[i], to):
                content.append(i)
                sends[i] = to
        down = tuple(
            j for j, e in enumerate(below[i])
            if e is not None and e[0] not in apart and (e[0] in leaves or e[0] in within)
        )  # fmt: skip
        if down:
            uses.append(Use(i, down, mine))
    above = {u.node for u in uses}
    reaches: dict[int, bool] = {}  # does a use lie strictly below?
    for i in reversed(inner):
        reaches[i] = any(e is not None and (e[0] in above or reaches.get(e[0], False)) for e in below[i])
    lowest = frozenset(u.node for u in uses if not reaches[u.node])
    side = tuple(i for i in inner if i not in apart)
    return Cut(tuple(uses), lowest, side, tuple(content), sends, lasting, _to_watch(graph, inner, apart, asleep))


def _to_watch(graph: Graph, inner: Sequence[int], apart: set[int], asleep: set[Edge]) -> tuple[Edge, ...]:
    """Of the gradients that are 0, those that are not made of such alone: while they are 0, all are."""
    live = {i for i in inner if any((i, k) not in asleep for k in range(len(graph.nodes[i]._input_metadata)))}
    found = []
    for i in inner:
        if i in live:
            for node, k in graph.next[i]:
                if node is not None and (edge := (graph.index[node], k)) in asleep and edge[0] in apart:
                    found.append(edge)
    return tuple(dict.fromkeys(found))


def _views_of_leaves(graph: Graph, inner: Sequence[int], leaves: dict[int, Tensor]) -> set[int]:
    """Transposes and casts of a leaf: a use takes them as the leaf itself, also where all belongs to one example."""
    found: set[int] = set()
    for i in reversed(inner):
        if views.of_parameter(graph.nodes[i]) is not None:
            below = [graph.index[node] for node, _ in graph.next[i] if node is not None]
            if all(c in leaves or c in found for c in below):
                found.add(i)
    return found


def _of(owned: dict[Edge, Owned], graph: Graph, i: int) -> dict[int, Owned]:
    return {k: owned[i, k] for k in range(len(graph.nodes[i]._input_metadata)) if (i, k) in owned}
