"""Models fitted to tests: with narrower layers where widths are fixed; in float32 where the code demands it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

_WIDTHS = ((nn.modules.conv._ConvNd, 2), (nn.modules.batchnorm._NormBase, 1), (nn.Linear, 2))  # first arguments


def narrow(model: Callable[[], nn.Module], by: int = 8) -> Callable[[], nn.Module]:
    """Makes the model with `by` times fewer channels in every layer that has a multiple of that, groups too."""

    def made() -> nn.Module:
        patches = [
            mock.patch.object(kind, "__init__", _narrowed(kind.__init__, widths, by)) for kind, widths in _WIDTHS
        ]
        for patch in patches:
            patch.start()
        try:
            return model()
        finally:
            for patch in patches:
                patch.stop()

    return made


def _narrowed(init: Callable, widths: int, by: int) -> Callable:
    names = ("in_channels", "out_channels", "num_features", "in_features", "out_features", "groups")

    def divided(x):
        return x // by if isinstance(x, int) and x % by == 0 else x

    def made(self, *args, **kwargs) -> None:
        args = [divided(x) if k < widths or (k == 8 and widths == 2) else x for k, x in enumerate(args)]
        init(self, *args, **{k: divided(v) if k in names else v for k, v in kwargs.items()})

    return made


class Float32(nn.Module):
    """A model that makes float32 tensors of its own, and stays in float32, whatever its inputs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def _apply(self, fn: Callable, recurse: bool = True) -> Float32:
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = tree_map(_float32, (args, kwargs))
        return self.model(*args, **kwargs)


def _float32(x: Any) -> Any:
    return x.float() if isinstance(x, Tensor) and x.dtype == torch.float64 else x
