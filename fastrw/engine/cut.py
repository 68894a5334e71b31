"""Where the graph is cut: the lowest edges on which every element of a gradient belongs to one example.

A node is *separable* when all nodes that send to it are, and each element of its gradients belongs to one example. A
*use* is a separable node with an input that leads to a leaf through a node that is not separable, or to the leaf
itself. Every path from a loss to a leaf leaves the separable nodes exactly once, at a use, so none can be missed or
counted twice, whatever Python, in-place writes, hooks or vmap made the graph. What lies below a use (views and casts of
a parameter, weight_norm, everything under a BatchNorm in training) is its parameter side.

    s_i = sum over uses of <G_i, t>      G: gradient of sum_k f_k at the use; t: its tangent along V"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    lowest: frozenset[int]  # uses with no other use below: a backward to these passes all
    side: tuple[int, ...]  # nodes of the parameter side, each after all that send to it
    content: tuple[int, ...]  # nodes whose saved values, beyond the structure, have to be the same
    sends: dict[int, dict[int, Owned]]  # of these, input -> owners of its gradient
    reusable: bool  # valid for the next graph of the same structure and content
    overwriting: tuple[int, ...] = ()  # nodes that have to be given copies of their gradients
    zeros: tuple[Edge, ...] = ()  # gradients that are 0 everywhere (a gate of 0): their owners are unknown


def find(graph: Graph, outputs: Sequence[Tensor], all_gradients: bool = True) -> tuple[Cut, dict[Edge, Tensor]]:
    """The cut; and edge -> gradient of sum_k c f_k: of edges to leaves and their views, if `all_gradients`. By
    measurement on the graph at hand."""
    views_of_leaves = _views_of_leaves(graph, graph.inner)
    more = [*views_of_leaves, *graph.leaves] if all_gradients else []
    measured = owners.measure(graph, outputs, [i for i in graph.inner if i not in views_of_leaves], more)
    return _cut(graph, measured, views_of_leaves), measured.gradients


def at_the_losses(graph: Graph, losses: Tensor) -> Cut:
    """The highest cut: one use, the operation that the losses come from."""
    root, n = graph.index[losses.grad_fn], len(losses)
    leads = {*graph.inner, *graph.leaves}
    below = tuple(j for j, edge in enumerate(graph.below[root]) if edge is not None and edge[0] in leads)
    owned = Owned(n, losses.shape, 0, torch.arange(n, device=losses.device), 1, complete=True)
    side = tuple(i for i in graph.inner if i != root)
    return Cut((Use(root, below, {losses.output_nr: owned}),), frozenset((root,)), side, (), {}, True)


def _cut(graph: Graph, measured: owners.Measured, views_of_leaves: set[int]) -> Cut:
    inner, below, owned = graph.inner, graph.below, measured.owned
    candidates = {i for i, _ in (*owned, *measured.zeros)} - measured.mixed - views_of_leaves
    above: dict[int, set[int]] = {}
    for (i, _), senders in graph.senders.items():
        above.setdefault(i, set()).update(senders)
    separable: set[int] = set()
    for i in inner:
        if i in candidates and above.get(i, set()) <= separable:
            separable.add(i)
    side = {*inner, *graph.leaves} - separable
    uses, content, sends, reusable = [], [], {}, measured.reliable
    for i in inner:
        node = graph.nodes[i]
        if routes.has_modes(node):
            content.append(i)
            sends[i] = {}
        if i not in separable:
            continue
        mine = {k: owned[i, k] for k in range(len(node._input_metadata)) if (i, k) in owned}
        reusable = reusable and all(o.complete for o in mine.values())
        to = {j: owned[e] for j, e in enumerate(below[i]) if e is not None and e[0] in separable and e in owned}
        # a node whose gradients are 0 sends nothing; within one example, it does not matter where elements go
        if to and mine and not _one_owner([*mine.values(), *to.values()]):
            if routes.by_values(node, mine, to):
                reusable = False
            elif i not in sends and routes.content(node, to):
                content.append(i)
                sends[i] = to
        down = tuple(j for j, e in enumerate(below[i]) if e is not None and e[0] in side)
        if down:
            uses.append(Use(i, down, mine))
    at_or_above = {use.node for use in uses}  # of a use
    higher = set()  # nodes with a use strictly below
    for i in reversed(inner):
        if any(e is not None and e[0] in at_or_above for e in below[i]):
            higher.add(i)
            at_or_above.add(i)
    lowest = frozenset(use.node for use in uses) - higher
    side_nodes, zeros = tuple(i for i in inner if i in side), _watched(graph, separable, measured.zeros)
    return Cut(tuple(uses), lowest, side_nodes, tuple(content), sends, reusable, measured.overwriting, zeros)


def _one_owner(found: Sequence[Owned]) -> bool:
    """Do all these gradients belong to the same one owner?"""
    every = torch.cat([o.of.flatten() for o in found])
    return all(o.complete for o in found) and len(every) > 0 and bool((every == every[0]).all())


def _watched(graph: Graph, separable: set[int], zeros: set[Edge]) -> tuple[Edge, ...]:
    """Of the gradients that are 0, those computed from others that are not: while they are 0, all are."""
    live = [i for i in graph.inner if any((i, k) not in zeros for k in range(len(graph.nodes[i]._input_metadata)))]
    return tuple(dict.fromkeys(e for i in live for e in graph.below[i] if e in zeros and e[0] in separable))


def _views_of_leaves(graph: Graph, nodes: Sequence[int]) -> set[int]:
    """What transposes and casts alone make of a leaf: a use treats them as the leaf itself, even where all of it
    belongs to one example. nodes: each after all that send to it."""
    found: set[int] = set()
    for i in reversed(nodes):
        below = (edge[0] for edge in graph.below[i] if edge is not None)
        if views.of_parameter(graph.nodes[i]) is not None and all(c in graph.leaves or c in found for c in below):
            found.add(i)
    return found
