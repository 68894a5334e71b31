"""Steps that are captured and eager, side by side: what the tests of capture share."""

import copy

import torch
from torch import nn

import fastrw
from fastrw.ops.tolerance import SCORE_GOAL, relative_error

NORMS = {
    "group": lambda: nn.GroupNorm(2, 4),
    "batch": lambda: nn.BatchNorm2d(4),  # in training, it mixes examples: served by tangents
    "running": lambda: nn.BatchNorm2d(4).eval(),
}
FORMS = {
    "assembled": ("group", {}),
    "said to be assembled": ("group", {"update": "assembled"}),
    "backward": ("group", {"update": "backward"}),
    "last": ("group", {"params": "last"}),
    "tangent": ("group", {"method": "tangent"}),
    "batch norm": ("batch", {}),
    "batch norm, tangent": ("batch", {"method": "tangent"}),
    "batch norm, backward": ("batch", {"update": "backward"}),
    "batch norm, last": ("batch", {"params": "last"}),
    "batch norm, layerwise": ("batch", {"params": "last", "method": "layerwise", "update": "backward"}),
    "running statistics": ("running", {}),
    "every": ("batch", {"every": 2}),
    "scaled": ("group", {"normalize": "shift"}),
}


def model_and_batches(device, *shapes, dtype=torch.float32, norm="group"):
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3, padding=1), NORMS[norm](), nn.ReLU(), nn.Flatten(), nn.Linear(100, 3)]
    model = nn.Sequential(*layers).to(device, dtype)
    batches = [
        tuple((torch.randn(k, 2, 5, 5, dtype=dtype).to(device), torch.randint(3, (k,)).to(device)) for k in sizes)
        for sizes in shapes
    ]
    return model, batches


def both(model, **options):
    """(model, step, optimizer), captured and eager."""
    return [(m, fastrw.Reweighter(m, capture=c, **options), torch.optim.SGD(m.parameters(), 0.1))
            for m, c in ((model, True), (copy.deepcopy(model), False))]  # fmt: skip


def graphs(step):
    return [kind.captured for kind in step._graphs._kinds.values() if kind.captured is not None]


def assert_same_step(captured, expected, goal=SCORE_GOAL[torch.float64]):
    assert (captured.method, captured.update) == (expected.method, expected.update)
    for what in ("weights", "scores", "losses", "val_loss"):
        found, truth = getattr(captured, what), getattr(expected, what)
        assert (found is None) == (truth is None)
        assert truth is None or torch.equal(found.isfinite(), truth.isfinite())
        assert truth is None or relative_error(*(t.double().nan_to_num(0, 0, 0) for t in (found, truth))) <= goal


def assert_same_model(model, other, goal=SCORE_GOAL[torch.float64]):
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert relative_error(one.detach().double(), two.detach().double()) <= goal
        assert (one.grad is None) == (two.grad is None)
        assert one.grad is None or relative_error(one.grad.double(), two.grad.double()) <= goal
    for one, two in zip(model.buffers(), other.buffers(), strict=True):
        assert relative_error(one.double(), two.double()) <= goal
