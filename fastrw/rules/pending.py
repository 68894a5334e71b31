"""Tangents that wait for the operation that reads them. BatchNorm's waits for the addition and the ReLU that follow it
in a residual network: all three are one pass. A convolution's has the sums that a BatchNorm asks for at hand.

What waits is exact: it remembers the versions of what it will be made of and raises `Moved` where one was changed in
place meanwhile; the caller runs again without waiting."""

from dataclasses import dataclass

from torch import Tensor

from fastrw.ops import backends, batch_norm_tangent, relu_tangent


class RunAgain(Exception):
    """What this run has learned of the model, or hoped of it, does not hold: run again without."""


class Moved(RunAgain):
    """A tensor that a waiting tangent is made of was changed in place."""


@dataclass(frozen=True, slots=True, eq=False)
class Summed:
    """A tangent t [n, C, ...] of y, and [2, C]: its sum and that of t y over examples and positions."""

    tangent: Tensor
    sums: Tensor


@dataclass(slots=True, eq=False)
class Normed:
    """The tangent of a BatchNorm's output, or of that plus what has a tangent of its own, before it is formed.

    made_of: the arguments of `batch_norm_tangent` from x to d_bias. All but the tangents among them may be changed by
    the model.
    """

    made_of: tuple[Tensor | None, ...] | None  # None once it is formed
    sums: Tensor | None
    backend: str
    residual: Tensor | None = None
    formed: Tensor | None = None
    versions: tuple[int, ...] | None = None  # of made_of, when it was read

    def __post_init__(self):
        if self.versions is None:
            self.versions = self._versions()

    def _versions(self) -> tuple[int, ...]:
        return tuple(t._version for t in self.made_of if t is not None)

    def form(self) -> Tensor:
        """The tangent itself: formed at the first call, kept for the next."""
        if self.formed is None:
            self.formed = self._pass(None)
            self.made_of = self.residual = None
        return self.formed

    def masked(self, output: Tensor) -> Tensor:
        """The tangent of a ReLU's output that reads this."""
        if self.formed is not None:
            return through_relu(self.formed, output, self.backend)
        return self._pass(output)

    def plus(self, other: Tensor) -> "Normed | Tensor":
        """The tangent of a sum with something of this shape, whose tangent is `other`."""
        if self.formed is not None or self.residual is not None:
            return self.form() + other
        return Normed(self.made_of, self.sums, self.backend, other, versions=self.versions)

    def _pass(self, output: Tensor | None) -> Tensor:
        if self._versions() != self.versions:
            raise Moved
        args = (*self.made_of, self.residual, output, self.sums)
        return batch_norm_tangent(*args, backend=serving("batch_norm_tangent", self.backend, *args))


def through_relu(t: Tensor, output: Tensor, backend: str) -> Tensor:
    """The tangent of a ReLU's output."""
    return relu_tangent(t, output, backend=serving("relu_tangent", backend, t, output))


def serving(op: str, asked: str, *args) -> str:
    """The backend asked for; where it has no kernel for these arguments, the fastest that has."""
    entry = backends.get(op)
    can = asked in entry.backends and entry.refusal(entry.backends[asked], *args) is None
    return asked if can else backends.choose(op, "auto", *args).name


Tangent = Tensor | Summed | Normed


def formed(t: Tangent) -> Tensor:
    return t.form() if isinstance(t, Normed) else t.tangent if isinstance(t, Summed) else t


class Tangents(dict[int, Tangent]):
    """Of the arguments of one call, by id: formed when they are looked at, but for `waiting`."""

    def __init__(self, found: dict[int, Tangent], backend: str = "auto", waits: bool = False):
        super().__init__(found)
        self.backend, self.waits = backend, waits

    def __getitem__(self, key: int) -> Tensor:
        return formed(super().__getitem__(key))

    def get(self, key: int) -> Tensor | None:
        t = super().get(key)
        return None if t is None else formed(t)

    def waiting(self, argument) -> Tangent | None:
        """The tangent of an argument as it is."""
        return super().get(id(argument))
