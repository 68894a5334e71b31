"""The cost of the two forms of a product of rows, by which one is chosen.

gram      sum_k (a_r . a_k + 1)(g_r . g_k)         2 r k (p + q) FLOPs, forms no V
project   g_r . (V a_r + v_b)                      2 r p q FLOPs, and 2 k p q for V
"""

from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Machine:
    """Constants, so that a form never changes between runs: fitted to the times of 17 shapes, from (64, 8, 128, 2) to
    (2048, 256, 1024, 1024), where they choose the faster form or one within a fifth of it."""

    flops: float  # of a matrix product, per second
    bytes: float  # of the project form's passes over rows and V, per second
    gram_flops: float  # of the fused gram form, per second
    pair: float  # seconds per pair of rows besides its FLOPs

    def gram(self, r: int, k: int, p: int, q: int) -> float:
        """Seconds of the gram form."""
        return r * k * (2 * (p + q) / self.gram_flops + self.pair)

    def project(self, r: int, k: int, p: int, q: int) -> float:
        """Seconds of the project form, V included."""
        moved = 4 * ((r + k) * (p + 3 * q) + 3 * p * q)
        return max(2 * (r + k) * p * q / self.flops, moved / self.bytes)


MACHINES = {
    "cpu": Machine(210e9, 12e9, 300e9, 2.5e-9),  # two cores with AVX-512
    "cuda": Machine(50e12, 3e12, 20e12, 1e-12),  # from the data sheet of an H100, not measured
}


@lru_cache(4096)
def seconds(device: str, r: int, k: int, p: int, q: int) -> tuple[float, float]:
    """Of the gram form and of the project form, on this type of device."""
    machine = MACHINES.get(device, MACHINES["cuda"])
    return machine.gram(r, k, p, q), machine.project(r, k, p, q)
