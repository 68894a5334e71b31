"""What fastrw raises when a number would not be exact."""


class Refused(ValueError):
    """A method or backend is not exact for this model. The text names the reason and, if there is one, a way out."""


class ForThisBatch(Refused):
    """This batch is not supported; the next one may be."""


class UntracedUse(Refused):
    """A gradient is changed by a hook of the user, which no formula can take into account."""


class CoupledExamples(Refused):
    """An operation mixes the batch dimension (BatchNorm in training, in-batch losses), so Eq. 12 does not hold."""
