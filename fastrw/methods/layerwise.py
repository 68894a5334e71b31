"""Eq. 12, use by use, from one forward and one backward of activations: exact where examples do not meet.

    s_i = sum over uses of sum over r owned by i of <g_r, (d op / d theta . V)_r>

No weight gradient of the training batch is formed. The work of a use is done in the backward, where its g appears."""

from functools import partial
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.autograd.graph import Node

from fastrw import old_graph as graph
from fastrw import owners, plan
from fastrw.calls import function_name
from fastrw.errors import ForThisBatch, UntracedUse
from fastrw.isolation import State
from fastrw.methods.common import Options, Scored, as_score
from fastrw.ops import backends, gram_dot
from fastrw.problem import Problem
from fastrw.report import UseReport
from fastrw.rules import RULES
from fastrw.rules.directed import arguments
from fastrw.rules.generic import derived_direction, jvp
from fastrw.tape import PARAMETER, Known, Tape, Use

DETERMINISTIC = frozenset(RULES)

# model -> (what was asked, signature of the forward) -> patterns of its uses' owners
_measured: WeakKeyDictionary = WeakKeyDictionary()


def scores(problem: Problem, state: State, options: Options) -> Scored:
    """s_i by Eq. 12 of Ren et al. 2018, with rows for examples. Raises Refused where it would not be exact."""
    readable(problem, "layerwise")
    val_tape, val_losses = record(problem, problem.val_batch)
    complete(problem, val_tape, val_losses)
    state.rewind()
    tape, losses = record(problem, problem.batch)
    roots = complete(problem, tape, losses)
    key = (problem.key, tape.signature())
    patterns = patterns_of(problem, state, tape, len(losses), key)
    dtype = torch.promote_types(losses.dtype, torch.float32)
    forms = [plan.choose(use, tape, val_tape, dtype) for use in tape.uses]
    with torch.autocast(losses.device.type, enabled=False):
        direction, twins = _validation(problem, tape, forms, val_tape, options.scaled(val_losses.mean()))
        work = _Scoring(losses, direction, twins, dtype, options)
        try:
            with torch.no_grad():
                work.backward(tape.uses, forms, patterns, roots)
        except OwnersUnknown:
            forget(problem)
            raise
    return Scored(options.unscaled(work.scores), losses, uses=tuple(work.account), signature=key)


def readable(problem: Problem, method: str) -> None:
    """Raises UntracedUse where a recording of the model would not tell all."""
    if (name := graph.compiled(problem.modules)) is not None:
        raise UntracedUse(f"fastrw.{method}: compiled code cannot be recorded, got the compiled module {name!r}")
    if hooked := [k for k, p in problem.params.items() if p._backward_hooks]:
        raise UntracedUse(f"fastrw.{method}: parameters must have no gradient hooks, got hooks on {hooked[0]!r}")


class OwnersUnknown(ForThisBatch):
    """Gradients flow where none did when owners were measured: the next call measures again."""


def record(problem: Problem, batch) -> tuple[Tape, Tensor]:
    """One forward under the tape."""
    buffers = [b for module in problem.modules.values() for b in module._buffers.values() if b is not None]
    tape = Tape(problem.params, buffers, DETERMINISTIC)
    return tape, problem.losses(batch, tape)


def complete(problem: Problem, tape: Tape, losses: Tensor) -> set[Node]:
    """Raises UntracedUse unless every use was seen. Returns the nodes that a backward must ask for (see graph.walk)."""
    marks = {edge.node for use in tape.uses for edge in use.edges if edge is not None}
    return graph.walk(losses, problem.params, graph.Spans(tape.spans), graph.Spans(tape.derivations), marks)


def patterns_of(
    problem: Problem, state: State, tape: Tape, n: int, key: tuple, strict: bool = False
) -> list[list[owners.Pattern | None]] | None:
    """The owners' patterns, measured at the first call of this structure; None for one example, which owns all."""
    if n == 1:
        return None
    known = _measured.setdefault(problem.model, {})
    found = known.get(key)
    if found is None or not _fits(found, tape, n):
        after = State(problem)

        def fresh(batch):
            state.rewind()
            return record(problem, batch)

        try:
            found = owners.measure(tape, n, fresh, partial(problem.sub_batch, n), problem.batch, strict)
        finally:
            after.rewind()
        if len(known) >= 64:  # structures that change on every call must not pile up
            known.clear()
        known[key] = found
    return found


