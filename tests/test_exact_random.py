"""Random nets from a menu of layers, random shapes and layouts: every method is exact, or refuses."""

import warnings
from functools import partial

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations

import fastrw
from fastrw.ops.tolerance import SCORE_GOAL, relative_error
from fastrw.testing import Net
from tests import oracle

METHODS = ("auto", "layerwise", "tangent", "double_backward", "per_example")


def bare(rule, *shape):
    return Net(lambda net, x: rule(x, net.w), w=nn.Parameter(torch.randn(*shape) * 0.5))


def there_and_back(c):
    """One weight, and its transpose."""
    return Net(lambda net, x: net.f(x).tanh() @ net.f.weight, f=nn.Linear(c, c))


def attention(c, batch_first):
    return Net(lambda net, x: net.attend(x, x, x)[0], attend=nn.MultiheadAttention(c, 1, batch_first=batch_first))


def gru(c, batch_first):
    return Net(lambda net, x: net.cell(x)[0], cell=nn.GRU(c, c, batch_first=batch_first))


# Features in the last dimension; every entry makes a module that keeps the shape.
ROWS = [
    lambda c: nn.Linear(c, c),
    lambda c: nn.Linear(c, c, bias=False),
    lambda c: nn.Sequential(nn.Linear(c, c + 2), nn.ReLU(inplace=True), nn.Linear(c + 2, c)),
    lambda c: parametrizations.weight_norm(nn.Linear(c, c)),
    lambda c: parametrizations.spectral_norm(nn.Linear(c, c)),
    lambda c: nn.LayerNorm(c),
    lambda c: nn.RMSNorm(c),
    lambda c: nn.PReLU(),
    lambda c: nn.Dropout(0.3),
    lambda c: bare(torch.mul, c),
    lambda c: bare(torch.add, c),
    lambda c: bare(torch.matmul, c, c),
    lambda c: bare(lambda x, w: torch.einsum("...p,qp->...q", x, w), c, c),
    lambda c: bare(lambda x, w: torch.addmm(w[0], x.reshape(-1, c), w[1:]).view_as(x), c + 1, c),
    there_and_back,
]
IMAGES = [
    lambda c: nn.Conv2d(c, c, 3, padding=1),
    lambda c: nn.Conv2d(c, c, 3, padding=1, groups=c, bias=False),
    lambda c: nn.Conv2d(c, c, 3, padding=2, dilation=2),
    lambda c: nn.Conv2d(c, c, 3, padding=1, padding_mode="circular"),
    lambda c: nn.Conv2d(c, c, 3, padding="same", padding_mode="reflect"),
    lambda c: nn.Conv2d(c, c, 1),
    lambda c: nn.ConvTranspose2d(c, c, 3, padding=1),
    lambda c: parametrizations.weight_norm(nn.Conv2d(c, c, 3, padding=1)),
    lambda c: nn.GroupNorm(1, c),
    lambda c: nn.InstanceNorm2d(c, affine=True),
    lambda c: nn.BatchNorm2d(c),
    lambda c: nn.BatchNorm2d(c).eval(),
    lambda c: nn.PReLU(c),
    lambda c: nn.Dropout2d(0.3),
    lambda c: bare(torch.mul, c, 1, 1),
    lambda c: Net(lambda net, x: x * net.gate(x.mean((2, 3), keepdim=True)).sigmoid(), gate=nn.Conv2d(c, c, 1)),
]
SEQUENCES = [partial(attention, batch_first=True), partial(gru, batch_first=True)]
SEQUENCE_FIRST = [partial(attention, batch_first=False), partial(gru, batch_first=False)]
VECTORS = [lambda c: nn.BatchNorm1d(c), lambda c: nn.BatchNorm1d(c).eval()]
MENUS = {
    "vectors": ROWS + VECTORS,
    "images": IMAGES,
    "sequences": ROWS + SEQUENCES,
    "sequence_first": ROWS + SEQUENCE_FIRST,
}
WAYS = {
    "plain": lambda f, x: f(x),
    "tanh": lambda f, x: f(x).tanh(),
    "residual": lambda f, x: x + f(x),
    "twice": lambda f, x: f(f(x).tanh()),
    "relu_in_place": lambda f, x: f(x).clone().relu_(),
    "added_in_place": lambda f, x: f(x).add(0).add_(x),
    "scaled_down": lambda f, x: 0.5 * f(2 * x).sin(),
}


class Random(nn.Module):
    """The layers one after another, each run in its way; a linear head on the mean over positions."""

    def __init__(self, layout, c, layers, ways):
        super().__init__()
        self.layers, self.head = nn.ModuleList(layers), nn.Linear(c, 3)
        self.ways = ways
        self.positions = {"vectors": (), "images": (2, 3), "sequences": (1,), "sequence_first": (0,)}[layout]

    def forward(self, x):
        for layer, way in zip(self.layers, self.ways, strict=True):
            x = WAYS[way](layer, x)
        return self.head(x.mean(self.positions) if self.positions else x)


def batch_of(layout, n, c, size):
    shape = {"vectors": (n, c), "images": (n, c, size, size), "sequences": (n, size, c), "sequence_first": (size, n, c)}
    return torch.randn(shape[layout]).double(), torch.randint(0, 3, (n,))


@st.composite
def problems(draw):
    layout = draw(st.sampled_from(sorted(MENUS)))
    c, n, m = draw(st.integers(1, 6)), draw(st.integers(1, 9)), draw(st.integers(1, 5))
    size = draw(st.integers(3, 6))
    layers = draw(st.lists(st.sampled_from(range(len(MENUS[layout]))), min_size=1, max_size=4))
    ways = [draw(st.sampled_from(sorted(WAYS))) for _ in layers]
    assume(layout != "vectors" or min(n, m) > 1 or not any(MENUS[layout][i] in VECTORS for i in layers))
    return layout, c, n, m, size, layers, ways, draw(st.integers(0, 99))


def losses_fn(model, batch):
    x, target = batch
    return nn.functional.cross_entropy(model(x), target, reduction="none")


@settings(max_examples=80, deadline=None, derandomize=True)
@given(problems())
def test_random_nets(problem):
    layout, c, n, m, size, layers, ways, seed = problem
    torch.manual_seed(seed)
    model = Random(layout, c, [MENUS[layout][i](c) for i in layers], ways).double()
    batch, val_batch = batch_of(layout, n, c, size), batch_of(layout, m, c, size)
    s = oracle.scores(model, batch, val_batch, losses_fn=losses_fn)
    for method in METHODS:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "fastrw: this model is scored by one backward pass per example")
            try:
                found = fastrw.gradient_dots(model, batch, val_batch, losses_fn=losses_fn, method=method)
            except fastrw.Refused:
                if method in ("auto", "per_example"):
                    raise
                continue
        assert relative_error(found, s) <= SCORE_GOAL[torch.float64], method
