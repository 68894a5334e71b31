"""Forward mode: the tangent along V rides on the very forward pass that autograd records. Exact also where examples
meet (BatchNorm in training, in-batch losses), at about (5 + 3 m/n)/3 of a plain step with the weighted backward."""

import weakref
from contextlib import nullcontext
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from fastrw import old_graph as graph
from fastrw.calls import Call, RandomState, function_name, outputs_of
from fastrw.errors import UntracedUse
from fastrw.isolation import State
from fastrw.methods.common import Options, Scored, as_score, validation_gradient
from fastrw.problem import Problem
from fastrw.rules.generic import jvp
from fastrw.rules.pending import Moved, RunAgain, Tangent, formed
from fastrw.rules.pending import Tangents as Found
from fastrw.rules.tangents import TANGENT_RULES
from fastrw.tape import Recorder


@dataclass(slots=True)
class _Carried:
    """A tensor, its version when its tangent was found, and the tangent; both are let go after its last read."""

    tensor: Tensor | None
    version: int
    tangent: Tangent | None
    born: int  # the how-manieth tangent it is
    itself: weakref.ref  # tells the tensor from a later one with the same id


class Tangents(Recorder):
    """Carries tangents from the parameters' directions to every tensor that autograd would reach.

    last_reads: for every tangent, in order of birth, the call that read it last when this model ran before: it is let
    go there. A tangent that is read after all raises `RunAgain`, and the caller runs again without.
    waits: whether tangents may wait for the operation that reads them: see `pending`.
    """

    def __init__(
        self,
        directions: dict[Tensor, Tensor],
        last_reads: list[int] | None,
        *,
        backend: str = "auto",
        waits: bool = True,
    ):
        super().__init__()
        self._backend, self._waits = backend, waits
        self._carried: dict[int, _Carried] = {}
        self._born: list[_Carried] = []
        self._now = 0
        self.reads: list[int] = []
        self._carry(list(directions), list(directions.values()))
        self._ends: dict[int, list[int]] = {}
        for born, end in enumerate(last_reads or ()):
            self._ends.setdefault(end, []).append(born)
        self._ends.pop(0, None)  # parameters that are never read: their directions are the caller's

    def of(self, t: Tensor) -> Tangent | None:
        entry = self._carried.get(id(t))
        if entry is None or entry.itself() is not t:
            return None
        if entry.tangent is None:
            raise RunAgain
        if entry.version != t._version:
            raise UntracedUse("fastrw.tangent: a tensor was changed in place through another view of it")
        self.reads[entry.born] = self._now
        return entry.tangent

    def at_the_end(self, t: Tensor) -> Tensor | None:
        """The tangent of what the forward returned: a read after every call."""
        self._now += 1
        found = self.of(t)
        return None if found is None else formed(found)

    def concerns(self, tensors):
        carried = self._carried
        return any((entry := carried.get(id(t))) is not None and entry.itself() is t for t in tensors)

    def pass_by(self, function, args, kwargs, tensors):
        return function(*args, **kwargs)

    def record(self, function, args, kwargs, tensors):
        self._now += 1
        if not torch.is_grad_enabled():  # autograd takes what comes out for a constant, and so do we
            return function(*args, **kwargs)
        found = {id(t): tangent for t in tensors if (tangent := self.of(t)) is not None}
        tangents = Found(found, self._backend, self._waits)
        rule = TANGENT_RULES.get(function)
        found = rule(function, args, kwargs, tangents) if rule is not None else None
        if found is None:
            out = self._generic(function, args, kwargs, tensors, tangents)
        else:
            out, ts = found
            self._carry(outputs_of(out), ts)
        for born in self._ends.get(self._now, ()):
            if born < len(self._born):
                entry = self._born[born]
                entry.tensor = entry.tangent = None
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

    def _carry(self, outputs: list[Tensor], tangents: list[Tangent | None]) -> None:
        for o, t in zip(outputs, tangents, strict=True):
            if o.requires_grad:
                if t is None:
                    t = torch.zeros_like(o).detach()
                elif isinstance(t, Tensor) and (t.shape, t.dtype) != (o.shape, o.dtype):
                    t = t.to(o.dtype).expand(o.shape)
                entry = _Carried(o, o._version, t, len(self._born), weakref.ref(o))
                self._carried[id(o)] = entry
                self._born.append(entry)
                self.reads.append(self._now)


# model -> what was asked -> Tangents.reads of an earlier run
_last_reads: WeakKeyDictionary = WeakKeyDictionary()
_never_waits: WeakKeyDictionary = WeakKeyDictionary()  # model -> what was asked, where waiting has failed before


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
    known = _last_reads.setdefault(problem.model, {})
    hasty = _never_waits.setdefault(problem.model, set())

    def run() -> Scored:
        mode = Tangents(V, known.get(problem.key), backend=options.backend, waits=problem.key not in hasty)
        return _along(problem, V, mode, known)

    while True:
        try:
            return run()
        except Moved:
            hasty.add(problem.key)
        except RunAgain:
            known.pop(problem.key)
        state.rewind()


def _along(problem: Problem, V: dict[nn.Parameter, Tensor], mode: Tangents, known: dict) -> Scored:
    """Losses and scores of one forward, each tangent let go as the run before teaches."""
    losses = problem.losses(problem.batch, mode)
    params = {name: p for name, p in problem.params.items() if p in V}
    spans = graph.Spans(mode.spans)
    graph.walk(losses, params, spans, spans, set())
    s = mode.at_the_end(losses)
    known.setdefault(problem.key, mode.reads)
    return Scored(as_score(torch.zeros_like(losses) if s is None else s).detach(), losses)
