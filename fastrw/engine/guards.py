"""What is not served yet and would be silently wrong: refused by name, with the way out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch.distributed as dist
from torch import Tensor, nn

from fastrw.errors import Refused, UntracedUse
from fastrw.graph.walk import Graph


def one_process(say: str) -> None:
    """Raises Refused where gradients would have to be reduced over processes."""
    if dist.is_available() and dist.is_initialized() and (ranks := dist.get_world_size()) > 1:
        raise Refused(
            f"{say}weights and gradients are of one process, got torch.distributed with {ranks}: nothing would be "
            "reduced, and ranks would drift apart (run one process, or train with plain averaging)"
        )


def own_statistics(modules: Mapping[str, nn.Module], say: str) -> None:
    """Raises Refused where a norm takes its statistics over processes."""
    for name, module in modules.items():
        if isinstance(module, nn.SyncBatchNorm) and module.training:
            raise Refused(
                f"{say}the statistics of a norm must be this process's own, got the nn.SyncBatchNorm {name!r} in "
                "training (put nn.BatchNorm in its place, or .eval())"
            )


def whole_tensors(leaves: Iterable[Tensor], say: str) -> None:
    """Raises Refused where a parameter is one process's share of it."""
    kind = getattr(getattr(dist, "tensor", None), "DTensor", None)
    for leaf in leaves:
        if kind is not None and isinstance(leaf, kind):
            raise Refused(f"{say}parameters must be whole tensors, got a DTensor (FSDP2 or tensor parallel)")


def reached(val_loss: Tensor, selected: Collection[int], say: str) -> None:
    """Raises ValueError where the validation loss reaches no selected parameter: every score would be 0."""
    leaves = Graph(val_loss.grad_fn).leaves.values()
    if not any(id(leaf) in selected for leaf in leaves):
        raise ValueError(f"{say}val_loss must depend on a selected parameter, got one that reaches none of params")


def leaves(found: Iterable[Tensor], say: str) -> None:
    """Raises Refused where a leaf has a hook, or is one process's share of a parameter."""
    found = list(found)
    for leaf in found:
        if leaf._backward_hooks:
            raise UntracedUse(f"{say}parameters must have no gradient hooks, got one on a {tuple(leaf.shape)}")
    whole_tensors(found, say)


def served(graph: Graph, say: str) -> None:
    """Raises Refused, before anything runs, where a node is one that no method can serve."""
    for node in graph.nodes:
        name = node.name()
        if "CompiledFunction" in name:
            raise Refused(
                f"{say}losses must not come from compiled code, whose backward runs once only, got {name} (make them "
                'under torch.compiler.set_stance("force_eager"))'
            )
        if "SyncBatchNorm" in name:
            raise Refused(f"{say}the statistics of a norm must be this process's own, got {name}")
