"""The ops on the rows of a linear use: r train rows (n examples of t rows), k validation rows, p in, q out."""

from torch import Tensor
from torch.nn import functional as F

from bench.cases.case import Case, alive


def gram(a: Tensor, g: Tensor, a_val: Tensor, g_val: Tensor, bias: float) -> Tensor:
    return ((a @ a_val.T + bias) * (g @ g_val.T)).sum(1)


def _through_V(a: Tensor, g: Tensor, a_val: Tensor, g_val: Tensor, bias: float) -> Tensor:
    return (F.linear(a, g_val.T @ a_val, bias * g_val.sum(0)) * g).sum(1)


def gram_dot(r: int, k: int, p: int, q: int) -> Case:
    return Case(
        sizes=f"r={r} k={k} p={p} q={q}",
        make=lambda draw: (draw(r, p), draw(r, q), draw(k, p), draw(k, q), 1.0),
        eager={"two products": gram, "through V": _through_V},
        flops=2 * r * k * (p + q) + 3 * r * k,
        elements=(r + k) * (p + q),
        results=r,
        terms=k * (p + q),
    )


def _grouped(
    a: list[Tensor], g: list[Tensor], a_val: list[Tensor], g_val: list[Tensor], bias: list[float], n: int
) -> Tensor:
    return sum(gram(*use).view(n, -1).sum(1) for use in zip(a, g, a_val, g_val, bias, strict=True))


def grouped_gram_dot(layers: list[tuple[int, int]], n: int, m: int) -> Case:
    """Layers (p, q) of one model, one row an example."""
    widths = sum(p + q for p, q in layers)

    def make(draw):
        uses = [(draw(n, p), draw(n, q), draw(m, p), draw(m, q)) for p, q in layers]
        return *map(list, zip(*uses, strict=True)), [1.0] * len(layers), n

    return Case(
        sizes=f"n={n} m={m} {len(layers)} layers",
        make=make,
        eager={"layer by layer": _grouped},
        flops=2 * n * m * widths + 3 * n * m * len(layers),
        elements=(n + m) * widths,
        results=n,
        terms=m * widths,
    )


def project_dot(r: int, p: int, q: int) -> Case:
    return Case(
        sizes=f"r={r} p={p} q={q}",
        make=lambda draw: (draw(r, p), draw(r, q), draw(q, p), draw(q)),
        eager={"F.linear": lambda a, g, V, v_b: (F.linear(a, V, v_b) * g).sum(1)},
        flops=2 * r * p * q + 3 * r * q,
        elements=r * (p + q) + (p + 1) * q,
        results=r,
        terms=p + q,
    )


def weighted_product(a: Tensor, g: Tensor, w: Tensor | None) -> tuple[Tensor, Tensor]:
    weighted = g if w is None else g * w.to(g.dtype)[:, None]
    return weighted.T @ a, weighted.sum(0)


