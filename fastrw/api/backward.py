"""The reweighted backward of losses that the caller computed."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from fastrw.api.options import Options, check, scaling_of
from fastrw.engine import run as engine
from fastrw.engine.ordinary import accumulate
from fastrw.engine.report import Step
from fastrw.engine.request import Request
from fastrw.engine.weights import NORMALIZERS
from fastrw.nodes.base import Products

P = ParamSpec("P")
T = TypeVar("T")


def untraced(function: Callable[P, T]) -> Callable[P, T]:
    """torch.compile leaves this function alone. (It is told so at the first call: that imports much of torch.)"""
    found: list[Callable[P, T]] = []

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        if not found:
            if "torch._dynamo" not in sys.modules:
                return function(*args, **kwargs)
            found.append(torch.compiler.disable(function, reason="fastrw reads the graph of autograd"))
        return found[0](*args, **kwargs)

    return call


@untraced
def backward(
    losses: Tensor, val_loss: Tensor, params: Any = None, *, normalize: str = "rectify", scale: float = 1.0,
    scaler: Any = None, update: str = "auto", method: str = "auto", backend: str = "auto",
    score_dtype: torch.dtype | None = None, recheck: bool = True, retain_graph: bool = False,
) -> Step:  # fmt: skip
    """w_i = max(s_i, 0) / (sum_k max(s_k, 0) + delta),  s_i = grad f^v . grad f_i;   .grad += scale * sum_i w_i grad
    f_i

    Replaces `loss.backward()` for losses that any code computed, in any loop:

        losses = F.cross_entropy(model(x), y, reduction="none")            # [n]
        val_loss = F.cross_entropy(model(x_val), y_val)
        out = fastrw.backward(losses, val_loss)
        optimizer.step()

    or with both from one forward of `torch.cat([x, x_val])`: `fastrw.backward(f[:n], f[n:].mean())`, which is fastest.
    Everything is read from the graph that autograd recorded: no forward runs again, so no state changes. Every leaf
    that `(w * losses).sum().backward()` would fill is filled, including parameters of the loss; sparse gradients stay
    sparse. The graph is freed, as in a backward, unless `retain_graph`. Hooks on activations that only watch see the
    gradients of sum_i f_i, and multiples of them when a graph is measured; post-accumulate hooks are called.

    Args:
        losses: [n], f_i, floating point, any device, with a graph.
        val_loss: f^v, 0-d; or [m], which are averaged. With a graph; it may share operations with that of `losses`.
        params: the parameters whose gradients are compared: None (every torch.nn.Parameter in the graph; if there is
            none, every leaf), or tensors that require grad.
        normalize: "rectify" (Eq. 8-9) or "shift" (s - min s + 1/n, Zhang & Pfister 2021).
        scale: a factor on the weighted gradient: 1/k over k micro-batches of one step.
        scaler: a `torch.amp.GradScaler`: gradients are scaled by its factor, as `scaler.step` expects.
        update: "assembled": the weighted gradient from the same backward as the scores. "backward": from an ordinary
            backward of the weighted losses after it, which takes less memory. "auto": assembled where it is cheaper.
        method: "auto" (the lowest cut of the graph), "layerwise", "tangent", "double_backward" or "per_example".
        backend: "auto", "cpp", "cuda", "triton" or "reference": computes the fused products.
        score_dtype: None is exact; torch.bfloat16 or torch.float16 take the score products in that precision.
        recheck: compare one score with the gradient of its example in the 1st, 2nd, 4th, 8th ... call with a graph of
            the same structure; False: in the first only.
        retain_graph: do not free the graph.
    Returns:
        Step: weights [n], losses, scores, val_loss, method, refusals, uses. Tensors stay on their device, without a
        graph; when a GPU is waited for, `Reweighter` tells. An example whose loss or gradient is not finite
        has weight 0 and adds nothing.
    Raises:
        TypeError, ValueError: an argument is invalid; the text states the rule and what was given.
        Refused (a ValueError): no method is exact for the graph: a hook that changes gradients, a node that runs a
            nested backward, compiled code, a sharded parameter. `.grad` is unchanged.
        RuntimeError: that of torch, if the graph was freed, or saved tensors were modified.
    Source: Ren et al. 2018, Algorithm 1, Eq. 7-9 and Eq. 12.
    """
    prefix = "fastrw.backward: "
    check("backward", method=method, backend=backend, score_dtype=score_dtype, normalize=normalize, update=update,
          scale=scale)  # fmt: skip
    selected = None if params is None else _selected(params, prefix)
    losses, val_loss = _checked(losses, val_loss, prefix)
    scaling = scaling_of(scaler, losses.device)
    if update == "assembled" and method == "auto":
        method = "layerwise"
    options = Options(method, Products(backend, score_dtype), NORMALIZERS[normalize], update, scaling, scale, recheck)
    request = Request(losses, val_loss, selected, options, None, retain_graph, not retain_graph, must_reach=True)
    answer = engine.run(request)
    accumulate(answer.gradients)
    return answer.step(losses.detach(), val_loss.detach())


def _checked(losses: Any, val_loss: Any, prefix: str) -> tuple[Tensor, Tensor]:
    for name, t in (("losses", losses), ("val_loss", val_loss)):
        if not isinstance(t, Tensor):
            raise TypeError(f"{prefix}{name} must be a tensor, got {type(t).__name__}")
        if not t.is_floating_point():
            raise TypeError(f"{prefix}{name} must be real floating point, got {t.dtype}")
    if losses.ndim != 1 or not len(losses):
        raise ValueError(f'{prefix}losses must be [n], one per example (reduction="none"), got {tuple(losses.shape)}')
    if val_loss.ndim > 1 or not val_loss.numel():
        raise ValueError(f"{prefix}val_loss must be a scalar or [m], got {tuple(val_loss.shape)}")
    for name, t in (("losses", losses), ("val_loss", val_loss)):
        if t.grad_fn is None:
            raise ValueError(f"{prefix}{name} must have a graph, got a tensor without one")
    with torch.enable_grad():
        return losses, val_loss.mean() if val_loss.ndim else val_loss


def _selected(params: Any, prefix: str) -> set[int]:
    """The ids of the leaves that scores use."""
    params = [params] if isinstance(params, Tensor) else params
    if isinstance(params, nn.Module | str) or not isinstance(params, Iterable):
        raise TypeError(f"{prefix}params must be None or tensors, got {type(params).__name__}")
    found = list(params)
    for p in found:
        if not isinstance(p, Tensor):
            raise TypeError(f"{prefix}params must be tensors, got {type(p).__name__}")
        if not p.requires_grad or not p.is_leaf:
            what = "one that does not require grad" if not p.requires_grad else "the result of an operation"
            raise ValueError(f"{prefix}params must be leaves that require grad, got {what}")
    if not found:
        raise ValueError(f"{prefix}params must select a tensor, got none")
    return {id(p) for p in found}
