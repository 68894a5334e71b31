"""The exact methods, and the choice among them: the first that can serve, with the reason why the others did not."""

import warnings
from collections.abc import Callable
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from fastrw.errors import CoupledExamples, ForThisBatch, Refused
from fastrw.isolation import State
from fastrw.methods import double_backward, layerwise, one_pass, per_example, tangent
from fastrw.methods.common import Options, Scored, of_finite
from fastrw.methods.spot_check import gradient_check, spot_check
from fastrw.ops import backends
from fastrw.problem import Problem
from fastrw.timeline import Timeline

METHODS = {
    "layerwise": layerwise.scores,
    "tangent": tangent.scores,
    "double_backward": double_backward.scores,
    "per_example": per_example.scores,
}

# model -> what was learned of it: why a method was refused for good, and which methods the spot check has passed
_learned: WeakKeyDictionary = WeakKeyDictionary()


@torch.enable_grad()
def evaluate(problem: Problem, *, method: str = "auto", backend: str = "auto", score_dtype: torch.dtype | None = None,
             keep_graph: bool = False, scale: Tensor | None = None) -> Scored:  # fmt: skip
    """Scores and losses of the training batch by the named method, or by the first of METHODS that is exact.

    Buffers and random states are left as one training forward leaves them. With `keep_graph` the losses keep their
    graph.
    Raises Refused where the named method (or every method) cannot serve.
    """
    options = Options(backend, score_dtype, keep_graph, scale)
    _require(problem, backend, score_dtype)
    refusals, passed = _known(problem)
    state = State(problem)
    refused = {}
    for name in METHODS if method == "auto" else [method]:
        if method == "auto" and name in refusals:
            refused[name] = refusals[name]
            continue
        try:
            scored = METHODS[name](problem, state, options)
            mark = (name, scored.signature)
            if name != "per_example" and mark not in passed and spot_check(problem, state, scored, name):
                passed.add(mark)
        except Refused as refusal:
            state.rewind()
            if method != "auto":
                raise
            refused[name] = str(refusal)
            if isinstance(refusal, CoupledExamples):
                refusals[name] = str(refusal)
            continue
        if method == "auto" and name == "per_example":
            _say_cost(_learned[problem.model], len(scored.losses), refused)
        scored.method, scored.refused = name, refused
        scored.scores = of_finite(scored.scores, scored.losses)
        if not keep_graph:
            scored.losses = scored.losses.detach()
        return scored
    raise Refused(
        "fastrw.evaluate: some method must be exact for the model, got "
        + "; ".join(f"{k}: {v}" for k, v in refused.items())
    )


def assemble(problem: Problem, state: State, normalize: Callable[[Tensor], Tensor], *, backend: str = "auto",
             score_dtype: torch.dtype | None = None, scale: Tensor | None = None, timeline: Timeline | None = None,
             ) -> one_pass.Assembled:  # fmt: skip
    """Weights and weighted gradient from one pass; raises Refused where they would not be exact, as `evaluate` does.

    What refused it for more than one batch is remembered.
    """
    _require(problem, backend, score_dtype)
    whole = one_pass.check(problem)
    refusals, passed = _known(whole)
    if "one_pass" in refusals:
        kind, text = refusals["one_pass"]
        raise kind(text)
    options = Options(backend, score_dtype, False, scale)
    try:
        found = one_pass.step(
            problem, whole, state, options, normalize, timeline.mark if timeline else lambda phase: None
        )
        known = ("one_pass", found.signature)
        if known not in passed:
            scored = Scored(found.scores, found.losses)
            found.trusted = spot_check(problem, state, scored, "one_pass")
            if found.trusted:
                gradient_check(whole, state, found.weights, found.unscaled_gradients(options), "one_pass")
                passed.add(known)
    except ForThisBatch:
        raise
    except Refused as refusal:
        refusals["one_pass"] = type(refusal), str(refusal)
        raise
    return found


def _known(problem: Problem) -> tuple[dict, set]:
    """What was learned of this question about this model."""
    learned = _learned.setdefault(problem.model, {})
    training = tuple(module.training for module in problem.modules.values())
    key = (problem.key, training, torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda"))
    return learned.setdefault(key, ({}, set()))


def _require(problem: Problem, backend: str, score_dtype: torch.dtype | None) -> None:
    if backend != "auto":
        p = next(iter(problem.params.values()))
        backends.require(backend, p.device, score_dtype or torch.promote_types(p.dtype, torch.float32))


def _say_cost(learned: dict, n: int, refused: dict[str, str]) -> None:
    """Once per model: the last resort is exact, but dear."""
    if not learned.get("told"):
        learned["told"] = True
        reasons = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
        warnings.warn(
            f"fastrw: this model is scored by one backward pass per example ({n} a batch), because {reasons}",
            stacklevel=4,
        )
