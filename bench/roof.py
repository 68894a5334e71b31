"""The ceilings of this machine, measured in the same run as the figures compared with them, and those of an H100."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch.nn import functional as F

from bench import timing

Rates = dict[torch.dtype, float]


def name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@dataclass(frozen=True)
class Roof:
    """Memory bandwidth in B/s; FLOP/s per dtype at best, and of torch.mm alone."""

    bandwidth: float
    flops: Rates
    products: Rates = field(default_factory=dict)
    caches: dict[int, float] = field(default_factory=dict)  # B/s of so many bytes that were used just before

    def floor(self, flops: int, nbytes: int, dtype: torch.dtype) -> float:
        """Seconds below which nothing that does this work can go, its bytes in the cache that holds them."""
        fits = [rate for size, rate in self.caches.items() if size >= nbytes]
        return max(flops / self.flops[dtype], nbytes / max([self.bandwidth, *fits]))

    def as_dict(self) -> dict:
        flops, products = ({name(d): f for d, f in rates.items()} for rates in (self.flops, self.products))
        return {"bandwidth": self.bandwidth, "caches": self.caches, "flops": flops, "products": products}

    def __str__(self) -> str:
        found = [f"memory {self.bandwidth / 1e9:.0f} GB/s"]
        found += [f"{size / 2**20:g} MiB {rate / 1e9:.0f} GB/s" for size, rate in self.caches.items()]
        for dtype, rate in self.flops.items():
            found.append(f"{name(dtype)} {rate / 1e9:.0f} GFLOP/s (torch.mm {self.products[dtype] / 1e9:.0f})")
        return ", ".join(found)


# measured on one; float32 outside the tensor cores by the data sheet
H100 = Roof(3.0e12, {torch.bfloat16: 790e12, torch.float16: 790e12, torch.float32: 67e12})
CACHED = (2**18, 2**20, 2**22, 2**24, 2**25)  # bytes


def measure(
    device: str, dtypes: Sequence[torch.dtype], *, size: int | None = None, rounds: int = 7, caches: bool = False
) -> Roof:
    """Bandwidth by the better of a copy and a triad, FLOP/s by the better of a square product and a convolution.

    A convolution, because on some CPUs torch's library of products does not reach what its other library does.
    """
    size = size or (8192 if timing.on_gpu(device) else 2048)
    products = {dtype: product(device, dtype, size, rounds) for dtype in dtypes}
    best = {dtype: max(rate, convolution(device, dtype, size // 16, rounds)) for dtype, rate in products.items()}
    memory = bandwidth(device, 16 * size * size, rounds)
    warm = {nbytes: bandwidth(device, nbytes // 3, 9 * rounds) for nbytes in CACHED} if caches else {}
    return Roof(memory, best, products, warm)


def bandwidth(device: str, nbytes: int, rounds: int) -> float:
    """B/s of buffers of so many bytes, reads and writes counted."""
    x, y, z = (torch.randn(nbytes // 4, device=device) for _ in range(3))
    runs = {"copy": lambda: z.copy_(x), "triad": lambda: torch.add(x, y, alpha=0.5, out=z)}
    times = timing.interleave(runs, rounds, device)
    return max(2 * nbytes / times["copy"].median, 3 * nbytes / times["triad"].median)


def product(device: str, dtype: torch.dtype, size: int, rounds: int) -> float:
    """FLOP/s of torch.mm on two random size x size matrices."""
    x, y, out = (torch.randn(size, size, device=device).to(dtype) for _ in range(3))
    times = timing.interleave({"product": lambda: torch.mm(x, y, out=out)}, rounds, device)
    return 2 * size**3 / times["product"].median


def convolution(device: str, dtype: torch.dtype, channels: int, rounds: int) -> float:
    """FLOP/s of a 3 x 3 convolution of 16 random 56 x 56 images, channels last."""
    shapes = (16, channels, 56, 56), (channels, channels, 3, 3)
    x, weight = (torch.randn(s, device=device).to(dtype, memory_format=torch.channels_last) for s in shapes)
    times = timing.interleave({"convolution": lambda: F.conv2d(x, weight, padding=1)}, rounds, device)
    return 2 * 16 * 56 * 56 * 9 * channels**2 / times["convolution"].median
