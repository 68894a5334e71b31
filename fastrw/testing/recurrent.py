"""Recurrent models: whole layers, cells in a loop, packed sequences, learned initial states."""

from functools import partial

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from .case import ANY, LAYERWISE, Net, case, labels, param, series

LAYERS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
SETTINGS = {
    "batch_first": {},
    "two_layers": {"num_layers": 2},
    "bidirectional": {"bidirectional": True},
    "no_bias": {"bias": False},
}


def last_step(net, x):
    return net.head(net.cell(x)[0][:, -1])


def recurrent(layer, bidirectional: bool = False, **options):
    cell = layer(6, 5, batch_first=True, bidirectional=bidirectional, **options)
    return Net(last_step, cell=cell, head=nn.Linear(10 if bidirectional else 5, 4)), series(8), series(4)


for kind, layer in LAYERS.items():
    for setting, options in SETTINGS.items():
        case(ANY, name=f"{kind}_{setting}")(partial(recurrent, layer, **options))


@case(ANY)
def lstm_projected():
    return Net(last_step, cell=nn.LSTM(6, 5, proj_size=3, batch_first=True), head=nn.Linear(3, 4)), series(8), series(4)


def sequence_first_losses(model, batch):
    x, target = batch
    return nn.functional.cross_entropy(model(x), target, reduction="none")


@case(ANY, losses_fn=sequence_first_losses)
def lstm_sequence_first():
    def batch(n):
        return torch.randn(5, n, 6), labels(n)

    return (
        Net(lambda net, x: net.head(net.cell(x)[0][-1]), cell=nn.LSTM(6, 5), head=nn.Linear(5, 4)),
        batch(8),
        batch(4),
    )


@case(ANY)
def gru_learned_initial_state():
    def rule(net, x):
        return net.head(net.cell(x, net.start.expand(1, len(x), 5).contiguous())[1][0])

    return (
        Net(rule, cell=nn.GRU(6, 5, batch_first=True), start=param(1, 1, 5), head=nn.Linear(5, 4)),
        series(8),
        series(4),
    )


@case(LAYERWISE)
def lstm_cell_loop():
    def rule(net, x):
        state = None
        for step in x.unbind(1):
            state = net.cell(step, state)
        return net.head(state[0])

    return Net(rule, cell=nn.LSTMCell(6, 5), head=nn.Linear(5, 4)), series(8), series(4)


@case(LAYERWISE)
def gru_cell_loop():
    def rule(net, x):
        state = net.start.expand(len(x), -1)
        for step in x.unbind(1):
            state = net.cell(step, state)
        return net.head(state)

    return Net(rule, cell=nn.GRUCell(6, 5), start=param(1, 5), head=nn.Linear(5, 4)), series(8), series(4)


@case(LAYERWISE)
def recurrence_by_hand():
    """One weight used at every step."""

    def rule(net, x):
        state = torch.zeros_like(x[:, 0, :5])
        for step in x.unbind(1):
            state = torch.tanh(net.enter(step) + net.again(state))
        return net.head(state)

    return (
        Net(rule, enter=nn.Linear(6, 5), again=nn.Linear(5, 5, bias=False), head=nn.Linear(5, 4)),
        series(8),
        series(4),
    )


def packed_rule(net, x, lengths):
    packed = pack_padded_sequence(net.enter(x), lengths.cpu(), batch_first=True, enforce_sorted=False)
    states, _ = pad_packed_sequence(net.cell(packed)[0], batch_first=True)
    return net.head(states.sum(1))


def packed_linear_rule(net, x, lengths):
    packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
    rows = packed._replace(data=net.enter(packed.data).tanh())
    return net.head(pad_packed_sequence(rows, batch_first=True)[0].sum(1))


def lengths_batch(n):
    return (torch.randn(n, 5, 6), torch.randint(1, 6, (n,))), labels(n)


@case(ANY)
def lstm_packed():
    """Rows in order of time, examples sorted by length."""
    parts = {"enter": nn.Linear(6, 6), "cell": nn.LSTM(6, 5, batch_first=True), "head": nn.Linear(5, 4)}
    return Net(packed_rule, **parts), lengths_batch(8), lengths_batch(4)


@case(ANY)
def linear_on_packed_rows():
    return Net(packed_linear_rule, enter=nn.Linear(6, 5), head=nn.Linear(5, 4)), lengths_batch(8), lengths_batch(4)
