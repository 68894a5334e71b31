"""BatchNorm's tangent waits for what reads it, and is exact whatever that is and whatever happens meanwhile."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fastrw
from fastrw.nodes import lazy
from fastrw.ops.tolerance import SCORE_GOAL, relative_error
from tests import oracle


class Block(nn.Module):
    """Two convolutions with a BatchNorm each, a shortcut with a third, and `end`, which joins them."""

    def __init__(self, end):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.norm2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.short, self.norm3 = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.end, self.head = end, nn.Linear(4, 4)

    def forward(self, x):
        y = F.relu(self.norm1(self.conv1(x)))
        return self.head(self.end(self, self.conv2(y), self.short(x)).mean((2, 3)))


def plain(net, y, x):
    return F.relu(net.norm2(y) + x)


def in_place(net, y, x):
    z = net.norm2(y)
    z += x
    return F.relu_(z)


def other_side_in_place(net, y, x):
    x += net.norm2(y)
    return x.relu_()


def both_normed(net, y, x):
    return F.relu(net.norm2(y) + net.norm3(x), inplace=True)


def added_twice(net, y, x):
    return F.relu(net.norm2(y) + x + x.sigmoid())


def to_itself(net, y, x):
    z = net.norm2(y)
    return F.relu(z + z)


def several_readers(net, y, x):
    z = net.norm2(y)
    total = z + x
    return F.relu(total) + F.relu(z) * total + F.relu(total.sin())


def broadcast(net, y, x):
    return F.relu(net.norm2(y) + x.mean((0, 2, 3), keepdim=True)) + F.relu(0.5 + net.norm3(x))


def subtracted(net, y, x):
    z = net.norm2(y)
    z -= x
    z.add_(x, alpha=0.3)
    return F.relu(x - z)


def in_evaluation(net, y, x):
    net.norm2.eval()
    return F.relu(net.norm2(y) + x)


def no_affine(net, y, x):
    return F.relu(
        F.batch_norm(y, None, None, training=True) + F.batch_norm(x, None, None, net.norm3.weight, None, True)
    )


def of_the_input(net, y, x):
    return F.relu(net.norm2(y) + net.norm3(x.detach()))


def never_read(net, y, x):
    net.norm2(y)
    return net.norm3(x).relu()


def changed_before_the_addition(net, y, x):
    z = net.norm2(y)
    change(y)
    return F.relu(z + x)


def changed_after_the_addition(net, y, x):
    z = net.norm2(y) + x
    change(y)
    return F.relu(z)


def change(y):
    """Of the training batch alone."""
    if len(y) > 4:
        with torch.no_grad():
            y.mul_(0.5)


ENDS = [plain, in_place, other_side_in_place, both_normed, added_twice, to_itself, several_readers, broadcast]
ENDS += [subtracted, in_evaluation, no_affine, of_the_input, never_read]
MOVED = [changed_before_the_addition, changed_after_the_addition]


def make(end, dtype=torch.float64):
    torch.manual_seed(0)
    batches = [(torch.randn(n, 3, 6, 5, dtype=dtype), torch.randint(0, 4, (n,))) for n in (7, 4)]
    return Block(end).to(dtype), *batches


@pytest.fixture
def passes(monkeypatch):
    """What each pass that was run took in besides BatchNorm itself."""
    found, run = [], lazy.served

    def spy(op, backend, *args):
        found.append("".join(letter for letter, x in zip("ros", args[-3:], strict=True) if x is not None))
        return run(op, backend, *args)

    monkeypatch.setattr(lazy, "served", spy)
    return found


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_exact(end, memory):
    net, *batches = make(end)
    net, batches = net.to(memory_format=memory), [(x.to(memory_format=memory), labels) for x, labels in batches]
    for _ in range(2):
        s = fastrw.gradient_dots(net, *batches, method="tangent")
        assert relative_error(s, oracle.scores(net, *batches)) <= SCORE_GOAL[torch.float64]


@pytest.mark.parametrize("end", ENDS[:4], ids=lambda end: end.__name__)
def test_the_addition_and_the_relu_are_in_the_pass(end, passes):
    """One pass for each BatchNorm, and two where two meet."""
    fastrw.gradient_dots(*make(end), method="tangent")
    assert [kinds.replace("s", "") for kinds in passes] == (["o", "", "ro"] if end is both_normed else ["o", "ro"])


@pytest.mark.parametrize("end", MOVED, ids=lambda end: end.__name__)
def test_what_changed_meanwhile_is_found(end):
    """In torch's own words, as a plain backward would say it."""
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        fastrw.gradient_dots(*make(end), method="tangent")
