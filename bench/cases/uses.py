"""Not ops but what they are for: score and update of one layer from its rows, V from those of validation.

What is measured are the forms that fastrw chooses from; eager torch has the better of two as well. A form is called
with the ops that it is made of: the reference, those of a backend, or eager torch."""

from functools import cache, partial
from types import SimpleNamespace

from torch import Tensor
from torch.nn import functional as F

from bench.cases.case import Case, alive
from bench.cases.convolutions import LAYERS, Layer, outer, outer_of_live, through_V
from bench.cases.rows import LINEAR, gram, live_rows, weighted_product
from fastrw import ops
from fastrw.ops import reference

Found = tuple[Tensor, ...]


@cache
def _ops_of(backend: str) -> SimpleNamespace:
    names = "gram_dot", "project_dot", "weighted_outer", "conv_dot", "conv_outer", "conv_instance", "combine"
    return SimpleNamespace(**{name: partial(getattr(ops, name), backend=backend) for name in names})


def _by_backend(form, *args, backend: str) -> Found:
    return form(_ops_of(backend), *args)


def _project(by, a: Tensor, g: Tensor, n: int, w: Tensor) -> Found:
    V, v_b = by.weighted_outer(a[n:].flatten(0, 1), g[n:].flatten(0, 1), None)
    rows, grads = a[:n].flatten(0, 1), g[:n].flatten(0, 1)
    s = by.project_dot(rows, grads, V, v_b).view(n, -1).sum(1)
    return s, *by.weighted_outer(rows, grads, w.repeat_interleave(a.shape[1]))


def _gram(by, a: Tensor, g: Tensor, n: int, w: Tensor) -> Found:
    a, g = a.flatten(0, 1), g.flatten(0, 1)
    return by.gram_dot(a[:n], g[:n], a[n:], g[n:], 1.0), *by.weighted_outer(a[:n], g[:n], w)


def _eager_project(update, a: Tensor, g: Tensor, n: int, w: Tensor) -> Found:
    V, v_b = weighted_product(a[n:].flatten(0, 1), g[n:].flatten(0, 1), None)
    s = (F.linear(a[:n], V, v_b) * g[:n]).sum((1, 2))
    return s, *update(a[:n].flatten(0, 1), g[:n].flatten(0, 1), w.repeat_interleave(a.shape[1]))


def _eager_gram(update, *args) -> Found:
    return _gram(SimpleNamespace(gram_dot=gram, weighted_outer=update), *args)


def linear_use(n: int, m: int, t: int, p: int, q: int) -> Case:
    """n train and m validation examples of t rows."""
    name, form, eager = ("gram", _gram, _eager_gram) if t == 1 else ("project", _project, _eager_project)
    score = n * m * (p + q) if t == 1 else (n + m) * t * p * q
    return Case(
        sizes=f"n={n} m={m} t={t} p={p} q={q}, half of w 0",
        make=lambda draw: (draw(n + m, t, p), draw(n + m, t, q), n, draw.weights(n)),
        eager={"products": partial(eager, weighted_product), "live rows": partial(eager, live_rows)},
        flops=2 * score + 2 * alive(n) * t * p * q,
        elements=(n + m) * t * (p + q),
        results=n + p * q + q + n,
        terms=(n + m) * t + p + q,
        spec=partial(form, reference),
        forms={name: partial(_by_backend, form)},
    )


def _conv_instance(by, x: Tensor, g: Tensor, n: int, w: Tensor, *how) -> Found:
    s, G, _ = by.conv_instance(x, g, n, None, *how)
    return s, by.combine(G, w)


def _conv_project(by, x: Tensor, g: Tensor, n: int, w: Tensor, *how) -> Found:
    V = by.conv_outer(x[n:], g[n:], None, *how)
    return by.conv_dot(x[:n], g[:n], V, None, *how[1:]), by.conv_outer(x[:n], g[:n], w, *how)


def _conv_eager(update, *args) -> Found:
    return _conv_project(SimpleNamespace(conv_dot=through_V, conv_outer=update), *args)


def conv_use(layer: Layer) -> Case:
    n, both = layer.n, layer.n + layer.m
    product = 2 * layer.outputs * layer.taps
    return Case(
        sizes=f"m={layer.m} {layer}, half of w 0",
        make=lambda draw: (*layer.x_and_g(draw, both), n, draw.weights(n), layer.weight[2:], *layer.how),
        eager={"two convolutions": partial(_conv_eager, outer), "live examples": partial(_conv_eager, outer_of_live)},
        flops=both * product + min(alive(n) * product, 2 * (n + alive(n)) * layer.parameters),
        elements=both * (layer.inputs + layer.outputs),
        results=2 * n + layer.parameters,
        terms=both * layer.size_out**2 + layer.parameters,
        spec=partial(_conv_project, reference),
        forms={"instance": partial(_by_backend, _conv_instance), "project": partial(_by_backend, _conv_project)},
    )


USES = {
    "linear_use": {name: linear_use(*layer) for name, layer in LINEAR.items()},
    "conv_use": {name: conv_use(layer) for name, layer in LAYERS.items() if name != "wrn 640-640"},
}
