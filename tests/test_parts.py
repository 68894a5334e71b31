"""Every formula for a use of parameters: its validation gradient, scores, weighted gradient and instances are those of
autograd, example by example, however the examples lie; and torch.compile and make_fx trace it whole."""

import itertools
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch.fx.experimental.proxy_tensor import make_fx

from fastrw.graph.saved import Saved, Values
from fastrw.nodes import registry
from fastrw.nodes.base import Products, Use
from fastrw.nodes.conv import Both, Convolution
from fastrw.nodes.embedding import Lookup
from fastrw.nodes.generic import Generic
from fastrw.nodes.instances import Instances
from fastrw.nodes.lazy import formed
from fastrw.nodes.linear import Batched, Linear, Transposed, Vector
from fastrw.nodes.owned import NOBODY, Owned
from fastrw.ops.tolerance import SCORE_GOAL, relative_error
from tests.test_nodes import MADE, node_of

N, M = 3, 2  # training examples, validation examples


@dataclass
class At:
    """f(*tensors of these shapes), those of `params` being parameters; examples lie along `dim` of what it gives, so
    many neighbours each."""

    f: object
    shapes: list
    params: tuple
    dim: int = 0
    each: int = 1
    kind: type = Instances


def addmm(b, m, n):
    return torch.addmm(b, m, n, alpha=0.5, beta=2)


def baddbmm(b, m, n):
    return torch.baddbmm(b, m, n, alpha=0.5, beta=2)


def bag(mode, offsets=(0, 2, 2, 5, 6), **how):
    idx = torch.tensor([0, 2, 2, 5, 1, 1, 4, 3])
    return lambda t: F.embedding_bag(idx, t, torch.tensor(offsets), mode=mode, **how)


def running(t, g, c):
    return F.batch_norm(t, torch.linspace(-1, 1, 4).double(), torch.linspace(0.5, 2, 4).double(), g, c, False)


