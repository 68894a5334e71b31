"""Forward mode: the tangent along V rides on the very forward pass that autograd records. Exact also where examples
meet (BatchNorm in training, in-batch losses), at about (5 + 3 m/n)/3 of a plain step with the weighted backward."""

from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from fastrw import graph
from fastrw.calls import Call, RandomState, function_name, outputs_of
from fastrw.errors import UntracedUse
from fastrw.isolation import State
from fastrw.methods.common import Options, Scored, as_score, validation_gradient
from fastrw.problem import Problem
from fastrw.rules.generic import jvp
from fastrw.rules.tangents import TANGENT_RULES
from fastrw.tape import Recorder


@dataclass(slots=True)
class _Carried:
    """A tensor, its version when its tangent was found, and the tangent."""

    tensor: Tensor
    version: int
    tangent: Tensor


class Tangents(Recorder):
    """Carries tangents from the parameters' directions to every tensor that autograd would reach."""

    def __init__(self, directions: dict[Tensor, Tensor]):
        super().__init__()
        self._carried = {id(p): _Carried(p, p._version, v) for p, v in directions.items()}

    def of(self, t: Tensor) -> Tensor | None:
        entry = self._carried.get(id(t))
        if entry is None:
            return None
        if entry.version != t._version:
            raise UntracedUse("fastrw.tangent: a tensor was changed in place through another view of it")
        return entry.tangent

    def concerns(self, tensors):
        return any(id(t) in self._carried for t in tensors)

    def pass_by(self, function, args, kwargs, tensors):
        return function(*args, **kwargs)

    def record(self, function, args, kwargs, tensors):
        if not torch.is_grad_enabled():  # autograd takes what comes out for a constant, and so do we
            return function(*args, **kwargs)
        tangents = {id(t): tangent for t in tensors if (tangent := self.of(t)) is not None}
        rule = TANGENT_RULES.get(function)
        found = rule(function, args, kwargs, tangents) if rule is not None else None
        if found is None:
            return self._generic(function, args, kwargs, tensors, tangents)
        out, ts = found
        self._carry(outputs_of(out), ts)
        return out

    def _generic(self, function, args, kwargs, tensors, tangents):
        call = Call.of(function, args, kwargs)
        if call.in_place and id(call.original) in tangents:
            tangents[id(call.args[0])] = tangents.pop(id(call.original))
        versions = [t._version for t in tensors]
        before = RandomState(tensors[0].device)
        with sdpa_kernel(SDPBackend.MATH) if _attention_that_drops(function, args, kwargs) else nullcontext():
            out = function(*args, **kwargs)
        outputs = outputs_of(args[0] if out is None and call.in_place else out)
        if not any(o.requires_grad for o in outputs):
            return out
        written = [t for t, v in zip(tensors, versions, strict=True) if t._version != v]
        if any(t is not call.original for t in written):
            raise UntracedUse(
                f"fastrw.tangent: {function_name(function)} writes into an argument and cannot be replayed"
            )
        if before.moved():
            call.random = before
        self._carry(outputs, jvp(call, tangents))
        return out

    def _carry(self, outputs: list[Tensor], tangents: list[Tensor | None]) -> None:
        for o, t in zip(outputs, tangents, strict=True):
            if o.requires_grad:
                self._carried[id(o)] = _Carried(o, o._version, torch.zeros_like(o).detach() if t is None else t)


def _attention_that_drops(function, args: tuple, kwargs: dict) -> bool:
    """It must draw as its replay will: through the math backend."""
    return function is F.scaled_dot_product_attention and bool(kwargs.get("dropout_p", args[4] if len(args) > 4 else 0))


def scores(problem: Problem, state: State, options: Options) -> Scored:
    """s = d losses(theta + t V) / dt at t = 0: [n]. Source: Ren et al. 2018, Eq. 7, the derivative taken along V."""
    if (name := graph.compiled(problem.modules)) is not None:
        raise UntracedUse(f"fastrw.tangent: compiled code cannot be recorded, got the compiled module {name!r}")
    if hooked := [k for k, p in problem.params.items() if p._backward_hooks]:
        raise UntracedUse(f"fastrw.tangent: parameters must have no gradient hooks, got hooks on {hooked[0]!r}")
    V = validation_gradient(problem, state)
    mode = Tangents(V)
    losses = problem.losses(problem.batch, mode)
    params = {name: p for name, p in problem.params.items() if p in V}
    spans = graph.Spans(mode.spans)
    graph.walk(losses, params, spans, spans, set())
    s = mode.of(losses)
    return Scored(as_score(torch.zeros_like(losses) if s is None else s).detach(), losses)
