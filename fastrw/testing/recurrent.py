"""Recurrent models: whole layers, cells in a loop, packed sequences, learned initial states."""

from functools import partial

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from .batches import drawn, length_first, series
from .case import ANY, case, features, named
from .parts import direct_losses, headed, learned, linear


def recurrent(name: str, layer: type[nn.Module], width: int = 5, **options) -> None:
    """A case with the layer and a head on its last step, whose outputs have this width."""
    cell = partial(layer, 6, 5, batch_first=True, **options)
    features(name, lambda net, x: net.cell(x)[0][:, -1], series, width=width, cell=cell, expect=ANY)


for kind, layer in {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}.items():
    recurrent(f"{kind}_batch_first", layer)
    recurrent(f"{kind}_two_layers", layer, num_layers=2)
    recurrent(f"{kind}_bidirectional", layer, 10, bidirectional=True)
    recurrent(f"{kind}_no_bias", layer, bias=False)
recurrent("lstm_projected", nn.LSTM, 3, proj_size=3)

final_states = headed(lambda net, x: net.cell(x)[0][-1], cell=partial(nn.LSTM, 6, 5))
case("lstm_sequence_first", final_states, length_first, losses_fn=direct_losses, expect=ANY)
features("gru_learned_initial_state", lambda net, x: net.cell(x, net.start.expand(1, len(x), 5).contiguous())[1][0],
         series, cell=partial(nn.GRU, 6, 5, batch_first=True), start=learned(1, 1, 5), expect=ANY)  # fmt: skip


def loop(cell, x, state=None):
    """The last state of `state = cell(step, state)`, over the steps of x [n, length, 6]."""
    for step in x.unbind(1):
        state = cell(step, state)
    return state


def by_hand(net, x):
    """One weight used at every step."""
    return loop(lambda step, state: torch.tanh(net.enter(step) + net.again(state)), x, torch.zeros_like(x[:, 0, :5]))


features("lstm_cell_loop", lambda net, x: loop(net.cell, x)[0], series, cell=partial(nn.LSTMCell, 6, 5))
features("gru_cell_loop", lambda net, x: loop(net.cell, x, net.start.expand(len(x), -1)),
         series, cell=partial(nn.GRUCell, 6, 5), start=learned(1, 5))  # fmt: skip
features("recurrence_by_hand", by_hand, series, enter=linear(6, 5), again=linear(5, 5, bias=False))

padded = drawn(8, lambda n: (torch.randn(n, 5, 6), torch.randint(1, 6, (n,))))
pack = partial(pack_padded_sequence, batch_first=True, enforce_sorted=False)
unpack = partial(pad_packed_sequence, batch_first=True)
# Rows in order of time, examples sorted by length.
features("lstm_packed", lambda net, x, lengths: unpack(net.cell(pack(net.enter(x), lengths.cpu()))[0])[0].sum(1),
         padded, enter=linear(6, 6), cell=partial(nn.LSTM, 6, 5, batch_first=True), expect=ANY)  # fmt: skip


@named(features, padded, enter=linear(6, 5), expect=ANY)
def linear_on_packed_rows(net, x, lengths):
    packed = pack(x, lengths.cpu())
    return unpack(packed._replace(data=net.enter(packed.data).tanh()))[0].sum(1)