def forget(problem: Problem) -> None:
    """The next call measures the owners again."""
    _measured.pop(problem.model, None)


def _fits(patterns, tape: Tape, n: int) -> bool:
    return all(
        pattern is None or pattern.inner(shape, n) is not None
        for use, found in zip(tape.uses, patterns, strict=True)
        for shape, pattern in zip(use.shapes, found, strict=True)
    )


def _validation(problem: Problem, tape: Tape, forms: list[plan.Form], val_tape: Tape, val_loss: Tensor):
    """One backward of the mean validation loss: the directions that project and generic uses need, and the validation
    rows of the gram uses. Returns (entry of a use -> its direction or None where it is 0, weight id -> (a_k, g_k))."""
    by_gram = {
        id(plan.gram_operands(u).weight): u for u, form in zip(tape.uses, forms, strict=True) if form.name == "gram"
    }
    gram_params = {key for u in by_gram.values() for key in u.directed}
    params = [p for p in problem.params.values() if id(p) not in gram_params]
    twins = [u for u in val_tape.uses if not by_gram.keys().isdisjoint(u.directed)]
    edges = [u.edges[0] for u in twins]
    grads = torch.autograd.grad(val_loss, [*params, *edges], allow_unused=True, retain_graph=False)
    V = {p: g.to_dense() if g.is_sparse else g for p, g in zip(params, grads, strict=False) if g is not None}
    rows = {}
    for use, g in zip(twins, grads[len(params) :], strict=True):
        operands = plan.gram_operands(use)
        use.check_arguments()
        rows[id(operands.weight)] = None if g is None else (operands.a.detach(), g)
    derived: dict[int, Tensor] = {}

    def direction(entry: Known) -> Tensor | None:
        if entry.kind == PARAMETER:
            return V.get(entry.tensor)
        if id(entry.tensor) not in derived:
            sources = {p: V[p] for name in entry.name.split() if (p := problem.params[name]) in V}
            derived[id(entry.tensor)] = derived_direction(entry.tensor, sources) if sources else None
        return derived[id(entry.tensor)]

    # a derived parameter's direction goes through its graph, which the training backward frees
    directions = {
        id(e.tensor): direction(e)
        for use in tape.uses
        for e in use.directed.values()
        if id(e.tensor) not in gram_params
    }
    return directions, rows


