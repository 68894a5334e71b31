"""fastrw: exact example weights of "Learning to Reweight Examples" (Ren et al. 2018) from ordinary training passes."""

from fastrw import extension, fsr
from fastrw.backward import backward
from fastrw.errors import CoupledExamples, Refused, UntracedUse
from fastrw.extension import free_workspaces
from fastrw.meta_weights import explain, gradient_dots, meta_weights
from fastrw.report import Report, Step, UseReport
from fastrw.reweighter import Reweighter
from fastrw.verify import VerificationError, VerifyReport, verify

__version__ = "0.1.0"
__all__ = [
    "CoupledExamples",
    "Refused",
    "Report",
    "Reweighter",
    "Step",
    "UntracedUse",
    "UseReport",
    "VerificationError",
    "VerifyReport",
    "backward",
    "explain",
    "free_workspaces",
    "fsr",
    "gradient_dots",
    "meta_weights",
    "verify",
]

extension.warn_if_missing()
