"""What each op computes, in a few lines of torch: the spec that every backend is tested against.

Arguments are those of the op's public function, where a shape stands beside each; its docstring has the equation. Any
floating dtype on any device; sums are kept in float32, in float64 for float64. Autocast does not reach them.
"""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor


def _wide(spec: Callable) -> Callable:
    """Hand the spec its tensors in the dtype that its sums are kept in."""

    def widen(x):
        if isinstance(x, list):
            return [widen(t) for t in x]
        return x.float() if isinstance(x, Tensor) and x.dtype in (torch.bfloat16, torch.float16) else x

    @functools.wraps(spec)
    def run(*args, **options):
        first = args[0][0] if isinstance(args[0], list) else args[0]
        with torch.autocast(first.device.type, enabled=False):
            return spec(*map(widen, args), **{name: widen(x) for name, x in options.items()})

    return run


# ---- rows: a linear use


@_wide
def gram_dot(a, g, a_val, g_val, bias=1.0) -> Tensor:
    """s_r = sum_k (a_r . a_k + bias)(g_r . g_k)"""
    return ((a @ a_val.mT + bias) * (g @ g_val.mT)).sum(1)


@_wide
def grouped_gram_dot(a, g, a_val, g_val, bias, n) -> Tensor:
    """s_i = sum_uses sum_{r of example i} s_r; the rows of an example are adjacent."""
    uses = zip(a, g, a_val, g_val, bias, strict=True)
    return sum(gram_dot(*use).reshape(n, len(use[0]) // max(n, 1)).sum(1) for use in uses)


@_wide
def joint_gram_dot(a, g, bias, n, m) -> Tensor:
    """`grouped_gram_dot`, of the rows of n examples, then those of m."""
    ends = [len(x) // max(n + m, 1) * n for x in a]
    train, val = (
        [[x[rows] for x, rows in zip(side, some, strict=True)] for side in (a, g)]
        for some in ([slice(end) for end in ends], [slice(end, None) for end in ends])
    )
    return grouped_gram_dot(*train, *val, bias, n)


@_wide
def project_dot(a, g, V, v_b=None) -> Tensor:
    """s_r = g_r . (V a_r + v_b)"""
    return (g * (a @ V.mT if v_b is None else a @ V.mT + v_b)).sum(1)


@_wide
def weighted_outer(a, g, w=None) -> tuple[Tensor, Tensor]:
    """W = sum_r w_r g_r a_r^T and b = sum_r w_r g_r"""
    if w is not None:
        w, a, g = _weighed(w, a, g)
        g = g * w[:, None]
    return g.mT @ a, g.sum(0)


@_wide
def grouped_weighted_outer(a, g, w) -> tuple[Tensor, ...]:
    """W and b of each use: all W, then all b; the rows of an example are adjacent."""
    each = [weighted_outer(x, y, w.repeat_interleave(len(x) // max(len(w), 1))) for x, y in zip(a, g, strict=True)]
    return tuple(M for side in zip(*each, strict=True) for M in side)


# ---- convolutions


@_wide
def conv_dot(x, g, V, v_b, stride, padding, dilation, groups) -> Tensor:
    """s_i = <g_i, conv(x, V)_i + v_b>"""
    return (_conv(x, V, v_b, stride, padding, dilation, groups) * g).flatten(1).sum(1)


@_wide
def conv_outer(x, g, w, kernel, stride, padding, dilation, groups) -> Tensor:
    """sum_i w_i G_i, G_i the weight gradient of example i"""
    if w is not None:
        w, x, g = _weighed(w, x, g)
        g = g * w.view(-1, *[1] * (g.ndim - 1))
    return _weight_gradient(x, g, kernel, stride, padding, dilation, groups)


@_wide
def conv_instance(x, g, n, V, kernel, stride, padding, dilation, groups) -> tuple[Tensor, Tensor, Tensor]:
    """G_i of examples i < n, s_i = <G_i, V> and V = sum_{j >= n} G_j unless it is given: s, G (any strides), V"""
    options = (kernel, stride, padding, dilation, groups)
    V = _weight_gradient(x[n:], g[n:], *options) if V is None else V.clone()
    G = conv_gradients(x[:n], g[:n], *options)
    return (G * V).flatten(1).sum(1), G, V


@_wide
def conv_gradients(x, g, kernel, stride, padding, dilation, groups) -> Tensor:
    """G_i of each example, of any strides"""
    n, O, options = len(x), g.shape[1], (kernel, stride, padding, dilation)
    if n == 0:
        return x.new_zeros(0, O, x.shape[1] // groups, *kernel)
    x, g = (t.reshape(1, -1, *t.shape[2:]) for t in (x, g))  # examples are groups of one convolution
    return _weight_gradient(x, g, *options, n * groups).unflatten(0, (n, O))


@_wide
def conv_tangent(x, V, v_b, t, W, y, stride, padding, dilation, groups) -> tuple[Tensor, Tensor]:
    """t_y = conv(x, V) + v_b + conv(t, W), and sums over examples and positions: t_y, (sum t_y, sum t_y y)"""
    t_y = _conv(x, V, v_b, stride, padding, dilation, groups)
    if t is not None:
        t_y = t_y + _conv(t, W, None, stride, padding, dilation, groups)
    over = [0, *range(2, y.ndim)]
    return t_y, torch.stack([t_y.sum(over), (t_y * y).sum(over)])


@_wide
def combine(G, w) -> Tensor:
    """sum_i w_i G_i"""
    w, G = _weighed(w, G)
    return torch.einsum("n...,n->...", G, w)


@_wide
def grouped_combine(G, w) -> tuple[Tensor, ...]:
    """sum_i w_i G_i of each use, as columns of one matrix"""
    shapes = [t.shape[1:] for t in G]
    rows = torch.cat([t.reshape(len(t), shape.numel()) for t, shape in zip(G, shapes, strict=True)], 1)
    sums = combine(rows, w).split([shape.numel() for shape in shapes])
    return tuple(t.view(shape) for t, shape in zip(sums, shapes, strict=True))


# ---- norms


@_wide
def norm_dot(x, g, mean, rstd, V_gamma, V_beta) -> Tensor:
    """s_i = sum_S sum_C g (x_hat V_gamma + V_beta), x_hat = (x - mean) rstd"""
    s = 0 if V_gamma is None else torch.einsum("nsc,nsc,c->n", g, _normalized(x, mean, rstd), V_gamma)
    return s if V_beta is None else s + torch.einsum("nsc,c->n", g, V_beta)


@_wide
def norm_instance(x, g, mean, rstd) -> tuple[Tensor, Tensor]:
    """The gradients of gamma and beta of each example: sum_S g x_hat and sum_S g"""
    return (g * _normalized(x, mean, rstd)).sum(1), g.sum(1)


def batch_norm_tangent(x, *rest) -> Tensor:
    """weight rstd (t - mean(t) - x_hat mean(x_hat t)) + d_weight x_hat + d_bias + residual, 0 where output <= 0, in the
    dtype of x"""
    return _batch_norm_tangent(x, *rest).to(x.dtype)


@_wide
def _batch_norm_tangent(x, t, mean, rstd, weight, d_weight, d_bias, residual, output, sums) -> Tensor:
    over, channel = [0, *range(2, x.ndim)], (1, -1, *[1] * (x.ndim - 2))
    slope = torch.zeros_like(rstd) if d_weight is None else d_weight * rstd  # of x, a channel
    shift = torch.zeros_like(rstd) if d_bias is None else d_bias
    if t is not None:
        count = max(x.numel() // max(x.shape[1], 1), 1)
        t_sum, tx_sum = (t.sum(over), (t * x).sum(over)) if sums is None else sums
        scale = rstd if weight is None else rstd * weight
        slope = slope - scale * rstd * rstd * (tx_sum - mean * t_sum) / count
        shift = shift - scale * t_sum / count
    out = torch.addcmul((shift - mean * slope).view(channel), x, slope.view(channel))
    if t is not None:
        out.addcmul_(t, scale.view(channel))
    if residual is not None:
        out = out + residual
    return out if output is None else torch.ops.aten.threshold_backward(out, output, 0)


# ---- the rest


@_wide
def embedding_dot(idx, g, V, padding_idx=-1) -> Tensor:
    """s_r = g_r . V[idx_r], 0 where idx_r is the padding (-1: there is none)"""
    s = torch.einsum("rq,rq->r", g, V[idx])
    return s.masked_fill_(idx == padding_idx, 0)


@_wide
def rectify_normalize(s) -> Tensor:
    """w_i = max(s_i, 0) / (sum_k max(s_k, 0) + delta), delta = 1 where the sum is 0, else 0; not finite counts as 0"""
    w = s.masked_fill(~torch.isfinite(s), 0).clamp(min=0)
    top = w.max() if len(w) else w.sum()  # dividing by the largest first keeps the sum finite
    w = w / top.masked_fill(top == 0, 1)
    total = w.sum()
    return w / total.masked_fill(total == 0, 1)


# ---- what several share


def _weighed(w: Tensor, *tensors: Tensor) -> list[Tensor]:
    """w [n] and tensors [n, ...] such that an example of weight 0 adds nothing, whatever it holds (0 times what is not
    finite is nan). Those examples are left out or, where counting them would wait for a GPU, replaced by 0; where a
    derivative in w may be asked for, they are kept, and only what is not finite is replaced by 0."""
    plain = type(w) is Tensor and not is_functorch_wrapped_tensor(w) and not torch.is_grad_enabled()
    if plain and not any(t.requires_grad for t in (w, *tensors)):
        if w.device.type == "cpu":
            live = w.nonzero().squeeze(1)
            return [t[live] for t in (w, *tensors)]
        dead = w == 0
        return [w, *(t.masked_fill(dead.view(-1, *[1] * (t.ndim - 1)), 0) for t in tensors)]
    finite = torch.stack([t.unsqueeze(-1).flatten(1).isfinite().all(1) for t in tensors]).all(0)
    dead = (w == 0) & ~finite
    return [w, *(t.masked_fill(dead.view(-1, *[1] * (t.ndim - 1)), 0) for t in tensors)]


def _conv(x: Tensor, V: Tensor, v_b: Tensor | None, stride, padding, dilation, groups) -> Tensor:
    convolution = (F.conv1d, F.conv2d, F.conv3d)[x.ndim - 3]
    return convolution(x, V, v_b, tuple(stride), tuple(padding), tuple(dilation), groups)


def _weight_gradient(x: Tensor, g: Tensor, kernel, stride, padding, dilation, groups) -> Tensor:
    """[O, C / groups, *kernel], summed over examples."""
    like = x.new_empty(g.shape[1], x.shape[1] // groups, *kernel)
    options = (list(stride), list(padding), list(dilation), False, [0] * len(kernel), groups)
    return torch.ops.aten.convolution_backward(g, x, like, None, *options, [False, True, False])[1]


def _normalized(x: Tensor, mean: Tensor | None, rstd: Tensor) -> Tensor:
    """x_hat; G groups of C / G adjacent channels."""
    grouped = x.unflatten(2, (rstd.shape[2], -1))
    centred = grouped if mean is None else grouped - mean.unsqueeze(3)
    return (centred * rstd.unsqueeze(3)).flatten(2)
