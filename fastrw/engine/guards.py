"""What is not supported and would be silently wrong: refused by name, with a way out."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fastrw.errors import Refused, Unreached, UntracedUse
from fastrw.graph.walk import Graph


def one_process(prefix: str) -> None:
    """Raises Refused where gradients would have to be reduced over processes."""
    if dist.is_available() and dist.is_initialized() and (ranks := dist.get_world_size()) > 1:
        raise Refused(
            f"{prefix}training must run in one process, got torch.distributed with {ranks}: gradients would not be "
            "reduced, and the ranks would diverge (run one process, or train with plain averaging)"
        )


def no_synchronized_norm(modules: Mapping[str, nn.Module], prefix: str) -> None:
    """Raises Refused where a norm synchronizes its statistics across processes."""
    for name, module in modules.items():
        if isinstance(module, nn.SyncBatchNorm) and module.training:
            raise Refused(
                f"{prefix}normalization statistics must not be synchronized across processes, got the nn.SyncBatchNorm "
                f"{name!r} in training mode (use nn.BatchNorm, or .eval())"
            )


def not_sharded(leaves: Iterable[Tensor], prefix: str, new: bool = True) -> None:
    """Raises Refused where a parameter is sharded. new: were these leaves not seen before?"""
    kind = getattr(getattr(dist, "tensor", None), "DTensor", None)
    if kind is None:
        return
    whole = _gathered_by_fsdp()
    if not (new or whole):
        return
    for leaf in leaves:
        if isinstance(leaf, kind) or id(leaf) in whole or hasattr(leaf, "_is_flat_param"):
            got = f"a {kind.__name__}" if isinstance(leaf, kind) else f"one that FSDP gathered, {tuple(leaf.shape)}"
            raise Refused(
                f"{prefix}parameters must not be sharded, got {got} (FSDP2 or tensor parallel; use one process "
                "without either)"
            )


def _gathered_by_fsdp() -> set[int]:
    """The ids of the tensors that FSDP2's modules compute with, in place of their parameters."""
    states = getattr(sys.modules.get("torch.distributed._composable_state"), "_module_state_mapping", {})
    found = set()
    for state in [ref() for ref in states.values()]:
        groups = getattr(state, "_fsdp_param_groups", None) or [getattr(state, "_fsdp_param_group", None)]
        found |= {id(getattr(p, "_unsharded_param", None)) for group in groups if group for p in group.fsdp_params}
    return found - {id(None)}


def reached(val_loss: Tensor, selected: Collection[int], prefix: str) -> None:
    """Raises Unreached where the validation loss reaches no selected parameter: every score would be 0."""
    leaves = Graph(val_loss.grad_fn).leaves.values()
    if not any(id(leaf) in selected for leaf in leaves):
        raise Unreached(f"{prefix}val_loss must depend on a selected parameter, got one that reaches none of params")


def leaves(found: Iterable[Tensor], prefix: str) -> None:
    """Raises Refused where a leaf has a gradient hook, or is sharded."""
    found = list(found)
    for leaf in found:
        if leaf._backward_hooks:
            raise UntracedUse(f"{prefix}parameters must have no gradient hooks, got one on a {tuple(leaf.shape)}")
    not_sharded(found, prefix)


def supported(graph: Graph, prefix: str) -> None:
    """Raises Refused, before anything runs, where no method supports a node."""
    for node in graph.nodes:
        name = node.name()
        if "CompiledFunction" in name:
            raise Refused(
                f"{prefix}losses must not come from compiled code, whose backward runs only once, got {name} (compute "
                'them under torch.compiler.set_stance("force_eager"))'
            )
        if "SyncBatchNorm" in name:
            raise Refused(f"{prefix}normalization statistics must not be synchronized across processes, got {name}")


@contextmanager
def repeatable_backward(device: torch.device) -> Iterator[None]:
    """Raises Refused where a backward in this context draws random numbers: no two would give the same gradient."""
    cuda = device.type == "cuda"
    before = torch.get_rng_state(), torch.cuda.get_rng_state(device) if cuda else None
    try:
        yield
    finally:
        same = torch.equal(before[0], torch.get_rng_state())
        if not (same and (before[1] is None or torch.equal(before[1], torch.cuda.get_rng_state(device)))):
            torch.set_rng_state(before[0])
            if before[1] is not None:
                torch.cuda.set_rng_state(before[1], device)
            raise Refused(
                "fastrw.engine: a backward must not draw random numbers, got one that does (draw them in the forward)"
            )
