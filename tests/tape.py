"""What takes the place of a CUDA graph on a CPU: operations are recorded with the memory that they read and write, and
run again on that memory, without the Python between them."""

from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from fastrw.state import held, snapshot
from fastrw.state.copies import put_back
from fastrw.state.held import equal

aten = torch.ops.aten
WAITS = {aten._local_scalar_dense.default, aten.nonzero.default}


class Tape(TorchDispatchMode):
    made = 0  # records, so far

    def __init__(self, device):
        super().__init__()
        self._calls = []

    def record(self, run):
        Tape.made += 1
        with self, patch.object(held, "equal", unseen), patch.object(snapshot, "equal", unseen):
            found = run()
        put_back(found.before)  # recording computes nothing
        for *_, old in self._calls:
            for t in old.values():
                t.fill_(torch.nan if t.is_floating_point() else 0)
        return found

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function in WAITS:
            raise RuntimeError("operation not permitted when stream is capturing")
        kwargs = kwargs or {}
        found = function(*args, **kwargs)
        if torch.Tag.inplace_view in function.tags:  # the shape of the record's own tensor: it has it now
            return found
        given = {place(t) for t in tensors((args, kwargs))}
        fresh = {i: t.detach() for i, t in enumerate(tensors(found)) if place(t) not in given}
        self._calls.append((function, args, kwargs, fresh))
        return found

    def replay(self):
        with torch.no_grad():
            for function, args, kwargs, old in self._calls:
                new = tensors(function(*args, **kwargs))
                for i, t in old.items():
                    t.copy_(new[i])


def unseen(a, b):
    """Snapshots compare what is on a CPU; what is on a GPU they do not, while a graph is recorded."""
    with _disable_current_modes():
        return equal(a, b)


def tensors(values):
    return [t for t in tree_leaves(values) if isinstance(t, Tensor)]


def place(t):
    return t.untyped_storage()._cdata if t.layout == torch.strided else id(t)
