"""Spiking networks of snntorch, spikingjelly and norse, with surrogate gradients, and neurons that keep a state; neural
differential equations of torchdiffeq."""

from __future__ import annotations

from collections.abc import Callable

import norse.torch as N
import snntorch as snn
import torch
import torch.nn.functional as F
import torchdiffeq
from snntorch import surrogate
from spikingjelly.activation_based import functional, layer, neuron
from spikingjelly.activation_based import surrogate as jelly
from torch import Tensor, nn

from ..case import LAYERWISE, TANGENT, Case
from .fitted import Float32

CASES: list[Case] = []
STEPS, WIDTH, CLASSES = 4, 8, 3
PER_EXAMPLE = frozenset({"per_example"})


def rows(n: int = 5) -> tuple[Tensor, Tensor]:
    return 2 * torch.randn(n, 5), torch.randint(CLASSES, (n,))


def by_class(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def add(name: str, model: Callable[[], nn.Module], expect=LAYERWISE, data: Callable = rows) -> None:
    CASES.append(Case(name, model, data, expect, kwargs={"losses_fn": by_class}))


# spiking networks: the sum of what the last layer gives in STEPS steps


class Snn(nn.Module):
    """Neurons of snntorch keep their state in attributes, until it is reset."""

    def __init__(self, neuron: Callable[[], nn.Module], norm: Callable[[], nn.Module] = nn.Identity):
        super().__init__()
        self.enter, self.norm, self.neuron, self.head = nn.Linear(5, WIDTH), norm(), neuron(), nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        self.neuron.reset_mem()
        return sum(self.head(self.neuron(self.norm(self.enter(x))).to(x.dtype)) for _ in range(STEPS))


HIDDEN = {"init_hidden": True, "spike_grad": surrogate.fast_sigmoid(slope=2)}
add("snn_Leaky", lambda: Snn(lambda: snn.Leaky(0.8, **HIDDEN)))
add("snn_Leaky_learned", lambda: Snn(lambda: snn.Leaky(0.8, learn_beta=True, learn_threshold=True, **HIDDEN)))
add("snn_Leaky_atan", lambda: Snn(lambda: snn.Leaky(0.8, init_hidden=True, spike_grad=surrogate.atan())))
add("snn_Synaptic", lambda: Snn(lambda: snn.Synaptic(0.7, 0.8, **HIDDEN)))
add("snn_Alpha", lambda: Snn(lambda: snn.Alpha(0.9, 0.8, **HIDDEN)))
add("snn_Lapicque", lambda: Snn(lambda: snn.Lapicque(0.9, time_step=0.5, R=1, **HIDDEN)))
add(
    "snn_RLeaky", lambda: Float32(Snn(lambda: snn.RLeaky(0.8, linear_features=WIDTH, reset_mechanism="zero", **HIDDEN)))
)
add("snn_SLSTM", lambda: Float32(Snn(lambda: snn.SLSTM(WIDTH, WIDTH, **HIDDEN))))
add("snn_BatchNorm", lambda: Snn(lambda: snn.Leaky(0.8, **HIDDEN), lambda: nn.BatchNorm1d(WIDTH)), TANGENT)
# its threshold lies between the spikes of the batch
add("snn_Leaky_inhibition", lambda: Snn(lambda: snn.Leaky(0.8, inhibition=True, **HIDDEN)))


class Jelly(nn.Module):
    """Neurons of spikingjelly keep their state in a memory, until `reset_net`."""

    def __init__(self, *layers: Callable[[], nn.Module]):
        super().__init__()
        self.net = nn.Sequential(*(make() for make in layers))

    def forward(self, x: Tensor) -> Tensor:
        functional.reset_net(self.net)
        return sum(self.net(x) for _ in range(STEPS))


def jelly_net(neurons: Callable[[], nn.Module], *more: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: Jelly(lambda: nn.Linear(5, WIDTH), *more, neurons, lambda: nn.Linear(WIDTH, CLASSES))


add("jelly_IF", jelly_net(lambda: neuron.IFNode(surrogate_function=jelly.Sigmoid())))
add("jelly_LIF", jelly_net(lambda: neuron.LIFNode(2.0, surrogate_function=jelly.ATan(), detach_reset=True)))
add("jelly_LIF_soft_reset", jelly_net(lambda: neuron.LIFNode(2.0, v_reset=None, surrogate_function=jelly.ATan())))
add("jelly_ParametricLIF", jelly_net(lambda: neuron.ParametricLIFNode(2.0, surrogate_function=jelly.ATan())))
add("jelly_QIF", jelly_net(lambda: neuron.QIFNode(surrogate_function=jelly.Sigmoid())))
add("jelly_EIF", jelly_net(lambda: neuron.EIFNode(surrogate_function=jelly.Sigmoid())))
add("jelly_Izhikevich", jelly_net(lambda: neuron.IzhikevichNode(surrogate_function=jelly.Sigmoid())))
add("jelly_dropout", jelly_net(lambda: neuron.LIFNode(surrogate_function=jelly.ATan()), lambda: layer.Dropout(0.3)))
add("jelly_recurrent", jelly_net(lambda: layer.LinearRecurrentContainer(neuron.LIFNode(), WIDTH, WIDTH)))
add("jelly_BatchNorm", jelly_net(lambda: neuron.LIFNode(), lambda: layer.BatchNorm1d(WIDTH)), TANGENT)


class Norse(nn.Module):
    """Cells of norse are given their state."""

    def __init__(self, cell: Callable[[], nn.Module]):
        super().__init__()
        self.enter, self.cell, self.head = nn.Linear(5, WIDTH), cell(), nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        state, total = None, 0
        for _ in range(STEPS):
            spikes, state = self.cell(2 * self.enter(x), state)
            total = total + self.head(spikes)
        return total


PARAMETERS = N.LIFParameters(tau_mem_inv=torch.as_tensor(300.0), v_th=torch.as_tensor(0.3), alpha=torch.as_tensor(5.0))
add("norse_LIF", lambda: Norse(lambda: N.LIFCell(PARAMETERS)))
# a hook on its weight keeps the diagonal of the gradient 0
add("norse_LIFRecurrent", lambda: Norse(lambda: N.LIFRecurrentCell(WIDTH, WIDTH, PARAMETERS)), PER_EXAMPLE)
add("norse_LIFBox", lambda: Norse(lambda: N.LIFBoxCell(N.LIFBoxParameters(v_th=torch.as_tensor(0.2)))))
add("norse_LI", lambda: Norse(lambda: N.LICell()))
add("norse_LSNN", lambda: Norse(lambda: N.LSNNCell(N.LSNNParameters(v_th=torch.as_tensor(0.2)))))


# neural differential equations


class Field(nn.Module):
    def __init__(self, width: int, norm: Callable[[], nn.Module]):
        super().__init__()
        self.a, self.b, self.norm = nn.Linear(width, WIDTH), nn.Linear(WIDTH, width), norm()

    def forward(self, t: Tensor, h: Tensor) -> Tensor:
        return self.b(self.norm(self.a(h)).tanh()) * (1 + t)


class Ode(nn.Module):
    def __init__(self, norm: Callable[[], nn.Module] = nn.Identity, solve: Callable = torchdiffeq.odeint, **options):
        super().__init__()
        self.field, self.head, self.solve, self.options = Field(5, norm), nn.Linear(5, CLASSES), solve, options

    def forward(self, x: Tensor) -> Tensor:
        times = torch.linspace(0, 1, 2, dtype=x.dtype)
        return self.head(self.solve(self.field, x, times, **self.options)[-1])


def ode(name: str, expect=LAYERWISE, **options) -> None:
    add(name, lambda: Ode(**options), expect)


ode("ode_euler", method="euler")
ode("ode_rk4", method="rk4")
ode("ode_adams", method="explicit_adams", options={"step_size": 0.25})
# the length of the first step depends on all examples, and has a gradient
ode("ode_dopri5", TANGENT, method="dopri5", rtol=1e-3, atol=1e-3)
ode("ode_BatchNorm", TANGENT, norm=lambda: nn.BatchNorm1d(WIDTH), method="rk4")
# the adjoint is an autograd function that takes the parameters, and solves backwards: it is called once an example
ode("ode_adjoint_rk4", solve=torchdiffeq.odeint_adjoint, method="rk4")
ode("ode_adjoint_dopri5", solve=torchdiffeq.odeint_adjoint, method="dopri5", rtol=1e-3, atol=1e-3)