tokens = torch.tensor([[0, 2, 2], [5, 1, 1], [4, 3, 2], [0, 0, 0], [2, 5, 1]])
per_bag = torch.linspace(0.5, 2, 8).double()
PARTS = {
    "AddmmBackward0": [
        At(torch.addmm, [(3,), (10, 4), (4, 3)], (0, 2), each=2, kind=Linear),
        At(addmm, [(1, 3), (5, 4), (4, 3)], (0, 2), kind=Linear),
        At(addmm, [(3,), (5, 4), (4, 3)], (0,), kind=Linear),
        At(torch.addmm, [(30,), (5, 40), (40, 30)], (2,), kind=Linear),
        At(addmm, [(3, 1), (3, 4), (4, 10)], (0, 1), dim=1, each=2, kind=Transposed),
        At(addmm, [(5,), (3, 4), (4, 5)], (1,), dim=1, kind=Transposed),
    ],
    "MmBackward0": [
        At(torch.mm, [(10, 4), (4, 3)], (1,), each=2, kind=Linear),
        At(torch.mm, [(3, 4), (4, 5)], (0,), dim=1, kind=Transposed),
    ],
    "MvBackward0": [At(torch.mv, [(10, 4), (4,)], (1,), each=2, kind=Vector)],
    "BmmBackward0": [
        At(torch.bmm, [(2, 10, 4), (2, 4, 3)], (1,), dim=1, each=2, kind=Batched),
        At(torch.bmm, [(2, 3, 4), (2, 4, 5)], (0,), dim=2, kind=Batched),
    ],
    "BaddbmmBackward0": [
        At(baddbmm, [(2, 1, 3), (2, 5, 4), (2, 4, 3)], (0, 2), dim=1, kind=Batched),
        At(baddbmm, [(2, 3, 1), (2, 3, 4), (2, 4, 10)], (0, 1), dim=2, each=2, kind=Batched),
    ],
    "ConvolutionBackward0": [
        At(lambda t, k, c: F.conv2d(t, k, c, 2, 1), [(5, 4, 6, 6), (3, 4, 3, 3), (3,)], (1, 2), kind=Both),
        At(lambda t, k: F.conv2d(t, k, None, 1, 1), [(5, 16, 3, 3), (32, 16, 3, 3)], (1,), kind=Convolution),
        At(lambda t, k, c: F.conv2d(t, k, c, 2, 1), [(5, 4, 6, 6), (3, 4, 3, 3), (3,)], (2,)),
        At(lambda t, k, c: F.conv1d(t, k, c, groups=2), [(5, 4, 9), (6, 2, 3), (6,)], (1, 2), kind=Both),
        At(lambda t, k, c: F.conv_transpose2d(t, k, c, 2, 1, 1), [(5, 4, 4, 5), (4, 3, 3, 3), (3,)], (1, 2), kind=Both),
        At(lambda t, k: F.conv_transpose1d(t, k, None, 1, 2, 0, 2, 2), [(5, 4, 9), (4, 3, 3)], (1,), kind=Convolution),
        At(lambda t, k: F.conv_transpose2d(t, k, None, 2), [(5, 40, 2, 2), (40, 30, 3, 3)], (1,), kind=Convolution),
        At(lambda t, k: F.conv3d(t, k), [(5, 2, 4, 4, 3), (3, 2, 2, 2, 2)], (1,), kind=Convolution),
    ],
    "NativeLayerNormBackward0": [
        At(lambda t, g, c: F.layer_norm(t, (4,), g, c), [(5, 2, 4), (4,), (4,)], (1, 2)),
        At(lambda t, g: F.layer_norm(t, (2, 4), g), [(3, 5, 2, 4), (2, 4)], (1,), dim=1),
    ],
    "NativeGroupNormBackward0": [
        At(lambda t, g, c: F.group_norm(t, 2, g, c), [(5, 4, 3, 3), (4,), (4,)], (1, 2)),
        At(lambda t, g, c: F.group_norm(t, 2, g, c), [(5, 4), (4,), (4,)], (2,)),
    ],
    "NativeBatchNormBackward0": [At(running, [(5, 4, 3), (4,), (4,)], (1, 2)), At(running, [(5, 4), (4,), (4,)], (1,))],
    "EmbeddingBackward0": [
        At(lambda t: F.embedding(tokens, t, padding_idx=2), [(6, 3)], (0,), kind=Lookup),
        At(lambda t: F.embedding(tokens[:, 0], t), [(6, 3)], (0,), kind=Lookup),
    ],
    "EmbeddingBagBackward0": [
        At(bag("sum"), [(6, 3)], (0,), kind=Lookup),
        At(bag("mean", padding_idx=2), [(6, 3)], (0,), kind=Lookup),
        At(bag("max"), [(6, 3)], (0,), kind=Lookup),
        At(bag("max", padding_idx=1), [(6, 3)], (0,), kind=Lookup),
        At(bag("sum", (0, 2, 2, 5, 6, 8), include_last_offset=True), [(6, 3)], (0,), kind=Lookup),
        At(bag("sum", padding_idx=2, per_sample_weights=per_bag), [(6, 3)], (0,), kind=Lookup),
    ],
    "AddBackward0": [
        At(lambda s, t: torch.add(s, t, alpha=0.5), [(5, 2, 4), (2, 4)], (1,)),
        At(torch.add, [(4,), (2, 10, 4)], (0,), dim=1, each=2),
    ],
    "SubBackward0": [
        At(lambda s, t: torch.sub(s, t, alpha=0.5), [(5, 4), (4,)], (1,)),
        At(torch.sub, [(2, 1, 1), (2, 5, 4)], (0,), dim=1),
    ],
    "MulBackward0": [At(torch.mul, [(5, 2, 4), (4,)], (1,)), At(torch.mul, [(), (5, 4)], (0,))],
    "ExpandBackward0": [
        At(lambda t: t.expand(5, 7, 4), [(7, 4)], (0,)),
        At(lambda t: t.expand(2, 10), [(2, 1)], (0,), dim=1, each=2),
    ],
    "RepeatBackward0": [
        At(lambda t: t.repeat(5), [(4,)], (0,), each=4),
        At(lambda t: t.repeat(5, 2), [(3, 4)], (0,), each=3),
        At(lambda t: t.repeat(2, 10), [(3, 1)], (0,), dim=1, each=2),
        At(lambda t: t.repeat(10, 1, 2), [(3, 2)], (0,), each=2),
    ],
}  # fmt: skip
CASES = [(name, at, mixed) for name, ats in PARTS.items() for at in ats for mixed in (False, True)]


