"""The ops on the rows of a linear use: r train rows (n examples of t rows), k validation rows, p in, q out."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from bench.cases.case import Case, alive


def gram(a: Tensor, g: Tensor, a_val: Tensor, g_val: Tensor, bias: float) -> Tensor:
    return ((a @ a_val.T + bias) * (g @ g_val.T)).sum(1)


def _through_V(a: Tensor, g: Tensor, a_val: Tensor, g_val: Tensor, bias: float) -> Tensor:
    return (F.linear(a, g_val.T @ a_val, bias * g_val.sum(0)) * g).sum(1)


def gram_dot(r: int, k: int, p: int, q: int, large: bool = False) -> Case:
    return Case(
        sizes=f"r={r} k={k} p={p} q={q}",
        make=lambda draw: (draw(r, p), draw(r, q), draw(k, p), draw(k, q), 1.0),
        eager={"two products": gram, "through V": _through_V},
        flops=2 * r * k * (p + q) + 3 * r * k,
        elements=(r + k) * (p + q),
        results=r,
        terms=k * (p + q),
        large=large,
    )


def _grouped(
    a: list[Tensor], g: list[Tensor], a_val: list[Tensor], g_val: list[Tensor], bias: list[float], n: int
) -> Tensor:
    return sum(gram(*use).view(n, -1).sum(1) for use in zip(a, g, a_val, g_val, bias, strict=True))


def grouped_gram_dot(layers: list[tuple[int, int]], n: int, m: int, large: bool = False) -> Case:
    """Layers (p, q) of one model, one row an example."""
    widths = sum(p + q for p, q in layers)

    def make(draw):
        a, g, a_val, g_val = zip(*((draw(n, p), draw(n, q), draw(m, p), draw(m, q)) for p, q in layers), strict=True)
        return list(a), list(g), list(a_val), list(g_val), [1.0] * len(layers), n

    return Case(
        sizes=f"n={n} m={m} {len(layers)} layers",
        make=make,
        eager={"layer by layer": _grouped},
        flops=2 * n * m * widths + 3 * n * m * len(layers),
        elements=(n + m) * widths,
        results=n,
        terms=m * widths,
        large=large,
    )


def _linear_dot(a: Tensor, g: Tensor, V: Tensor, v_b: Tensor | None) -> Tensor:
    return (F.linear(a, V, v_b) * g).sum(1)


def project_dot(r: int, p: int, q: int, large: bool = False) -> Case:
    return Case(
        sizes=f"r={r} p={p} q={q}",
        make=lambda draw: (draw(r, p), draw(r, q), draw(q, p), draw(q)),
        eager={"F.linear": _linear_dot},
        flops=2 * r * p * q + 3 * r * q,
        elements=r * (p + q) + (p + 1) * q,
        results=r,
        terms=p + q,
        large=large,
    )


def weighted_product(a: Tensor, g: Tensor, w: Tensor | None) -> tuple[Tensor, Tensor]:
    weighted = g if w is None else g * w.to(g.dtype)[:, None]
    return weighted.T @ a, weighted.sum(0)


def live_rows(a: Tensor, g: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    live = w.nonzero().squeeze(1)
    return weighted_product(a[live], g[live], w[live])


def weighted_outer(r: int, p: int, q: int, weighted: bool = True, large: bool = False) -> Case:
    rows = alive(r) if weighted else r
    return Case(
        sizes=f"r={r} p={p} q={q}" + (", half of w 0" if weighted else ", no w"),
        make=lambda draw: (draw(r, p), draw(r, q), draw.weights(r) if weighted else None),
        eager={"one product": weighted_product} | ({"live rows": live_rows} if weighted else {}),
        flops=2 * rows * p * q + (1 + weighted) * rows * q,
        elements=rows * (p + q),
        results=p * q + q + weighted * r,
        terms=rows,
        large=large,
    )


MLP = [(784, 1024), (1024, 1024), (1024, 1024), (1024, 10)]
LENET = [(400, 120), (120, 84), (84, 10)]
TRANSFORMER = {"qkv": (128, 384), "out": (128, 128), "up": (128, 512), "down": (512, 128)}  # 64 examples x 64 tokens
VIT, GPT2 = {"qkv": (384, 1152), "mlp": (384, 1536)}, {"qkv": (768, 2304), "mlp": (768, 3072)}

ROWS = {
    "gram_dot": {
        # n = 100, m = 10, one row an example
        **{f"mlp {p}-{q}": gram_dot(100, 10, p, q) for p, q in dict.fromkeys(MLP)},
        **{f"lenet {p}-{q}": gram_dot(100, 10, p, q) for p, q in LENET},
        # n = 64, m = 8, 64 tokens: the head sees one row an example, qkv sees all tokens
        "transformer head": gram_dot(64, 8, 128, 2),
        "transformer qkv": gram_dot(64 * 64, 8 * 64, 128, 384),
        # WRN-28-10, n = 128, m = 16: the head, and the 1x1 shortcut into the 16 x 16 stage
        "wrn head": gram_dot(128, 16, 640, 10, large=True),
        "wrn shortcut": gram_dot(128 * 256, 16 * 256, 160, 320, large=True),
        # ViT-S, 197 tokens, n = 64, m = 8; GPT-2 small, 1024 tokens, n = 16, m = 2
        **{f"vit {name}": gram_dot(64 * 197, 8 * 197, p, q, large=True) for name, (p, q) in VIT.items()},
        **{f"gpt2 {name}": gram_dot(16 * 1024, 2 * 1024, p, q, large=True) for name, (p, q) in GPT2.items()},
    },
    "grouped_gram_dot": {
        "mlp": grouped_gram_dot(MLP, 100, 10),
        "lenet": grouped_gram_dot(LENET, 100, 10),
        "16 of 128-128": grouped_gram_dot([(128, 128)] * 16, 128, 16),
        "64 of 256-256": grouped_gram_dot([(256, 256)] * 64, 128, 16, large=True),
    },
    "project_dot": {
        **{f"transformer {name}": project_dot(64 * 64, p, q) for name, (p, q) in TRANSFORMER.items()},
        "mlp 1024-1024": project_dot(100, 1024, 1024),
        **{f"vit {name}": project_dot(64 * 197, p, q, large=True) for name, (p, q) in VIT.items()},
        **{f"gpt2 {name}": project_dot(16 * 1024, p, q, large=True) for name, (p, q) in GPT2.items()},
    },
    "weighted_outer": {
        **{f"mlp {p}-{q}": weighted_outer(100, p, q) for p, q in dict.fromkeys(MLP)},
        **{f"lenet {p}-{q}": weighted_outer(100, p, q) for p, q in LENET},
        **{f"transformer {name}": weighted_outer(64 * 64, p, q) for name, (p, q) in TRANSFORMER.items()},
        "mlp 784-1024, V": weighted_outer(10, 784, 1024, weighted=False),
        "transformer qkv, V": weighted_outer(8 * 64, 128, 384, weighted=False),
        **{f"vit {name}": weighted_outer(64 * 197, p, q, large=True) for name, (p, q) in VIT.items()},
        **{f"gpt2 {name}": weighted_outer(16 * 1024, p, q, large=True) for name, (p, q) in GPT2.items()},
    },
}
