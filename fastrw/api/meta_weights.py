"""Example weights, raw scores, and a report of how they were computed."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fastrw.api.backward import untraced
from fastrw.api.evaluate import evaluate
from fastrw.api.options import Options, check
from fastrw.api.problem import Problem
from fastrw.engine.report import Report
from fastrw.engine.weights import NORMALIZERS
from fastrw.nodes.base import Products


@untraced
def meta_weights(
    model: nn.Module, batch: Any, val_batch: Any, *, loss_fn: Callable | None = None, losses_fn: Callable | None = None,
    params: Any = None, method: str = "auto", backend: str = "auto", normalize: str | None = "rectify",
    score_dtype: torch.dtype | None = None, return_report: bool = False,
) -> Tensor | tuple[Tensor, Report]:  # fmt: skip
    """w_i = max(s_i, 0) / (sum_k max(s_k, 0) + delta),  s_i = grad f^v(theta) . grad f_i(theta).

    The weights of Ren et al. 2018 (Eq. 7-9 at epsilon = 0), exact, by a method that supports the model. Use them in an
    ordinary step: `(w * losses).sum().backward()`. The step size of the paper cancels in Eq. 9, so there is none here.

    No state changes: parameters, `.grad`, buffers and random states are as before, also when this raises. The training
    forward starts from the current random state, so its dropout masks are those that your own forward will draw next;
    the validation forward starts from the same state and the same buffers.

    Args:
        model: any `torch.nn.Module`, in the mode (train or eval) in which you train it.
        batch: n training examples: `(inputs, targets)` with inputs a tensor, a tuple (`model(*inputs)`) or a mapping
            (`model(**inputs)`); or a mapping with "labels" (Hugging Face); or anything that `losses_fn` accepts.
        val_batch: m clean examples of the same structure; m need not be n. f^v is the mean of their losses.
        loss_fn: `loss_fn(output, target)` -> [n]. Default: cross-entropy, averaged over the positions of an example,
            targets of -100 left out. For a mapping with "labels", the loss that the model itself computes of each
            example: cross-entropy (also of the next position), squared error or binary cross-entropy; both the values
            and the gradient are compared with the model's own, once per kind of labels. `loss_fn` gets logits and
            labels that are shifted where the model's own loss shifts them.
        losses_fn: `losses_fn(model, batch)` -> [n], in place of `loss_fn`, for everything else.
        params: the parameters whose gradients are compared: None (all that require grad), "last" (the last layer: FSR's
            Theta^meta), names with wildcards, or parameters.
        method: "auto", "layerwise", "tangent", "double_backward" or "per_example".
        backend: "auto", "cpp", "cuda", "triton" or "reference": computes the fused products.
        normalize: "rectify" (Eq. 8-9), "shift" (s - min s + 1/n, Zhang & Pfister 2021), None (raw scores).
        score_dtype: None is exact; torch.bfloat16 or torch.float16 takes the score products in that precision.
        return_report: also return a `Report` (method, refusals, uses, scores, losses, count of scores not finite).
    Returns:
        [n] weights on the losses' device, float32 (float64 where the losses are float64), without a graph; with
        `return_report`, `(weights, report)`. An example whose loss or gradient is not finite has weight 0.
    Raises:
        TypeError, ValueError: an argument is invalid; the text states the rule and what was given.
        Refused (a ValueError): the named method or backend is not exact for this model, or does not support it.
    Source: Ren et al. 2018, Algorithm 1, Eq. 7-9 and Eq. 12.
    """
    check("meta_weights", method=method, backend=backend, score_dtype=score_dtype, normalize=normalize, or_none=True)
    report = _report("meta_weights", model, batch, val_batch, loss_fn, losses_fn, params, method, backend, score_dtype)
    w = NORMALIZERS[normalize](report.scores)
    return (w, report) if return_report else w


@untraced
def gradient_dots(
    model: nn.Module, batch: Any, val_batch: Any, *, loss_fn: Callable | None = None, losses_fn: Callable | None = None,
    params: Any = None, method: str = "auto", backend: str = "auto", score_dtype: torch.dtype | None = None,
    return_report: bool = False,
) -> Tensor | tuple[Tensor, Report]:  # fmt: skip
    """s_i = grad f^v(theta) . grad f_i(theta), raw: the ranking criterion of TracIn, GREATS and In-Run Data Shapley.

    Arguments, guarantees and errors are those of `meta_weights`. f_i is the loss of example i (not divided by n), f^v
    the mean over the validation batch. A score is not finite where its example's loss or gradient is not.

    Returns:
        [n] scores on the losses' device, float32 (float64 where the losses are float64), without a graph.
    Source: Ren et al. 2018, Eq. 7 and Eq. 12.
    """
    report = _report("gradient_dots", model, batch, val_batch, loss_fn, losses_fn, params, method, backend, score_dtype)
    return (report.scores, report) if return_report else report.scores


@untraced
def explain(
    model: nn.Module, batch: Any, val_batch: Any, *, loss_fn: Callable | None = None, losses_fn: Callable | None = None,
    params: Any = None, method: str = "auto", backend: str = "auto", score_dtype: torch.dtype | None = None,
) -> Report:  # fmt: skip
    """How `meta_weights` scores this model: the method; per use its operation, rows, form, backend and why; and which
    methods were refused, and why. `print` it for a table. Arguments, guarantees and errors: see `meta_weights`."""
    return _report("explain", model, batch, val_batch, loss_fn, losses_fn, params, method, backend, score_dtype)


def _report(caller: str, model: nn.Module, batch: Any, val_batch: Any, loss_fn: Callable | None,
            losses_fn: Callable | None, params: Any, method: str, backend: str, score_dtype: torch.dtype | None,
            ) -> Report:  # fmt: skip
    check(caller, method=method, backend=backend, score_dtype=score_dtype)
    problem = Problem(model, batch, val_batch, loss_fn=loss_fn, losses_fn=losses_fn, params=params, caller=caller)
    state = problem.state()
    try:
        answer, losses = evaluate(problem, state, Options(method, Products(backend, score_dtype)))
    except BaseException:
        state.undo()
        raise
    state.rewind()
    return Report(answer.method, answer.scores, losses, answer.refused, answer.account())