def owners(at, shape, mixed):
    """Training examples first, then the validation's; or in any order, with one entry that belongs to nobody."""
    of = torch.arange(N + M).clamp(max=N).repeat_interleave(at.each)
    if mixed:
        of = of[torch.tensor([3, 0, 4, 2, 1])[:, None] * at.each + torch.arange(at.each)].roll(0).flatten()
        of[-1] = NOBODY
    return Owned(N, torch.Size(shape), at.dim, of, 0 if mixed else at.each, not mixed)


def use_of(at, mixed):
    """Node, gradient of its output, the use of its parameters, and the inputs."""
    torch.manual_seed(0)
    inputs = [torch.randn(shape, dtype=torch.double) for shape in at.shapes]
    for j in at.params:
        inputs[j].requires_grad_()
    y = at.f(*inputs)
    owned = owners(at, y.shape, mixed)
    g = torch.where(mask(owned, list(range(N + 1))), torch.randn_like(y), 0)
    below = tuple(j for j, (node, _) in enumerate(y.grad_fn.next_functions) if node is not None)
    return y, g, Use(0, below, {0: owned}), inputs


def mask(owned, who):
    here = torch.isin(owned.of, torch.tensor(who))
    return here.view([-1 if d == owned.dim else 1 for d in range(len(owned.shape))])


def part_of(name, y, g, use):
    with torch.no_grad():
        return registry.TYPES[name].part(Saved(y.grad_fn), use, g, Products())


def close(found, truth):
    return relative_error(found.to_dense(), truth) <= SCORE_GOAL[torch.float64]


@pytest.mark.quick
@pytest.mark.parametrize(("name", "at", "mixed"), CASES)
def test_a_use_is_exact(name, at, mixed):
    y, g, use, inputs = use_of(at, mixed)
    assert y.grad_fn.name() == name
    leaves = [inputs[j] for j in at.params]

    def sent(who):
        return torch.autograd.grad(y, leaves, torch.where(mask(use.owned[0], who), g, 0), retain_graph=True)

    w = torch.tensor([0.5, 0.0, 2.0]).double()
    each, V = [sent([i]) for i in range(N)], sent([N])
    part = part_of(name, y, g, use)
    if part is None:  # served by calling the node; only where examples do not lie in order
        assert mixed and name in ("ConvolutionBackward0", "NativeGroupNormBackward0", "NativeBatchNormBackward0",
                                  "RepeatBackward0")  # fmt: skip
        return
    assert type(part) is at.kind
    assert part.why() is not None and part.form in part.costs()
    with torch.no_grad():
        instances, own = part.instances(), part_of(name, y, g, use).validation()
        for k, j in enumerate(use.below):
            for i in range(N):
                assert close(instances[j][i], each[i][k])
            assert close(own.get(j, torch.zeros(())).expand(V[k].shape), V[k])
        dots = torch.stack([sum((g * v).sum() for g, v in zip(gs, V, strict=True)) for gs in each])
        along = part_of(name, y, g, use)
        assert close(along.score(dict(zip(use.below, V, strict=True))), dots)
        update = along.update(w)
        alone = part_of(name, y, g, use)
        s = alone.alone()
        groups = registry.Groups([alone], N, "auto")
        assert close(sum(groups.scores(), torch.zeros(N) if s is None else s), dots)
        waits = part_of(name, y, g, use)
        s = waits.along(dict(zip(use.below, V, strict=True)))
        together = registry.Groups([waits, part_of(name, y, g, use)], N, "auto")
        assert close(sum(together.scores(), torch.zeros(N) if s is None else s), dots)
        for found in (update, alone.update(w), groups.update(alone, w), together.update(waits, w)):
            for k, j in enumerate(use.below):
                assert close(found[j], sum(wi * gs[k] for wi, gs in zip(w, each, strict=True)))


@pytest.mark.parametrize(("name", "at"), [(name, at) for name, ats in PARTS.items() for at in ats])
def test_an_example_of_weight_zero_adds_nothing_whatever_it_holds(name, at):
    y, g, use, _ = use_of(at, mixed=False)
    w = torch.tensor([0.5, 0.0, 2.0]).double()
    with torch.no_grad():
        truth = part_of(name, y, g, use).update(w)
        spoilt = torch.where(mask(use.owned[0], [1]), torch.nan, g)
        found = part_of(name, y, spoilt, Use(0, use.below, use.owned)).update(w)
    assert all(close(found[j], truth[j]) for j in truth)


