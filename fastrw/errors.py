"""What fastrw raises when a number would not be exact: it refuses, and says why."""


class Refused(ValueError):
    """A method or backend cannot serve this model exactly. The text names what is in the way, and the way out."""


class ForThisBatch(Refused):
    """This batch cannot be served; the next may be."""


class UntracedUse(Refused):
    """A gradient is changed on its way, where no formula can follow: by a hook of the user's."""


class CoupledExamples(Refused):
    """The examples of the batch influence each other (BatchNorm in training, in-batch losses), so Eq. 12 is wrong."""
