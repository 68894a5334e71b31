"""Training with Reweighter beside training with Algorithm 1, from one seed: they stay together."""

import copy

import pytest
import torch
from torch import nn

import fastrw
from fastrw.ops.tolerance import relative_error
from tests import oracle

STEPS = 200


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.conv2, self.norm2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)

    def forward(self, x):
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(y)) + x)


def lenet():
    first = [nn.Conv2d(1, 3, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*first, nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 4))


def resnet_batchnorm():
    stem = [nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU()]
    return nn.Sequential(*stem, Block(4), Block(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4))


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.enter = nn.Linear(8, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, norm_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.layer(self.enter(x[:, 0])).mean(1))


@pytest.mark.parametrize("build", [lenet, resnet_batchnorm, Transformer])
def test_two_hundred_steps_stay_together(build):
    torch.manual_seed(0)
    ours = build().double()
    theirs = copy.deepcopy(ours)
    step = fastrw.Reweighter(ours)
    optimizers = [torch.optim.SGD(model.parameters(), 0.05, momentum=0.9) for model in (ours, theirs)]
    x, y = torch.randn(64, 1, 8, 8, dtype=torch.float64), torch.randint(4, (64,))
    draw = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        index = torch.randperm(64, generator=draw)
        batch, val_batch = (x[index[:8]], y[index[:8]]), (x[index[8:13]], y[index[8:13]])
        for optimizer in optimizers:
            optimizer.zero_grad()
        w = step.backward(batch, val_batch).weights
        expected = oracle.weights(oracle.algorithm_1(theirs, batch, val_batch))
        losses = oracle.losses(theirs, batch)
        (expected * losses).sum().backward()
        assert relative_error(w, expected) <= 1e-8
        for optimizer in optimizers:
            optimizer.step()
    pairs = zip([*ours.parameters(), *ours.buffers()], [*theirs.parameters(), *theirs.buffers()], strict=True)
    assert all(relative_error(p, q) <= 1e-8 for p, q in pairs)
