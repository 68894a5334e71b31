"""The user's words: example weights, raw scores, and the account of how they were found."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fastrw.api.evaluate import METHODS, evaluate
from fastrw.api.problem import Problem
from fastrw.engine.report import Report
from fastrw.engine.weights import NORMALIZERS
from fastrw.state.snapshot import State

BACKENDS = ("auto", "reference", "cpp", "cuda", "triton")


def meta_weights(
    model: nn.Module, batch: Any, val_batch: Any, *, loss_fn: Callable | None = None, losses_fn: Callable | None = None,
    params: Any = None, method: str = "auto", backend: str = "auto", normalize: str | None = "rectify",
    score_dtype: torch.dtype | None = None, return_report: bool = False,
) -> Tensor | tuple[Tensor, Report]:  # fmt: skip
    """w_i = max(s_i, 0) / (sum_k max(s_k, 0) + delta),  s_i = grad f^v(theta) . grad f_i(theta).

    The weights of Ren et al. 2018 (Eq. 7-9 at epsilon = 0), exact by whichever method serves the model. Use them in an
    ordinary step: `(w * losses).sum().backward()`. The step size of the paper cancels in Eq. 9, so there is none here.

    Nothing moves: parameters, `.grad`, buffers and random states are as before, also when this raises. The training
    forward starts from the current random state, so dropout masks are those that your own forward will draw next; the
    validation forward starts from the same state and the same buffers.

    Args:
        model: any `torch.nn.Module`, in the mode (train or eval) that you train it in.
        batch: n training examples: `(inputs, targets)` with inputs a tensor, a tuple (`model(*inputs)`) or a mapping
            (`model(**inputs)`); or a mapping with "labels" (Hugging Face); or anything `losses_fn` takes.
        val_batch: m clean examples of the same structure; m need not be n. f^v is the mean of their losses.
        loss_fn: `loss_fn(output, target)` -> [n]. Default: cross-entropy, averaged over the positions of an example,
            targets of -100 left out.
        losses_fn: `losses_fn(model, batch)` -> [n], in place of `loss_fn`, for everything else.
        params: whose gradients are compared: None (all that require grad), "last" (the last layer: FSR's Theta^meta),
            names with wildcards, or parameters.
        method: "auto", "layerwise", "tangent", "double_backward" or "per_example".
        backend: "auto", "cpp", "cuda", "triton" or "reference": who computes the fused products.
        normalize: "rectify" (Eq. 8-9), "shift" (s - min s + 1/n, Zhang & Pfister 2021), None (raw scores).
        score_dtype: None is exact; torch.bfloat16 or torch.float16 takes the score products in that precision.
        return_report: also return a `Report` (method, refusals, uses, scores, losses, count of scores not finite).
    Returns:
        [n] weights on the losses' device, float32 (float64 where the losses are float64), without a graph; with
        `return_report`, `(weights, report)`. An example whose loss or gradient is not finite has weight 0.
    Raises:
        TypeError, ValueError: a rule is broken; the text says the rule and what was got.
        Refused (a ValueError): the named method or backend cannot serve this model exactly.
    Source: Ren et al. 2018, Algorithm 1, Eq. 7-9 and Eq. 12.
    """
    if normalize not in NORMALIZERS:
        raise ValueError(f'fastrw.meta_weights: normalize must be "rectify", "shift" or None, got {normalize!r}')
    report = _report("meta_weights", model, batch, val_batch, loss_fn, losses_fn, params, method, backend, score_dtype)
    w = NORMALIZERS[normalize](report.scores)
    return (w, report) if return_report else w


def gradient_dots(
    model: nn.Module, batch: Any, val_batch: Any, *, loss_fn: Callable | None = None, losses_fn: Callable | None = None,
    params: Any = None, method: str = "auto", backend: str = "auto", score_dtype: torch.dtype | None = None,
    return_report: bool = False,
) -> Tensor | tuple[Tensor, Report]:  # fmt: skip
    """s_i = grad f^v(theta) . grad f_i(theta), raw: what TracIn, GREATS and In-Run Data Shapley rank by.

    Arguments, guarantees and errors are those of `meta_weights`. f_i is the loss of example i (not divided by n), f^v
    the mean over the validation batch. A score is not finite where its example's loss or gradient is not.

    Returns:
        [n] scores on the losses' device, float32 (float64 where the losses are float64), without a graph.
    Source: Ren et al. 2018, Eq. 7 and Eq. 12.
    """
    report = _report("gradient_dots", model, batch, val_batch, loss_fn, losses_fn, params, method, backend, score_dtype)
    return (report.scores, report) if return_report else report.scores


def explain(
    model: nn.Module, batch: Any, val_batch: Any, *, loss_fn: Callable | None = None, losses_fn: Callable | None = None,
    params: Any = None, method: str = "auto", backend: str = "auto", score_dtype: torch.dtype | None = None,
) -> Report:  # fmt: skip
    """How `meta_weights` would score this model: the method, and per use its operation, rows, form, backend and why;
    what was refused, and why. `print` it for a table. Arguments, guarantees and errors are those of `meta_weights`."""
    return _report("explain", model, batch, val_batch, loss_fn, losses_fn, params, method, backend, score_dtype)


def _report(caller, model, batch, val_batch, loss_fn, losses_fn, params, method, backend, score_dtype) -> Report:
    check_options(caller, method, backend, score_dtype)
    problem = Problem(model, batch, val_batch, loss_fn=loss_fn, losses_fn=losses_fn, params=params, caller=caller)
    state = State(problem.modules)
    try:
        scored = evaluate(problem, method=method, backend=backend, score_dtype=score_dtype)
    finally:
        state.rewind()
    return Report(scored.method, scored.scores, scored.losses, scored.refused, scored.account())


def check_options(caller: str, method: str, backend: str, score_dtype: torch.dtype | None) -> None:
    """Raises ValueError where a word of the user's is unknown."""
    for word, value, known in (("method", method, ("auto", *METHODS)), ("backend", backend, BACKENDS)):
        if value not in known:
            raise ValueError(f"fastrw.{caller}: {word} must be one of {', '.join(known)}, got {value!r}")
    if score_dtype not in (None, torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"fastrw.{caller}: score_dtype must be None or a float dtype, got {score_dtype!r}")
