"""fastrw: exact example weights of "Learning to Reweight Examples" (Ren et al. 2018) from ordinary training passes."""

from fastrw import data, fsr
from fastrw.api.backward import backward
from fastrw.api.meta_weights import explain, gradient_dots, meta_weights
from fastrw.api.reweighter import Reweighter
from fastrw.api.verify import VerificationError, VerifyReport, verify
from fastrw.engine.report import Report, Step, UseReport
from fastrw.errors import CoupledExamples, Refused, UntracedUse
from fastrw.ops import extension
from fastrw.ops.extension import free_workspaces

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
    "data",
    "explain",
    "free_workspaces",
    "fsr",
    "gradient_dots",
    "meta_weights",
    "verify",
]

extension.warn_if_missing()
