"""What fastrw raises when a number would not be exact: it refuses, and says why."""


class Refused(ValueError):
    """A method or backend cannot serve this model exactly. The text names the operation, the parameter and the way out."""


class UntracedUse(Refused):
    """A parameter meets the batch where the recording cannot see it (a custom autograd.Function, a compiled submodule)."""


class CoupledExamples(Refused):
    """The examples of the batch influence each other (BatchNorm in training, in-batch losses): Eq. 12 row by row is wrong."""
