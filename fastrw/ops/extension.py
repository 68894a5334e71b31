"""Loads the compiled library (`fastrw._C`, which registers torch.ops.fastrw.*), or keeps the reason why it cannot."""

import importlib
import os
import warnings
from types import ModuleType

import torch  # noqa: F401  (the library links to torch's: they must be in the process first)

BUILD_COMMAND = "pip install --no-build-isolation -e ."


class NotBuilt(UserWarning):
    """The compiled extension is missing or does not load: the ops run on the reference backend."""


def _load() -> tuple[ModuleType | None, str | None]:
    if os.environ.get("FASTRW_DISABLE_EXTENSION") == "1":
        return None, "FASTRW_DISABLE_EXTENSION=1 switches it off"
    try:
        return importlib.import_module("fastrw._C"), None
    except ModuleNotFoundError:
        return None, "it is not built"
    except ImportError as error:
        return None, f"it does not load ({' '.join(str(error).split())})"


_library, reason = _load()


def build_info() -> dict:
    """How the library was built: compiler, flags, torch, CUDA, and what it finds here; empty without the library."""
    return {} if _library is None else _library.build_info()


def free_workspaces() -> int:
    """Free the memory that is kept for per-example gradients to come, and return its bytes.

    A step makes the same gradients as the one before it, and fresh memory costs more than writing to it: conv_instance
    keeps the buffers that its results have let go of, 256 MiB at most. What a tensor still holds is not touched.
    """
    return 0 if _library is None else _library.free_workspaces()


def idle_workspaces() -> int:
    """Bytes of memory that `free_workspaces` would free."""
    return 0 if _library is None else _library.idle_workspaces()


def warn_if_missing() -> None:
    """One warning, with the command that builds the library; silent where it is loaded."""
    if reason is not None:
        text = f"fastrw: no compiled extension, {reason}: ops run on the reference backend; build it by {BUILD_COMMAND}"
        warnings.warn(text, NotBuilt, stacklevel=2)
