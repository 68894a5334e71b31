"""The reweighted step for a training loop: `Reweighter.backward` adds sum_i w_i grad f_i to `.grad`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fastrw.api.backward import untraced
from fastrw.api.capture import Graphs, plain, repeatable, reweighted
from fastrw.api.compiled import backend_of
from fastrw.api.evaluate import assemble, evaluate, validation_gradient
from fastrw.api.nonfinite import finite_gradient
from fastrw.api.options import Options, check, scaling_of
from fastrw.api.problem import Problem, selection
from fastrw.api.timeline import Timeline
from fastrw.engine.later import AllFinite
from fastrw.engine.ordinary import accumulate, backward, leaves_of, pass_on
from fastrw.engine.per_example import METHODS
from fastrw.engine.report import Step
from fastrw.engine.request import Mark
from fastrw.engine.weights import NORMALIZERS
from fastrw.errors import ForThisBatch, UntracedUse
from fastrw.nodes.base import Products
from fastrw.state.snapshot import State
from fastrw.state.structure import Structure


class Reweighter:
    """The step of Ren et al. 2018 (Algorithm 1) from one pass:

        w_i = max(s_i, 0) / (sum_k max(s_k, 0) + delta),   s_i = grad f^v(theta) . grad f_i(theta)       (Eq. 7-9)
        .grad += sum_i w_i grad f_i(theta)

        step = fastrw.Reweighter(model)
        for batch, val_batch in zip(loader, fastrw.data.cycle(clean_loader)):
            optimizer.zero_grad()
            out = step.backward(batch, val_batch)
            optimizer.step()

    Any optimizer may follow. The scores are of first order, as in the paper: the change of f^v in an infinitesimal step
    of plain gradient descent from theta. They do not include momentum, Adam's scaling or weight decay.

    Args:
        model, loss_fn, losses_fn, params, method, backend, normalize, score_dtype: as in `meta_weights`. Gradients go
            to every parameter that requires grad, even if `params` selects only some for the scores.
        update: "assembled": the weighted gradient is assembled layer by layer with the scores, without a second
            backward. "backward": the scores, then an ordinary backward of the weighted losses: little memory, any
            model. "auto": assembled where it is exact.
        every: the weights are computed in every k-th call, starting with the first. The calls between are plain steps
            (w_i = 1/n, the validation batch is not used): Algorithm 1 in one step of k, ordinary averaging in the
            others. Weights are never carried over to other examples.
        scaler: a `torch.amp.GradScaler`: gradients are scaled by its factor, as `scaler.step` expects.
        recheck: compare one score with the gradient of its example in the 1st, 2nd, 4th, 8th ... step with a graph of
            the same structure; False: in the first only.
        timeline: also measure the time of each phase (waits for the GPU after each).
        capture: on a GPU, repeat the whole step as one CUDA graph, with any `update` and, by cut, any `method`. For
            batches of fixed shapes and models that draw no random numbers, change nothing but tensors in place, and
            whose Python code does the same in every call: it is not run again. The first steps of each shape run
            eagerly, and so does one whose numbers the graph cannot serve (below: where a step waits for a number, so
            does a captured one, and is undone where that says no). A graph holds the memory of a step. The batches may
            be on the device or in pinned memory.

        compile: True: the whole step (forward, scores, weights, weighted gradient) is one graph, compiled by
            torch.compile's "inductor"; or the name of another of its backends, or one itself. False: it runs eagerly.
            "auto": it is compiled as the model is, by `torch.compile(model)` or `model.compile()`, else not. The first
            step of a kind runs eagerly; in the 2nd, 4th, 8th ... compiled one, unless `recheck` is False, the eager
            step is made too, checked and compared. What torch.compile cannot trace as a whole, and every step that is
            unlike those before it, runs eagerly: `Step.compilation` says if, and why. At most 8 kinds and shapes of
            batches are compiled. Where a model draws random numbers (dropout), the training forward draws first, the
            validation forward after it.
        mode, dynamic, options: of torch.compile, with `compile`. mode="reduce-overhead" repeats CUDA graphs. Each shape
            is compiled by itself; `dynamic` only makes that quicker.

    An example whose loss or gradient is not finite gets weight 0 and adds nothing. If a validation example is not
    finite, all weights are 0 and nothing is added (see `val_loss`).

    A step launches its work on a GPU and returns. It waits in the 1st, 2nd, 4th, 8th ... step, which is checked; in the
    others at most for a number on which depends what is done, asked for when all else has been launched: are all scores
    finite, where the weighted gradient comes from an ordinary backward, or through what mixes examples (BatchNorm) or
    makes parameters (weight_norm); are gradients still 0 that were 0 everywhere (a gate of 0). Where a model picks
    elements by index, the backward waits for the indices: what was learned is valid for these alone.

    Nothing changes except `.grad` and what one ordinary training forward changes (running statistics, random states);
    the validation batch changes nothing. A call that raises leaves everything as it was.
    """

    def __init__(
        self, model: nn.Module, *, loss_fn: Callable | None = None, losses_fn: Callable | None = None,
        params: Any = None, method: str = "auto", backend: str = "auto", normalize: str | None = "rectify",
        score_dtype: torch.dtype | None = None, update: str = "auto", every: int = 1, scaler: Any = None,
        recheck: bool = True, timeline: bool = False, capture: bool = False,
        compile: bool | str | Callable = "auto", mode: str | None = None, dynamic: bool | None = None,
        options: dict[str, Any] | None = None,
    ):  # fmt: skip
        check("Reweighter", method=method, backend=backend, score_dtype=score_dtype, normalize=normalize, update=update)
        if capture and (timeline or method in METHODS):
            raise ValueError(
                "fastrw.Reweighter: capture=True repeats a step of one backward, whole, got "
                f"method={method!r}, timeline={timeline!r}"
            )
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ValueError(f"fastrw.Reweighter: every must be an integer of 1 or more, got {every!r}")
        if not isinstance(model, nn.Module):
            raise TypeError(f"fastrw.Reweighter: model must be a torch.nn.Module, got {type(model).__name__}")
        chosen = _chosen(model, compile, capture or timeline or method in METHODS)
        if chosen is False and not (mode is dynamic is options is None):
            rule = "fastrw.Reweighter: mode, dynamic and options are for compile=True"
            raise ValueError(f"{rule}, got {mode!r}, {dynamic!r} and {options!r}")
        if compile == "auto" and not (mode is options is None):
            chosen = True  # in place of those that the model is compiled with
        self.model = model
        self.steps = 0  # calls of `backward` that succeeded
        losses = {"loss_fn": loss_fn, "losses_fn": losses_fn}
        self._arguments = {**losses, "params": selection(params), "caller": "Reweighter"}
        self._structure: Structure | None = None  # of the model in the last call
        self._graphs = Graphs() if capture else None
        self._options = Options(method, Products(backend, score_dtype), NORMALIZERS[normalize], update,
                                recheck=recheck)  # fmt: skip
        self._every, self._scaler, self._timed = every, scaler, timeline
        self._compiled = None
        if chosen is not False:
            from fastrw.api.compile import compiled_steps  # imports much of torch

            self._compiled = compiled_steps(chosen, mode, dynamic, options)

    @untraced
    def backward(self, batch: Any, val_batch: Any, *, scale: float = 1.0) -> Step:
        """Adds scale * sum_i w_i grad f_i to `.grad`.

        Args:
            batch, val_batch: as in `meta_weights`.
            scale: 1/k, if one step has k micro-batches.
        Returns:
            Step: weights, losses, scores, validation loss, method, peak memory and, on request, a timeline. Tensors
            stay on their device.
        Raises:
            TypeError, ValueError, Refused: as `meta_weights`.
        """
        check("Reweighter", method="auto", backend="auto", score_dtype=None, scale=scale)
        is_plain = self.steps % self._every != 0
        problem = self._problem(batch, batch if is_plain else val_batch)
        scaling = scaling_of(self._scaler, next(iter(problem.params.values())).device)
        options = replace(self._options, scaling=scaling, scale=float(scale))
        with torch.enable_grad():
            out = self._repeated(problem, options, is_plain)
            if out is None:
                out = self._plain(problem, options) if is_plain else self._step(problem, options)
        self.steps += 1
        return out

    @untraced
    def weights(self, batch: Any, val_batch: Any) -> Tensor:
        """w [n] only, for a loop with its own forward and backward: see `meta_weights`. No state changes."""
        problem = self._problem(batch, val_batch)
        state = problem.state()
        try:
            found = evaluate(problem, state, self._options)[0].weights
        except BaseException:
            state.undo()
            raise
        state.rewind()
        return found

    def state_dict(self) -> dict[str, int]:
        """What a resumed run needs: the number of steps so far (for `every`)."""
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from `state_dict()`."""
        steps = state.get("steps") if isinstance(state, dict) else None
        if not isinstance(steps, int) or steps < 0:
            raise ValueError(f"fastrw.Reweighter: a state must hold its number of steps, got {state!r}")
        self.steps = steps

    def _repeated(self, problem: Problem, options: Options, is_plain: bool) -> Step | None:
        """The step by its CUDA graph; None if it has to run eagerly."""
        if self._graphs is None:
            return None
        if self._by_backward(problem, options):
            options = replace(options, update="backward")
        elif options.update == "assembled":
            options = replace(options, method="layerwise")
        return self._graphs.step(problem, options, plain if is_plain else reweighted)

    def _by_backward(self, problem: Problem, options: Options) -> bool:
        hooked = any(p._post_accumulate_grad_hooks for p in problem.structure.parameters.values())
        return options.update == "backward" or (hooked and options.update != "assembled")

    def _allow(self, state: State, problem: Problem, method: str) -> None:
        """Raises Refused, before anything is added, where such a step cannot be captured."""
        if self._graphs:
            repeatable(state, problem, method, () if self.steps else None)

    def _problem(self, batch: Any, val_batch: Any) -> Problem:
        problem = Problem(self.model, batch, val_batch, known=self._structure, **self._arguments)
        self._structure = problem.structure
        return problem

    def _step(self, problem: Problem, options: Options) -> Step:
        timeline = Timeline(problem) if self._timed else None
        state = problem.state()
        try:
            args = problem, state, options, timeline.mark if timeline else lambda phase: None

            def eager() -> Step:
                return self._assembled(*args) or self._backward(*args)

            out = self._compiled.step(problem, state, options, eager) if self._compiled else eager()
        except BaseException:
            state.undo()
            raise
        out.timeline = timeline.phases if timeline else None
        return out

    def _assembled(self, problem: Problem, state: State, options: Options, mark: Mark) -> Step | None:
        """None if the weighted gradient has to come from an ordinary backward."""
        if self._by_backward(problem, options):
            return None
        if options.update == "assembled":
            options = replace(options, method="layerwise")
        try:
            found = assemble(problem, state, options, mark)
        except (ForThisBatch, UntracedUse):
            if options.update == "assembled":
                raise
            state.rewind()
            return None
        self._allow(state, problem, found.answer.method)
        accumulate(found.answer.gradients)
        return found.answer.step(found.losses, found.val_loss)

    def _backward(self, problem: Problem, state: State, options: Options, mark: Mark) -> Step:
        V = validation_gradient(problem, state, options.scaling)
        answer, losses = evaluate(problem, state, options, keep_graph=True, V=V)
        out = answer.step(losses.detach(), problem.val_loss)
        self._allow(state, problem, out.method)
        mark("scores")
        w, finite = out.weights, AllFinite(answer.scores)
        total = (w.to(losses.dtype) * losses).masked_fill_(w == 0, 0).sum()
        if not self._accumulate(total, options, wanted=finite.__bool__):
            if bool(w.any()):
                losses = losses.detach()  # its graph is not needed any more
                pass_on(finite_gradient(problem, state, options, answer, losses, V))
            else:
                pass_on([(leaf, torch.zeros_like(leaf)) for leaf in leaves_of(losses)])
        mark("backward")
        return out

    def _plain(self, problem: Problem, options: Options) -> Step:
        state = problem.state()

        def eager() -> Step:
            return self._averaged(problem, state, options)

        try:
            return self._compiled.plain(problem, state, options, eager) if self._compiled else eager()
        except BaseException:
            state.undo()
            raise

    def _averaged(self, problem: Problem, state: State, options: Options) -> Step:
        losses = problem.losses(problem.batch)
        self._allow(state, problem, "plain")
        self._accumulate(losses.mean(), options)
        return Step.plain(losses.detach())

    def _accumulate(self, total: Tensor, options: Options, wanted: Callable[[], bool] = lambda: True) -> bool:
        """An ordinary backward."""
        total = total * options.scale if options.scale != 1 else total
        return backward(total if self._scaler is None else self._scaler.scale(total), wanted)


def _chosen(model: nn.Module, compile: Any, impossible: bool) -> Any:
    """How steps are compiled; False: not. "auto": as the model is."""
    if isinstance(compile, str) and compile == "auto":
        found = None if impossible else backend_of(model)
        return False if found is None else found
    if compile is not False and impossible:
        raise ValueError(
            "fastrw.Reweighter: a compiled step is one graph, without capture, timeline or one backward per example, "
            f"got compile={compile!r} with one of them"
        )
    return compile