def as_values(kind, node):
    """What a formula reads, as tensors and numbers: no node."""
    s = Saved(node)
    read = {one: getattr(s, one) for one in kind.reads.split()}
    shapes = [s.shape(j) for j in range(len(node.next_functions))]
    output = torch.empty(s.output.shape, dtype=s.output.dtype, device=s.output.device)
    tensors = {one: t for one, t in read.items() if isinstance(t, torch.Tensor)}
    rest = {one: t for one, t in read.items() if one not in tensors}

    def space(values):
        own = dict(zip(tensors, values, strict=True))
        return Values(output, shapes, **rest, **own)

    return [*tensors.values()], space


def compiled(f):
    torch._dynamo.reset()
    return torch.compile(f, fullgraph=True, backend="aot_eager")


@pytest.mark.parametrize("trace", [make_fx, compiled], ids=["make_fx", "compile"])
@pytest.mark.parametrize(("name", "at"), [(name, ats[0]) for name, ats in PARTS.items()])
def test_formulas_of_a_use_are_traced_whole(name, at, trace):
    y, g, use, _ = use_of(at, mixed=False)
    kind = registry.TYPES[name]
    tensors, space = as_values(kind, y.grad_fn)

    def whole(g, w, *tensors):
        part = kind.part(space(tensors), Use(0, use.below, use.owned), g, Products())
        V = part.validation()
        return part.score(V), part.update(w), part.instances()

    args = (g, torch.tensor([0.5, 0.0, 2.0]).double(), *tensors)
    with torch.no_grad():
        truth = whole(*args)
        traced = trace(whole) if trace is compiled else trace(whole)(*args)
        found = traced(*args)
    for one, other in zip(*map(torch.utils._pytree.tree_leaves, (found, truth)), strict=True):
        assert close(one, other)


@pytest.mark.parametrize("trace", [make_fx, compiled], ids=["make_fx", "compile"])
@pytest.mark.parametrize("name", MADE)
def test_tangents_are_traced_whole(name, trace):
    node, inputs = node_of(*MADE[name])
    kind = registry.TYPES[name]
    tensors, space = as_values(kind, node)

    def tangent(ts, *tensors):
        return {k: formed(t) for k, t in kind.jvp(space(tensors), dict(enumerate(ts)), "auto").items()}

    args = ([torch.randn_like(t).detach() for t in inputs], *tensors)
    with torch.no_grad():
        truth = tangent(*args)
        found = (trace(tangent) if trace is compiled else trace(tangent)(*args))(*args)
    assert found.keys() == truth.keys()
    assert all(relative_error(found[k], truth[k]) <= SCORE_GOAL[torch.float32] for k in truth)


@pytest.mark.quick
@pytest.mark.parametrize("name", registry.TYPES)
def test_every_type_answers_everything(name):
    """By formulas of its own, or by the general answer, named: what has no formula at all needs no entry."""
    kind = registry.TYPES[name]
    assert kind.jvp is not registry.GENERIC.jvp
    assert (kind.part is registry.GENERIC.part) == (name not in PARTS and name != "CudnnBatchNormBackward0")


@pytest.mark.quick
def test_every_part_answers_everything():
    for kind in {at.kind for ats in PARTS.values() for at in ats} | {Generic}:
        for name in ("why", "costs", "alone", "validation", "score", "update", "instances"):
            own = kind.__mro__ if name in ("costs", "alone") else kind.__mro__[:-2]  # not of Part, nor of object
            assert any(name in vars(base) for base in own), (kind, name)


@pytest.mark.quick
def test_formulas_read_what_they_say():
    for name in MADE:
        kind, read = registry.TYPES[name], set()

        class Watched(Saved):
            __slots__ = ()

            def __getattr__(self, one, read=read):
                read.add(one)
                return super().__getattr__(one)

        node, inputs = node_of(*MADE[name])
        uses = [use_of(at, mixed) for at, mixed in itertools.product(PARTS.get(name, ()), (False, True))]
        with torch.no_grad():
            kind.jvp(Watched(node), {j: torch.randn_like(t).detach() for j, t in enumerate(inputs)}, "auto")
            for y, g, use, _ in uses:
                kind.part(Watched(y.grad_fn), use, g, Products())
        assert read <= {*kind.reads.split()}, name
