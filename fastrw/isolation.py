"""Nothing moves: buffers and random states are put back, so that scoring leaves no trace on the model or its user."""

import random
import sys

import torch

from fastrw.problem import Problem


class State:
    """The buffers of a model and every random state, as they were when this was made; `rewind` puts them back.

    Buffers are written through `.data`: batch_norm moves its running statistics without a version bump, and so must we,
    or a graph that is still alive would refuse its backward.
    """

    def __init__(self, problem: Problem):
        modules = problem.modules.values()
        self._owners = [(module._buffers, dict(module._buffers)) for module in modules]
        tensors = [b for _, before in self._owners for b in before.values() if b is not None]
        tensors += [m.weight for m in modules if vars(m).get("max_norm") is not None]  # renormed in place
        self._tensors = [(t, t.detach().clone()) for t in tensors]
        devices = {t.device for t in (*problem.params.values(), *tensors) if t.is_cuda}
        if devices and torch.cuda.is_current_stream_capturing():
            devices = set()  # see calls.RandomState
        self._cuda = [(device, torch.cuda.get_rng_state(device)) for device in devices]
        self._cpu, self._python = torch.get_rng_state(), random.getstate()
        self._numpy = sys.modules["numpy"].random.get_state() if "numpy" in sys.modules else None

    def buffers_moved(self) -> bool:
        """Has a forward written into a buffer, or put another in its place?"""
        for now, before in self._owners:
            if [*map(id, now.values())] != [*map(id, before.values())]:
                return True
        return not all(torch.equal(tensor, value) for tensor, value in self._tensors)

    def rewind(self) -> None:
        for now, before in self._owners:
            if [*map(id, now.values())] != [*map(id, before.values())]:
                now.clear()
                now.update(before)
        for tensor, value in self._tensors:
            tensor.data.copy_(value)
        for device, state in self._cuda:
            torch.cuda.set_rng_state(state, device)
        torch.set_rng_state(self._cpu)
        random.setstate(self._python)
        if self._numpy is not None:
            sys.modules["numpy"].random.set_state(self._numpy)
