"""What each op computes, in a few lines of torch: the spec that every backend is tested against.

Any floating dtype on any device; sums are kept in float32, in float64 for float64. Autocast does not reach them.
Legend: n train examples, m validation examples, r train rows, k validation rows, p in-features, q out-features,
a and x inputs, g output-gradients, V validation gradient, C and O channels, S positions, G groups, w weights.
"""

import functools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor

NARROW = (torch.bfloat16, torch.float16)
Ints = Sequence[int]


def _wide(spec: Callable) -> Callable:
    """Hand the spec its tensors in the dtype that its sums are kept in."""

    def widen(x):
        if isinstance(x, list) and x and isinstance(x[0], Tensor):
            return [widen(t) for t in x]
        return x.float() if isinstance(x, Tensor) and x.dtype in NARROW else x

    @functools.wraps(spec)
    def run(*args, **options):
        first = args[0][0] if isinstance(args[0], list) else args[0]
        with torch.autocast(first.device.type, enabled=False):
            return spec(*map(widen, args), **{name: widen(x) for name, x in options.items()})

    return run


def _like_first(spec: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Hand the result back in the dtype of the first tensor."""

    @functools.wraps(spec)
    def run(*args):
        return spec(*args).to(args[0].dtype)

    return run


# ---- rows: a linear use


@_wide
def gram_dot(a: Tensor, g: Tensor, a_val: Tensor, g_val: Tensor, bias: float = 1.0) -> Tensor:
    """s_r = sum_k (a_r . a_k + bias)(g_r . g_k), Eq. 12 of Ren et al. 2018 for one linear use."""
    return ((a @ a_val.mT + bias) * (g @ g_val.mT)).sum(1)


@_wide
def grouped_gram_dot(
    a: list[Tensor], g: list[Tensor], a_val: list[Tensor], g_val: list[Tensor], bias: list[float], n: int
) -> Tensor:
    """s_i = sum_uses sum_{r of example i} s_r -> [n]; the rows of an example are adjacent."""
    uses = zip(a, g, a_val, g_val, bias, strict=True)
    return sum(gram_dot(*use).reshape(n, len(use[0]) // max(n, 1)).sum(1) for use in uses)


@_wide
def project_dot(a: Tensor, g: Tensor, V: Tensor, v_b: Tensor | None = None) -> Tensor:
    """s_r = g_r . (V a_r + v_b):  a [r, p], g [r, q], V [q, p], v_b [q] -> [r]"""
    return (g * (a @ V.mT if v_b is None else a @ V.mT + v_b)).sum(1)


@_wide
def weighted_outer(a: Tensor, g: Tensor, w: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """W = sum_r w_r g_r a_r^T and b = sum_r w_r g_r:  a [r, p], g [r, q], w [r] (None: ones) -> [q, p], [q]

    A row of weight 0 adds nothing, whatever it holds.
    """
    if w is not None:
        w, a, g = _weighed(w, a, g)
        g = g * w[:, None]
    return g.mT @ a, g.sum(0)


# ---- convolutions: x [n, C, *size], g [n, O, *size out], V [O, C / groups, *kernel]; stride, padding and dilation one
# ---- number a dimension


@_wide
def conv_dot(
    x: Tensor, g: Tensor, V: Tensor, v_b: Tensor | None, stride: Ints, padding: Ints, dilation: Ints, groups: int
) -> Tensor:
    """s_i = <g_i, conv(x, V)_i + v_b> -> [n]"""
    return (_conv(x, V, v_b, stride, padding, dilation, groups) * g).flatten(1).sum(1)


@_wide
def conv_outer(
    x: Tensor, g: Tensor, w: Tensor | None, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, groups: int
) -> Tensor:
    """sum_i w_i G_i, G_i the weight gradient of example i: w [n] (None: ones) -> [O, C / groups, *kernel]

    An example of weight 0 adds nothing, whatever it holds.
    """
    if w is not None:
        w, x, g = _weighed(w, x, g)
        g = g * w.view(-1, *[1] * (g.ndim - 1))
    like = x.new_empty(g.shape[1], x.shape[1] // groups, *kernel)
    options = (list(stride), list(padding), list(dilation), False, [0] * len(kernel), groups)
    return torch.ops.aten.convolution_backward(g, x, like, None, *options, [False, True, False])[1]


@_wide
def conv_instance(
    x: Tensor,
    g: Tensor,
    n: int,
    V: Tensor | None,
    kernel: Ints,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """G_i of examples i < n, s_i = <G_i, V> and V = sum_{j >= n} G_j unless it is given.

    -> s [n], G [n, O, C / groups, *kernel] (any strides), V [O, C / groups, *kernel]
    """
    options = (kernel, stride, padding, dilation, groups)
    V = conv_outer(x[n:], g[n:], None, *options) if V is None else V.clone()
    G = _conv_instances(x[:n], g[:n], *options)
    return (G * V).flatten(1).sum(1), G, V


@_wide
def combine(G: Tensor, w: Tensor) -> Tensor:
    """sum_i w_i G_i: G [n, ...], w [n] -> [...]. An example of weight 0 adds nothing, whatever it holds."""
    w, G = _weighed(w, G)
    return torch.einsum("n...,n->...", G, w)


@_wide
def conv_tangent(
    x: Tensor,
    V: Tensor,
    v_b: Tensor | None,
    t: Tensor | None,
    W: Tensor | None,
    y: Tensor,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
) -> tuple[Tensor, Tensor]:
    """t_y = conv(x, V) + v_b + conv(t, W), the tangent of y = conv(x, W), with the sums over examples and positions
    that a BatchNorm after it needs: -> t_y like y, sums [2, O] = (sum t_y, sum t_y y)"""
    t_y = _conv(x, V, v_b, stride, padding, dilation, groups)
    if t is not None:
        t_y = t_y + _conv(t, W, None, stride, padding, dilation, groups)
    over = [0, *range(2, y.ndim)]
    return t_y, torch.stack([t_y.sum(over), (t_y * y).sum(over)])


# ---- norms: x, g [n, S, C] (a group norm's [n, C, S] transposed), mean and rstd [n, S, G] with G groups of C / G
# ---- adjacent channels, either expanded where they do not vary; mean None: nothing is subtracted (RMS norm)


def _normalized(x: Tensor, mean: Tensor | None, rstd: Tensor) -> Tensor:
    grouped = x.unflatten(2, (rstd.shape[2], -1))
    centred = grouped if mean is None else grouped - mean.unsqueeze(3)
    return (centred * rstd.unsqueeze(3)).flatten(2)


@_wide
def norm_dot(
    x: Tensor, g: Tensor, mean: Tensor | None, rstd: Tensor, V_gamma: Tensor | None, V_beta: Tensor | None
) -> Tensor:
    """s_i = sum_S sum_C g (x_hat V_gamma + V_beta), x_hat = (x - mean) rstd -> [n]"""
    s = 0 if V_gamma is None else torch.einsum("nsc,nsc,c->n", g, _normalized(x, mean, rstd), V_gamma)
    return s if V_beta is None else s + torch.einsum("nsc,c->n", g, V_beta)


@_wide
def norm_instance(x: Tensor, g: Tensor, mean: Tensor | None, rstd: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of gamma and beta of each example: sum_S g x_hat and sum_S g -> [n, C], [n, C]"""
    return (g * _normalized(x, mean, rstd)).sum(1), g.sum(1)


# ---- the rest


@_wide
def embedding_dot(idx: Tensor, g: Tensor, V: Tensor, padding_idx: int = -1) -> Tensor:
    """s_r = g_r . V[idx_r], 0 where idx_r is the padding (-1: there is none):  idx [r], g [r, q], V [v, q] -> [r]"""
    s = torch.einsum("rq,rq->r", g, V[idx])
    return torch.where(idx == padding_idx, 0, s)


@_wide
def rectify_normalize(s: Tensor) -> Tensor:
    """w_i = max(s_i, 0) / (sum_k max(s_k, 0) + delta), delta = 1 where the sum is 0, else 0: Eq. 8-9 of Ren et al.
    2018. A score that is not finite counts as 0."""
    w = torch.where(torch.isfinite(s), s, 0).clamp(min=0)
    top = w.max() if len(w) else w.sum()  # dividing by the largest first keeps the sum finite
    w = w / torch.where(top > 0, top, 1)
    total = w.sum()
    return w / torch.where(total > 0, total, 1)


@_like_first
@_wide
def batch_norm_tangent(
    x: Tensor,
    t: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    d_weight: Tensor | None,
    d_bias: Tensor | None,
    residual: Tensor | None,
    output: Tensor | None,
    sums: Tensor | None,
) -> Tensor:
    """The tangent of BatchNorm in training, of the residual added to it and of the ReLU after both, like x [n, C, ...]:

        weight rstd (t - mean(t) - x_hat mean(x_hat t)) + d_weight x_hat + d_bias + residual    (0 where output <= 0)

    with x_hat = (x - mean) rstd and means over examples and positions. t is the tangent of x (None: 0), d_weight and
    d_bias those of weight and bias [C], residual the tangent of what is added; output that of the ReLU (None: no ReLU).
    sums [2, C], where they are known: sum of t and of t x over examples and positions. Sums of 0 make the statistics
    constants: BatchNorm in evaluation.
    """
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


def _weighed(w: Tensor, *tensors: Tensor) -> list[Tensor]:
    """w [n] and tensors [n, ...] such that an example of weight 0 adds nothing, whatever it holds (0 times what is not
    finite is nan). Those examples are left out; where a derivative in w may be asked for, or counting them would wait
    for a GPU, they are kept, and only what is not finite is replaced by 0."""
    plain = type(w) is Tensor and not is_functorch_wrapped_tensor(w) and not torch.is_grad_enabled()
    if plain and w.device.type == "cpu" and not any(t.requires_grad for t in (w, *tensors)):
        live = w.nonzero().squeeze(1)
        return [t[live] for t in (w, *tensors)]
    finite = torch.stack([t.unsqueeze(-1).flatten(1).isfinite().all(1) for t in tensors]).all(0)
    dead = (w == 0) & ~finite
    return [w, *(torch.where(dead.view(-1, *[1] * (t.ndim - 1)), 0, t) for t in tensors)]


def _conv(x: Tensor, V: Tensor, v_b: Tensor | None, stride: Ints, padding: Ints, dilation: Ints, groups: int) -> Tensor:
    convolution = (F.conv1d, F.conv2d, F.conv3d)[x.ndim - 3]
    return convolution(x, V, v_b, tuple(stride), tuple(padding), tuple(dilation), groups)


def _conv_instances(
    x: Tensor, g: Tensor, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, groups: int
) -> Tensor:
    """The weight gradient of each example, [n, O, C / groups, *kernel]: examples as groups of one convolution."""
    n, O, C = len(x), g.shape[1], x.shape[1]
    if n == 0:
        return x.new_zeros(0, O, C // groups, *kernel)
    like = x.new_empty(n * O, C // groups, *kernel)
    x, g = (t.reshape(1, -1, *t.shape[2:]) for t in (x, g))
    options = (list(stride), list(padding), list(dilation), False, [0] * len(kernel), n * groups)
    _, G, _ = torch.ops.aten.convolution_backward(g, x, like, None, *options, [False, True, False])
    return G.unflatten(0, (n, O))
