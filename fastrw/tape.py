"""Reading a model as it runs: which operations take a parameter, without wrappers, layer lists or module names.

A `TorchFunctionMode` sees every torch function of the forward. Tensors made of selected parameters and constants alone
are *derived* parameters. An operation that takes a parameter, or a derived one, together with the batch is a *use*: it
is kept with the gradient edge of its output, which no later in-place operation can move.
"""

import types
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._C._autograd import _get_sequence_nr
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.overrides import TorchFunctionMode

from fastrw.calls import Call, RandomState, function_name, outputs_of, substituted, tensors_in
from fastrw.errors import UntracedUse
from fastrw.movers import MOVERS, STATIC, is_random, moves_of, plain_arguments

PARAMETER, DERIVED, CONSTANT = "parameter", "derived", "constant"


def without_override_check(function: Callable) -> Callable:
    """A copy of a composite Python function that does not ask for overrides again: the operations in it are seen."""
    no = dict.fromkeys(
        ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic"), lambda *_: False
    )
    copy = types.FunctionType(
        function.__code__, {**function.__globals__, **no}, function.__name__, function.__defaults__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def edge_of(t: Tensor) -> GradientEdge:
    """get_gradient_edge at a third of its cost, where a node of C++ holds the graph by itself."""
    node = t.grad_fn
    if node is None or isinstance(node, torch._C._FunctionBase):
        return get_gradient_edge(t)
    return GradientEdge(node, t.output_nr)


COMPOSITES = {F.multi_head_attention_forward: without_override_check(F.multi_head_attention_forward)}

# A gradient taken inside a forward is no function of its arguments alone: it cannot be replayed.
UNSEEABLE = {torch.autograd.grad, torch.autograd.backward, Tensor.backward}


# attributes of a tensor that are tensors with a graph
MAKING = {Tensor.T, Tensor.mT, Tensor.H, Tensor.mH, Tensor.real, Tensor.imag}


class Recorder(TorchFunctionMode):
    """Sees every call; `spans` are the autograd sequence numbers of the calls it recorded (see `graph`)."""

    def __init__(self):
        super().__init__()
        self.spans: list[tuple[int, int]] = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if (
            getattr(function, "__name__", "") == "__get__" and function.__self__ not in MAKING
        ):  # shape, dtype, device, ...
            return function(*args)
        alone = 0 < len(args) < 3 and type(args[0]) is Tensor and type(args[-1]) is Tensor
        tensors = args if alone else tensors_in(args)
        if not kwargs:
            kwargs = {}
        elif named := tensors_in(kwargs):
            tensors = [*tensors, *named]
        if not self.concerns(tensors):
            return self.pass_by(function, args, kwargs, tensors)
        if function in COMPOSITES:
            with self:
                return COMPOSITES[function](*args, **kwargs)
        if function in UNSEEABLE:
            raise UntracedUse(f"fastrw.tape: a forward must take no gradients, got {function_name(function)} in it")
        start = _get_sequence_nr()
        out = self.record(function, args, kwargs, tensors)
        if (end := _get_sequence_nr()) > start:
            self.spans.append((start, end))
        return out

    def concerns(self, tensors: Sequence[Tensor]) -> bool: ...
    def pass_by(self, function, args, kwargs, tensors): ...
    def record(self, function, args, kwargs, tensors): ...


@dataclass(slots=True)
class Known:
    """A tensor that no batch tensor has touched, and its version when that was so."""

    tensor: Tensor
    version: int
    kind: str
    name: str = ""
    static: bool = False  # the same values on every call with these shapes: torch.arange and the like


@dataclass(slots=True)
class Use:
    """One operation in which a parameter meets the batch."""

    call: Call
    directed: dict[int, Known]  # id of an argument -> the parameter or derived parameter that it is
    edges: list[GradientEdge | None]  # of the tensors out; None where one has no graph
    shapes: list[torch.Size]
    batch: list[tuple[Tensor, int]]  # the other arguments and their versions
    name: str
    g: dict[int, Tensor] = field(default_factory=dict)  # of a use with several outputs, until all are there

    @property
    def function(self) -> Callable:
        return self.call.function

    def check_arguments(self) -> None:
        """An argument that was changed after the use no longer is what the operation saw."""
        for tensor, version in self.batch:
            if tensor._version != version:
                raise UntracedUse(
                    f"fastrw.tape: inputs must stay, got {function_name(self.function)} of {self.name!r} changed"
                )


class Tape(Recorder):
    """Records the uses of `params` (and what is derived from them) while a forward runs under it.

    uses: in the order they ran. signature(): what ran; equal signatures mean equal structure. derivations: spans of the
    operations on parameters alone. moves, sizes: what `owners` compares between two batch sizes: the dimensions along
    which rows may be moved or mixed, and the number of elements of every output, with a graph or without. first_use:
    where they stood at the first use: what happens to examples before a parameter meets them does not concern owners.
    """

    def __init__(
        self, params: dict[str, nn.Parameter], constants: list[Tensor], deterministic: frozenset = frozenset()
    ):
        super().__init__()
        self._known = {id(c): Known(c, c._version, CONSTANT) for c in constants}
        self._params = [Known(p, p._version, PARAMETER, name) for name, p in params.items()]
        self._known |= {id(entry.tensor): entry for entry in self._params}
        self._deterministic = deterministic
        self._ran: list[Any] = []
        self.uses: list[Use] = []
        self.derivations: list[tuple[int, int]] = []
        self.moves: list[tuple[str, int]] = []
        self.sizes: list[tuple[str, int, bool]] = []
        self.first_use = (0, 0)
        self.touched: Counter[int] = Counter()  # id of a parameter -> operations with a graph that take it

    def signature(self) -> tuple:
        return tuple(self._ran)

    def __exit__(self, *raised):
        super().__exit__(*raised)
        if raised[0] is None:
            for entry in self._params:
                if entry.tensor._version != entry.version:
                    raise UntracedUse(
                        f"fastrw.tape: parameters must stay in a forward, got {entry.name!r} changed in place"
                    )

    def concerns(self, tensors):
        known = self._known
        for t in tensors:  # noqa: SIM110  (a generator would take as long as all the rest of a call passed by)
            if id(t) in known:
                return True
        return False

    def pass_by(self, function, args, kwargs, tensors):
        out = function(*args, **kwargs)
        if type(out) is Tensor and tensors:  # nearly all of them
            self._note(function, args, kwargs, tensors, (out,))
        elif outputs := outputs_of(out):
            self._note(function, args, kwargs, tensors, outputs if tensors else ())
            if not tensors:
                for o in outputs:
                    self._known[id(o)] = Known(o, o._version, CONSTANT, static=function in STATIC)
        elif function is Tensor.__setitem__:
            self._note(function, args, kwargs, tensors, [args[0]])
        return out

    def record(self, function, args, kwargs, tensors):
        known, names, pure = {}, {}, True
        for t in tensors:
            if (entry := self._known.get(id(t))) is None:
                pure = False
            elif entry.version == t._version:
                known[id(t)] = entry
                if entry.kind is not CONSTANT:
                    names[entry.name] = None
            elif entry.kind is not CONSTANT:
                raise UntracedUse(f"fastrw.tape: parameters must stay in a forward, got {entry.name!r} changed")
            else:
                pure = False
        if names and not pure:
            return self._use(function, args, kwargs, tensors, known, " ".join(names))
        versions = [t._version for t in tensors]
        start = _get_sequence_nr()
        out = function(*args, **kwargs)
        end = _get_sequence_nr()
        outputs = outputs_of(out)
        written = [t for t, v in zip(tensors, versions, strict=True) if t._version != v]
        if outputs or written:
            self._note(function, args, kwargs, tensors, () if pure else outputs)
        if pure:
            static = not written and not is_random(function) and all(known[id(t)].static for t in tensors)
            if end > start:
                self._touch(known)
                self.derivations.append((start, end))
            for o in (*outputs, *written):
                if (entry := self._known.get(id(o))) is None or entry.kind is not PARAMETER:
                    kind = DERIVED if names and o.requires_grad else CONSTANT
                    self._known[id(o)] = Known(o, o._version, kind, " ".join(names), static)
        return out

    def _use(self, function, args, kwargs, tensors, known, name):
        call = Call.of(function, args, kwargs)
        before = None if function in self._deterministic else RandomState(tensors[0].device)
        versions = [t._version for t in tensors]
        out = function(*args, **kwargs)
        outputs = outputs_of(args[0] if out is None and call.in_place else out)
        for o in outputs:
            if o.requires_grad:
                break
        else:
            return out  # constant to autograd: attributes, comparisons, under no_grad
        self._note(function, args, kwargs, tensors, outputs)
        if before is not None and before.moved():
            if function is F.scaled_dot_product_attention:
                raise self._not_a_use("be repeatable", call, name, "drops")
            call.random = before
        for o in outputs:
            if is_functorch_wrapped_tensor(o) or o.is_nested:
                raise self._not_a_use("give plain tensors", call, name, "gives torch.func's or nested ones")
            if o.is_complex():
                raise self._not_a_use("give real numbers", call, name, "gives complex ones")
        if versions != [t._version for t in tensors]:
            written = [t for t, v in zip(tensors, versions, strict=True) if t._version != v]
            if function in self._deterministic:  # running statistics, which its rule does not read
                written = [t for t in written if id(t) not in known]
            if written and (not call.in_place or any(t is not call.original or t._is_view() for t in written)):
                raise self._not_a_use("leave its arguments", call, name, "writes into one")
        self._touch(known)
        directed = {key: entry for key, entry in known.items() if entry.kind is not CONSTANT}
        if call.in_place and id(call.original) in directed:
            raise UntracedUse(
                "fastrw.tape: parameters must stay in a forward, got "
                f"{function_name(function)} of {name!r} that writes the batch into one"
            )
        if len(outputs) > 1:
            # one output may be made from another inside the operation (the h and c of an LSTM cell): an alias has an
            # edge that only its users reach
            out = substituted(out, lambda o: o.view_as(o) if o.requires_grad else o)
            outputs = outputs_of(out)
        edges = [edge_of(o) if o.requires_grad else None for o in outputs]
        arguments = call.tensors() if call.in_place else tensors
        batch = [(t, t._version) for t in arguments if id(t) not in directed]
        if not self.uses:
            self.first_use = len(self.moves), len(self.sizes)
        self.uses.append(Use(call, directed, edges, [o.shape for o in outputs], batch, name))
        return out

    @staticmethod
    def _not_a_use(rule: str, call: Call, name: str, got: str) -> UntracedUse:
        return UntracedUse(f"fastrw.tape: a use must {rule}, got {function_name(call.function)} of {name!r} that {got}")

    def _touch(self, known: dict[int, Known]) -> None:
        for key, entry in known.items():
            if entry.kind is PARAMETER:
                self.touched[key] += 1

    def _note(self, function, args, kwargs, tensors, outputs) -> None:
        self._ran.append(function)
        if tensors is not args or kwargs:
            self._ran += plain_arguments(function, args, kwargs)
        if function in MOVERS:
            self.moves += moves_of(function, args, kwargs, self._known)
        for o in outputs:
            self.sizes.append((function.__name__, o.numel(), o.requires_grad))
