"""What is read of the shapes of a graph tells two graphs of one form apart if, and only if, any of their shapes, or of
the numbers that are read besides, differs."""

import itertools
import random

import pytest
import torch
from torch.nn import functional as F

from fastrw.graph.walk import Graph, Leaf
from fastrw.nodes import shapes

pytestmark = pytest.mark.quick


class Draw:
    """Sizes, so few that many are alike; `p` makes a leaf, `c` what needs no gradient."""

    def __init__(self, seed):
        self._random = random.Random(seed)

    def size(self, most=3):
        return self._random.randint(1, most)

    def pick(self, *some):
        return self._random.choice(some)

    def p(self, *sizes):
        return torch.rand(*sizes, requires_grad=True)

    def c(self, *sizes):
        return torch.rand(*sizes)


def unary(name, *args, **kwargs):
    def program(d):
        a, b = d.size(), d.size()
        x = d.p(a * b).view(d.pick((a, b), (b, a), (a * b, 1)))
        function = getattr(torch, name, None) or getattr(F, name)
        return function(x, *args, **kwargs).sum(d.pick(0, 1))

    return program


def binary(name):
    def program(d):
        a, b = d.size(), d.size()
        shape = d.pick((a, b), (1, b), (a, 1), (1, 1))
        other = d.pick(d.p, d.p, d.c)(*d.pick((a, b), (b,), (1, b)))
        return getattr(torch, name)(d.p(*shape), other).exp()

    return program


def parts(d):
    a, b = d.size(), d.size()
    x = d.p(2 * a, 2 * b).exp()
    dim = d.pick(0, 1)
    split = d.pick(lambda: x.split(x.shape[dim] // 2, dim), lambda: x.split([1, x.shape[dim] - 1], dim))()
    return split[0].exp().sum() + split[1].sum()


def one_part(d):
    return d.p(d.size(), d.size()).exp().split(3, d.pick(0, 1))[0]


def unbound(d):
    x = d.p(2, d.size()).exp() if d.pick(True, False) else d.p(d.size(), 2).exp().t()
    first, second = x.unbind(0)
    return first.exp() * second


def picked(d):
    x = d.p(4, 4, d.size()).exp()
    return x[d.size() : d.pick(3, 4)].sum(0) + x.select(d.pick(0, 1), d.size())


def turned(d):
    x = d.p(2, 2, d.size()).exp()
    x = x.transpose(d.pick(0, -3), d.pick(1, 2)) if d.pick(True, False) else x.permute(d.pick((0, 2, 1), (2, 0, 1)))
    return x.expand(d.size(), *x.shape).reshape(-1, x.shape[-1]).t().exp()


def linear(d):
    n, p, q = d.size(), d.size(), d.size()
    x = d.pick(d.p, d.c)(n, p)
    y = F.linear(x, d.p(q, p), d.pick(d.p(q), None))
    return F.layer_norm(y, y.shape, d.pick(d.p(*y.shape), None)).view(d.pick((n * q,), (q, n))).relu()


def normed(d):
    n, c = d.size(), 4
    x = d.pick(d.p, d.c)(n, c, d.size(), d.size())
    x = F.conv2d(x, d.p(c, c, 1, 1), padding=d.pick(0, 1), stride=d.pick(1, 2))
    x = F.group_norm(x, d.pick(1, 2, 4), d.pick(d.p(c), None))
    return F.layer_norm(x, x.shape[d.pick(1, 2, 3) :]).mean(d.pick(1, 2))


def attention(d):
    n, length, heads, size = d.size(), d.size(), d.size(2), d.size(2)
    q, k, v = F.linear(d.p(n, length, heads * size), d.p(3 * heads * size, heads * size)).chunk(3, -1)
    q, k, v = (t.view(n, length, heads, size).transpose(1, 2) for t in (q, k, v))
    scores = q @ k.transpose(-2, -1) / d.pick(2.0, d.c(length))
    return (scores.softmax(d.pick(-1, -2)) @ v).transpose(1, 2).reshape(n, length, heads * size).mean(1)


class Custom(torch.autograd.Function):
    """The number of its outputs shows in nothing else."""

    @staticmethod
    def forward(ctx, x, outputs):
        return tuple(x.clone() for _ in range(outputs))

    @staticmethod
    def backward(ctx, *grads):
        return sum(grads), None


def custom(d):
    return Custom.apply(d.p(d.size(), d.size()), d.size())[0].view(-1).exp()


UNARY = """abs celu clone cos elu erf exp gelu hardsigmoid hardswish hardtanh leaky_relu log logsigmoid mish neg relu
rsqrt sigmoid silu sin softplus sqrt tanh"""
PROGRAMS = {
    **{name: unary(name) for name in UNARY.split()},
    "softmax": lambda d: unary("softmax", d.pick(0, 1))(d),
    "log_softmax": lambda d: unary("log_softmax", d.pick(0, 1))(d),
    "to": lambda d: d.p(d.size(), d.size()).view(-1).double().to(d.pick(torch.float, torch.double)).sum(),
    **{name: binary(name) for name in ("add", "sub", "mul", "div")},
    "in place": lambda d: d.p(d.size(), 3).exp().add_(d.pick(d.p, d.c)(*d.pick((1, 3), (3,)))).view(-1),
    "mm": lambda d: d.p(d.size(), 2) @ d.pick(d.p, d.c)(2, d.size()),
    "all": lambda d: d.p(d.size(), d.size()).view(-1).exp().sum() + d.p(d.size()).exp().mean(),
    "parts": parts, "one part": one_part, "unbound": unbound, "picked": picked, "turned": turned, "linear": linear,
    "normed": normed, "attention": attention, "custom": custom,
}  # fmt: skip


def truth(graph):
    """All of it, the slow way."""
    found = [[tuple(m.shape) for m in node._input_metadata] for node in graph.nodes if type(node) is not Leaf]
    found += [tuple(leaf.shape) for leaf in graph.leaves.values()]
    for node in graph.nodes:
        found += [getattr(node, "_saved_" + name) for name in shapes.NUMBERS.get(node.name(), ())]
    return found


@pytest.mark.parametrize("name", PROGRAMS)
def test_reading(name):
    by_form = {}
    for seed in range(60):
        graph = Graph(PROGRAMS[name](Draw(seed)).grad_fn)
        by_form.setdefault(graph.form, []).append(graph)
    told = 0
    for graphs in by_form.values():
        for made_of in graphs[:3]:
            reading = shapes.Reading(made_of)
            every = [(reading(graph), truth(graph)) for graph in graphs]
            for (a, true_a), (b, true_b) in itertools.combinations(every, 2):
                assert (a == b) == (true_a == true_b)
                told += a != b
    assert told


def test_every_type_is_met():
    met = {node.name() for name, program in PROGRAMS.items() for seed in range(60)
           for node in Graph(program(Draw(seed)).grad_fn).nodes}  # fmt: skip
    known = {*shapes._SAME, *shapes._TURNED, *shapes._NORMS, *shapes._PARTED, *shapes._OF_TWO, *shapes._TOLD}
    assert known - met == set() and {*shapes.NUMBERS} <= known
