"""Random arguments in every layout that a caller may bring, NaN wherever a stray access would land."""

import torch
from torch import Tensor

NAN = float("nan")


def _inside(x: Tensor, shape, first, steps=None) -> Tensor:
    around = x.new_full(shape, NAN)
    view = around[tuple(slice(f, None, s) for f, s in zip(first, steps or [1] * x.ndim, strict=True))]
    view = view[tuple(slice(size) for size in x.shape)]
    return view.copy_(x)


def _margin(x: Tensor) -> Tensor:
    shape = [size + 2 for size in x.shape]
    return _inside(x, [*shape[:-1], shape[-1] + 1], [1] * (x.ndim - 1) + [0])


def _aligned(x: Tensor) -> Tensor:
    shape = [*(size + 2 for size in x.shape[:-1]), -(-x.shape[-1] // 8) * 8 + 8]
    return _inside(x, shape, [0] * x.ndim)


def _misaligned(x: Tensor) -> Tensor:
    return _inside(x, [*x.shape[:-1], x.shape[-1] + 8], [0] * (x.ndim - 1) + [1])


def _reversed(x: Tensor) -> Tensor:
    order = list(reversed(range(x.ndim)))
    return x.permute(order).contiguous().permute(order)


def _every_other(x: Tensor, dim: int) -> Tensor:
    shape, steps = list(x.shape), [1] * x.ndim
    shape[dim], steps[dim] = 2 * shape[dim], 2
    return _inside(x, shape, [0] * x.ndim, steps)


def _channels_last(x: Tensor) -> Tensor:
    return x.movedim(1, -1).contiguous().movedim(-1, 1) if x.ndim > 2 else x


# each takes a tensor and returns the same numbers laid out in another way
LAYOUTS = {
    "plain": lambda x: x,
    "margin": _margin,
    "aligned margin": _aligned,
    "misaligned": _misaligned,
    "transposed": _reversed,
    "channels last": _channels_last,
    "every other row": lambda x: _every_other(x, 0),
    "every other column": lambda x: _every_other(x, -1),
}


class Draw:
    """Seeded tensors of one dtype, layout and device."""

    def __init__(self, dtype=torch.float32, layout="plain", seed=0, device="cpu", positive=False):
        self.dtype, self.layout, self.device, self.positive = dtype, layout, device, positive
        self._source = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        return self._laid(self._randn(shape), self.dtype)

    def sums(self, *shape: int) -> Tensor:
        """Numbers of the dtype that sums are kept in."""
        return self._laid(self._randn(shape), torch.promote_types(self.dtype, torch.float32))

    def weights(self, n: int) -> Tensor:
        """Weights as Eq. 8-9 make them: about half are 0. In the dtype of sums."""
        return self.sums(n).clamp_(min=0)

    def index(self, high: int, *shape: int) -> Tensor:
        return torch.randint(max(high, 1), shape, generator=self._source).to(self.device)

    def _randn(self, shape) -> Tensor:
        x = torch.randn(shape, generator=self._source)
        return x.abs() if self.positive else x

    def _laid(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        return LAYOUTS[self.layout](x.to(self.device, dtype)) if x.ndim else x.to(self.device, dtype)
