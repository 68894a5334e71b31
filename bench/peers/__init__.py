"""The step of Ren et al. 2018 as other libraries let one write it; `pip install -e .[peers]` installs them.

A peer is imported when its step is first taken. Each keeps what it is told to make once (hooks, an engine, an
optimizer), and is held against Algorithm 1 like every other way."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from importlib import metadata

from torch import Tensor, nn

PEERS = {"Opacus": "opacus", "TorchJD": "torchjd", "TorchOpt": "torchopt"}  # the way -> module and package


class NotInstalled(Exception):
    """A peer is not here."""


def step(name: str, *batches) -> tuple[Tensor, str]:
    """One step of a peer: see bench/steps.py. Raises NotInstalled with its reason."""
    package = PEERS[name]
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise NotInstalled(f"not installed ({error}): pip install -e .[peers]") from None
    scores, how = importlib.import_module(f"bench.peers.{package}").step(*batches)
    return scores, f"{package} {metadata.version(package)}, {how}"


def steps() -> dict[str, Callable[[nn.Module, tuple, tuple], tuple[Tensor, str]]]:
    """Way -> step."""
    return {name: partial(step, name) for name in PEERS}
