"""The ops of embeddings, of weights and of BatchNorm's tangent."""

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.cases.case import Case


def _gathered(idx: Tensor, g: Tensor, V: Tensor, padding_idx: int) -> Tensor:
    s = (F.embedding(idx, V) * g).sum(1)
    return s if padding_idx < 0 else s.masked_fill(idx == padding_idx, 0)


def embedding_dot(r: int, v: int, q: int, padding_idx: int = -1) -> Case:
    return Case(
        sizes=f"r={r} v={v} q={q}" + (f" padding={padding_idx}" if padding_idx >= 0 else ""),
        make=lambda draw: (draw.indices(r, v), draw(r, q), draw(v, q), padding_idx),
        eager={"F.embedding": _gathered},
        flops=2 * r * q,
        elements=(r + min(r, v)) * q,  # at most so many rows of V are seen
        results=r,
        indices=r,
        terms=q,
    )


def _rectified(s: Tensor) -> Tensor:
    w = s.clamp(min=0)
    return w / w.sum()


def rectify_normalize(n: int) -> Case:
    return Case(
        sizes=f"n={n}",
        make=lambda draw: (draw(n),),
        eager={"clamp, divide": _rectified},
        flops=3 * n,
        elements=n,
        results=n,
        terms=n,
    )


def _finish(out: Tensor, residual: Tensor | None, output: Tensor) -> Tensor:
    return torch.ops.aten.threshold_backward(out if residual is None else out + residual, output, 0)


def _written_out(x, t, mean, rstd, weight, d_weight, d_bias, residual, output, sums) -> Tensor:
    over, count = (0, 2, 3), x.numel() // x.shape[1]
    mean, rstd, weight, d_weight, d_bias = (c.view(1, -1, 1, 1) for c in (mean, rstd, weight, d_weight, d_bias))
    x_hat = (x - mean) * rstd
    out = x_hat * d_weight + d_bias
    if t is not None:
        if sums is None:
            t_mean, turn = t.mean(over, keepdim=True), (x_hat * t).mean(over, keepdim=True)
        else:
            t_mean, tx_mean = (sums.to(x.dtype) / count).view(2, 1, -1, 1, 1)
            turn = (tx_mean - mean * t_mean) * rstd
        out = out + (t - t_mean - x_hat * turn) * (rstd * weight)
    return _finish(out, residual, output)


def _by_backward(x, t, mean, rstd, weight, d_weight, d_bias, residual, output, sums) -> Tensor:
    """BatchNorm's Jacobian is its own transpose but for the weight of a channel, and that is the same for both."""
    backward, wanted = torch.ops.aten.native_batch_norm_backward, [True, False, False]
    out = backward(t, x, weight, None, None, mean, rstd, True, 1e-5, wanted)[0]
    scale = d_weight * rstd
    shift = torch.addcmul(d_bias, mean, scale, value=-1)
    out = out + torch.addcmul(shift.view(1, -1, 1, 1), x, scale.view(1, -1, 1, 1))
    return _finish(out, residual, output)


def batch_norm_tangent(
    n: int, C: int, size: int, *, t: bool = True, residual: bool = False, sums: bool = False
) -> Case:
    shape, elements = (n, C, size, size), n * C * size**2

    def make(draw):
        x, tangent = draw(*shape), draw(*shape) if t else None
        wide = x.float()
        mean, rstd = wide.mean((0, 2, 3)), torch.rsqrt(wide.var((0, 2, 3), correction=0) + 1e-5)
        known = torch.stack([(tangent * y).float().sum((0, 2, 3)) for y in (1, x)]) if sums else None
        affine = draw(C), draw(C), draw(C)
        after = draw(*shape) if residual else None, draw(*shape)
        return x, tangent, mean.to(x.dtype), rstd.to(x.dtype), *affine, *after, known

    parts = {"no t": not t, "residual": residual, "ReLU": True, "sums known": sums}
    return Case(
        sizes=f"n={n} C={C} {size}²: " + ", ".join(part for part, is_there in parts.items() if is_there),
        make=make,
        eager={"written out": _written_out} | ({"batch_norm_backward": _by_backward} if t else {}),
        flops=elements * (4 + (4 + 3 * (not sums)) * t + residual),
        elements=elements * (3 + t + residual) + 5 * C,  # the result is in the dtype of x
        results=2 * C * sums,
        terms=n * size**2,
    )


BLOCKS = {  # n, C, size
    "resnet 16 32²": (100, 16, 32),
    "resnet 32 16²": (100, 32, 16),
    "resnet 64 8²": (100, 64, 8),
    "wrn 160 32²": (128, 160, 32),
}

OTHERS = {
    "batch_norm_tangent": {
        "resnet stem": batch_norm_tangent(100, 16, 32, t=False),
        "resnet 16 32²": batch_norm_tangent(100, 16, 32),
        **{
            f"{name}, add" + ", sums" * sums: batch_norm_tangent(*block, residual=True, sums=sums)
            for name, block in BLOCKS.items()
            for sums in (False, True)
        },
        "wrn 640 8², add": batch_norm_tangent(128, 640, 8, residual=True),
    },
    "embedding_dot": {
        "transformer": embedding_dot(64 * 64, 1000, 128),
        "transformer, padding": embedding_dot(64 * 64, 1000, 128, padding_idx=0),
        "bert": embedding_dot(16 * 128, 30522, 768),
        "gpt2": embedding_dot(16 * 1024, 50257, 768),
    },
    "rectify_normalize": {
        "n 100": rectify_normalize(100),
        "n 4096": rectify_normalize(4096),
        "n 2^20": rectify_normalize(2**20),
    },
}