def live_rows(a: Tensor, g: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    live = w.nonzero().squeeze(1)
    return weighted_product(a[live], g[live], w[live])


def weighted_outer(r: int, p: int, q: int, weighted: bool = True) -> Case:
    rows = alive(r) if weighted else r
    return Case(
        sizes=f"r={r} p={p} q={q}" + (", half of w 0" if weighted else ", no w"),
        make=lambda draw: (draw(r, p), draw(r, q), draw.weights(r) if weighted else None),
        eager={"one product": weighted_product} | ({"live rows": live_rows} if weighted else {}),
        flops=2 * rows * p * q + (1 + weighted) * rows * q,
        elements=rows * (p + q),
        results=p * q + q + weighted * r,
        terms=rows,
    )


def _outers(a: list[Tensor], g: list[Tensor], w: Tensor) -> tuple[Tensor, ...]:
    each = [(w.to(y.dtype)[:, None] * y) for y in g]
    return *(y.T @ x for x, y in zip(a, each, strict=True)), *(y.sum(0) for y in each)


def joint_gram_dot(layers: list[tuple[int, int]], n: int, m: int) -> Case:
    """Layers (p, q) of one model, one row an example."""
    widths = sum(p + q for p, q in layers)

    def make(draw):
        return [draw(n + m, p) for p, _ in layers], [draw(n + m, q) for _, q in layers], [1.0] * len(layers), n, m

    def eager(a: list[Tensor], g: list[Tensor], bias: list[float], n: int, m: int) -> Tensor:
        return _grouped([x[:n] for x in a], [x[:n] for x in g], [x[n:] for x in a], [x[n:] for x in g], bias, n)

    return Case(
        sizes=f"n={n} m={m} {len(layers)} layers",
        make=make,
        eager={"layer by layer": eager},
        flops=2 * n * m * widths + 3 * n * m * len(layers),
        elements=(n + m) * widths,
        results=n,
        terms=m * widths,
    )


def grouped_weighted_outer(layers: list[tuple[int, int]], n: int) -> Case:
    """Layers (p, q) of one model, one row an example."""
    area = sum(p * q + q for p, q in layers)
    return Case(
        sizes=f"n={n} {len(layers)} layers, half of w 0",
        make=lambda draw: ([draw(n, p) for p, _ in layers], [draw(n, q) for _, q in layers], draw.weights(n)),
        eager={"layer by layer": _outers},
        flops=2 * alive(n) * area,
        elements=alive(n) * sum(p + q for p, q in layers),
        results=area + n,
        terms=alive(n),
    )


MLP = [(784, 1024), (1024, 1024), (1024, 1024), (1024, 10)]
LENET = [(400, 120), (120, 84), (84, 10)]
LINEAR = {  # n, m, t, p, q
    **{f"mlp {p}-{q}": (100, 10, 1, p, q) for p, q in dict.fromkeys(MLP)},
    **{f"lenet {p}-{q}": (100, 10, 1, p, q) for p, q in LENET},
    "transformer qkv": (64, 8, 64, 128, 384),
    "transformer out": (64, 8, 64, 128, 128),
    "transformer up": (64, 8, 64, 128, 512),
    "transformer down": (64, 8, 64, 512, 128),
    "vit qkv": (64, 8, 197, 384, 1152),  # ViT-S
    "vit mlp": (64, 8, 197, 384, 1536),
    "gpt2 qkv": (16, 2, 1024, 768, 2304),  # GPT-2 small
    "gpt2 mlp": (16, 2, 1024, 768, 3072),
}


def layers(*names: str) -> dict[str, tuple[int, int, int, int, int]]:
    """The linear layers whose names begin so."""
    return {name: layer for begin in names for name, layer in LINEAR.items() if name.startswith(begin)}


GRAM = {
    **layers("mlp", "lenet"),
    "transformer head": (64, 8, 1, 128, 2),  # one row an example
    **layers("transformer qkv"),
    "wrn head": (128, 16, 1, 640, 10),
    "wrn shortcut": (128, 16, 16 * 16, 160, 320),  # 1x1, into the 16 x 16 stage
    **layers("vit", "gpt2"),
}
PROJECT = layers("transformer", "mlp 1024-1024", "vit", "gpt2")

ROWS = {
    "gram_dot": {name: gram_dot(n * t, m * t, p, q) for name, (n, m, t, p, q) in GRAM.items()},
    "grouped_gram_dot": {
        "mlp": grouped_gram_dot(MLP, 100, 10),
        "lenet": grouped_gram_dot(LENET, 100, 10),
        "16 of 128-128": grouped_gram_dot([(128, 128)] * 16, 128, 16),
        "64 of 256-256": grouped_gram_dot([(256, 256)] * 64, 128, 16),
    },
    "joint_gram_dot": {"100 of 4-4": joint_gram_dot([(4, 4)] * 100, 8, 2)},
    "project_dot": {name: project_dot(n * t, p, q) for name, (n, _, t, p, q) in PROJECT.items()},
    "weighted_outer": {
        **{name: weighted_outer(n * t, p, q) for name, (n, _, t, p, q) in LINEAR.items()},
        "mlp 784-1024, V": weighted_outer(10, 784, 1024, weighted=False),
        "transformer qkv, V": weighted_outer(8 * 64, 128, 384, weighted=False),
    },
    "grouped_weighted_outer": {
        "100 of 4-4": grouped_weighted_outer([(4, 4)] * 100, 8),
        "50 of 32-32": grouped_weighted_outer([(32, 32)] * 50, 64),
    },
}
