"""Recurrent models: whole layers, cells in a loop, packed sequences, learned initial states."""

from functools import partial

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from .case import ANY, LAYERWISE, case, forward
from .parts import direct_losses, drawn, learned, length_first, linear, net, series

LAYERS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
SETTINGS = {
    "batch_first": {},
    "two_layers": {"num_layers": 2},
    "bidirectional": {"bidirectional": True},
    "no_bias": {"bias": False},
}


def recurrent(name: str, layer: type[nn.Module], width: int = 5, **options) -> None:
    """A case with the layer and a head on its last step, whose outputs have this width."""
    cell = partial(layer, 6, 5, batch_first=True, **options)
    case(name, ANY, net(lambda net, x: net.head(net.cell(x)[0][:, -1]), cell=cell, head=linear(width, 4)), series)


for kind, layer in LAYERS.items():
    for setting, options in SETTINGS.items():
        recurrent(f"{kind}_{setting}", layer, 10 if setting == "bidirectional" else 5, **options)
recurrent("lstm_projected", nn.LSTM, 3, proj_size=3)


final_states = net(lambda net, x: net.head(net.cell(x)[0][-1]), cell=partial(nn.LSTM, 6, 5), head=linear(5, 4))
case("lstm_sequence_first", ANY, final_states, length_first, losses_fn=direct_losses)


@forward(ANY, series, cell=partial(nn.GRU, 6, 5, batch_first=True), start=learned(1, 1, 5), head=linear(5, 4))
def gru_learned_initial_state(net, x):
    return net.head(net.cell(x, net.start.expand(1, len(x), 5).contiguous())[1][0])


@forward(LAYERWISE, series, cell=partial(nn.LSTMCell, 6, 5), head=linear(5, 4))
def lstm_cell_loop(net, x):
    state = None
    for step in x.unbind(1):
        state = net.cell(step, state)
    return net.head(state[0])


@forward(LAYERWISE, series, cell=partial(nn.GRUCell, 6, 5), start=learned(1, 5), head=linear(5, 4))
def gru_cell_loop(net, x):
    state = net.start.expand(len(x), -1)
    for step in x.unbind(1):
        state = net.cell(step, state)
    return net.head(state)


@forward(LAYERWISE, series, enter=linear(6, 5), again=linear(5, 5, bias=False), head=linear(5, 4))
def recurrence_by_hand(net, x):
    """One weight used at every step."""
    state = torch.zeros_like(x[:, 0, :5])
    for step in x.unbind(1):
        state = torch.tanh(net.enter(step) + net.again(state))
    return net.head(state)


padded = drawn(8, lambda n: (torch.randn(n, 5, 6), torch.randint(1, 6, (n,))))
pack = partial(pack_padded_sequence, batch_first=True, enforce_sorted=False)
unpack = partial(pad_packed_sequence, batch_first=True)


@forward(ANY, padded, enter=linear(6, 6), cell=partial(nn.LSTM, 6, 5, batch_first=True), head=linear(5, 4))
def lstm_packed(net, x, lengths):
    """Rows in order of time, examples sorted by length."""
    states, _ = net.cell(pack(net.enter(x), lengths.cpu()))
    return net.head(unpack(states)[0].sum(1))


@forward(ANY, padded, enter=linear(6, 5), head=linear(5, 4))
def linear_on_packed_rows(net, x, lengths):
    packed = pack(x, lengths.cpu())
    rows = packed._replace(data=net.enter(packed.data).tanh())
    return net.head(unpack(rows)[0].sum(1))