class _Scoring:
    """Takes each use's g as the backward brings it, and adds the use's part to the scores."""

    def __init__(self, losses: Tensor, directions: dict, rows: dict, dtype: torch.dtype, options: Options):
        self._losses, self._directions, self._rows, self._dtype = losses, directions, rows, dtype
        self._options, self._n = options, len(losses)
        self.scores = torch.zeros(len(losses), dtype=dtype, device=losses.device)
        self.account: list[UseReport] = []

    def backward(self, uses: list[Use], forms: list[plan.Form], patterns, roots: set[Node]) -> None:
        asked, handles = [], []
        for j, (use, form) in enumerate(zip(uses, forms, strict=True)):
            for i, (edge, shape) in enumerate(zip(use.edges, use.shapes, strict=True)):
                if edge is None:
                    continue
                pattern = patterns[j][i] if patterns is not None else None
                inner = shape.numel() if self._n == 1 else pattern and pattern.inner(shape, self._n)
                take = partial(self._take, use, form, i, inner)
                if edge.node in roots:
                    asked.append((edge, take))
                else:
                    nr = edge.output_nr
                    handles.append(edge.node.register_prehook(lambda grads, take=take, nr=nr: take(grads[nr])))
            self.account.append(self._report(use, form))
        try:
            if asked:
                edges = [edge for edge, _ in asked]
                ones, keep = self._options.scaled(torch.ones_like(self._losses)), self._options.keep_graph
                found = torch.autograd.grad(self._losses, edges, ones, allow_unused=True, retain_graph=keep)
                for (_, take), g in zip(asked, found, strict=True):
                    take(g)
        finally:
            for handle in handles:
                handle.remove()
        for use in uses:
            if use.g:
                self._add(self._several(use))

    def _take(self, use: Use, form: plan.Form, output: int, inner: int | None, g: Tensor | None) -> None:
        """One output of one use has its gradient: add the use's part, or wait for its other outputs."""
        if g is None:
            return
        if inner is None:
            if bool((g != 0).any()):
                raise OwnersUnknown(
                    f"fastrw.layerwise: rows must have a known owner, got {function_name(use.function)} of "
                    f"{use.name!r} whose gradients were all 0 when owners were measured"
                )
            return
        use.check_arguments()
        g = as_score(g.detach())
        if len(use.edges) > 1:
            use.g[output] = g, inner
        elif form.name == "gram":
            self._add(self._gram(use, g, inner))
        else:
            self._add(self._project(use, form, g, inner))

    def _add(self, part: Tensor | None) -> None:
        if part is not None:
            self.scores += part.to(self.scores.device)

    def _gram(self, use: Use, g: Tensor, inner: int) -> Tensor | None:
        operands = plan.gram_operands(use)
        rows = self._rows[id(operands.weight)]
        if rows is None:
            return None
        a, a_val, g_val = operands.a.detach(), *rows
        bias = float(operands.bias is not None and id(operands.bias) in use.directed)
        dtype = self._options.score_dtype or self._dtype
        flat = [t.reshape(-1, t.shape[-1]).to(dtype) for t in (a, g, a_val, g_val)]
        dots = gram_dot(*flat, bias, backend=self._options.backend)
        return self._own(dots, inner // g.shape[-1])

    def _live(self, use: Use) -> dict[int, Tensor]:
        """id of an argument -> its direction, where it is not 0."""
        return {key: d for key, entry in use.directed.items() if (d := self._directions[id(entry.tensor)]) is not None}

    def _tangents(self, use: Use) -> list[Tensor | None]:
        live = self._live(use)
        return jvp(use.call, {key: d.to(use.directed[key].tensor.dtype) for key, d in live.items()}) if live else []

    def _project(self, use: Use, form: plan.Form, g: Tensor, inner: int) -> Tensor | None:
        if form.name == "generic":
            t = next(iter(self._tangents(use)), None)
        elif live := self._live(use):
            args, kwargs = arguments(use, live, self._options.score_dtype or self._dtype)
            rule = RULES[use.function]
            if rule.dot is not None:
                dots = rule.dot(g, self._options.backend, *args, **kwargs)
                if dots is not None and inner % (block := g.numel() // len(dots)) == 0:
                    return self._own(dots, inner // block)
            t = rule.tangent(*args, **kwargs)
        else:
            t = None
        return None if t is None else self._by_example(as_score(t), g, inner)

    def _several(self, use: Use) -> Tensor | None:
        """The part of a use with several outputs."""
        tangents = self._tangents(use)
        parts = [self._by_example(as_score(tangents[j]), g, inner) for j, (g, inner) in use.g.items()
                 if tangents and tangents[j] is not None]  # fmt: skip
        return sum(parts[1:], parts[0]) if parts else None

    def _by_example(self, t: Tensor, g: Tensor, inner: int) -> Tensor:
        """sum over the elements e of each example of t_e g_e."""
        return self._own((t * g).reshape(-1, inner).sum(1), 1)

    def _own(self, parts: Tensor, each: int) -> Tensor:
        """[outer * n * each], in the order of the elements -> [n]."""
        return parts.view(-1, self._n, each).sum((0, 2)) if len(parts) != self._n else parts

    def _report(self, use: Use, form: plan.Form) -> UseReport:
        shape = use.shapes[0]
        backend = "torch"
        if form.name == "gram":
            rows = plan.gram_operands(use).a.new_empty(0, 0, dtype=self._options.score_dtype or self._dtype)
            backend = backends.choose("gram_dot", self._options.backend, *[rows] * 4).name
        rows = shape.numel() // shape[-1] if len(shape) and shape[-1] else shape.numel()
        return UseReport(function_name(use.function), use.name, rows, form.name, backend, form.why)
