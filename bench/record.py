"""What every result carries (machine, versions, command, commit), and writing it whole or not at all."""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

import torch
from rich.console import Console

from fastrw.demo.resume import replacing

ROOT = Path(__file__).resolve().parent.parent


def device() -> str:
    """Where a benchmark runs unless told otherwise."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def header(device: str) -> dict:
    """Where, when and with what a figure was taken."""
    try:
        from triton import __version__ as triton
    except ImportError:
        triton = None
    python, pytorch = platform.python_version(), torch.__version__
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command([sys.executable, *sys.orig_argv[1:]]),
        "commit": commit(),
        "versions": {"python": python, "torch": pytorch, "triton": triton, "cuda": torch.version.cuda},
        "machine": machine(device),
        "load": os.getloadavg(),
    }


def command(words: Sequence[str]) -> str:
    """As one would type it, wherever this Python lies."""
    return " ".join("python" if word == sys.executable else word for word in words)


def machine(device: str) -> dict:
    try:
        said = dict(re.findall(r"^(model name|vendor_id)\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE))
        cpu = f"{said.get('model name', platform.machine())} ({said.get('vendor_id', 'vendor unknown')})"
    except OSError:
        cpu = platform.processor()
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "mkl": torch.backends.mkl.is_available(),
        **({"gpu": torch.cuda.get_device_name()} if device.startswith("cuda") else {}),
    }


def place(machine: dict) -> str:
    """The machine of a result in a few words."""
    return f"{machine.get('gpu', machine['cpu'])}, {machine['threads']} threads"


def caution(machine: dict) -> str:
    """Why a ratio taken here may not hold elsewhere; empty when nothing is known against it."""
    if machine["mkl"] and "AMD" in machine["cpu"] and machine["cpu_capability"] == "AVX512":
        return (
            "torch's MKL may run float32 products (torch.mm) of this AMD CPU below the rate of AVX-512; "
            "a step whose other products run faster can then have a ratio below its FLOP floor."
        )
    return ""


def commit() -> str | None:
    """The commit of the tree that was measured, marked when the tree differs from it, in a packed copy too; or None."""
    command = [sys.executable, ".ci/carry.py", "commit"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip() or None


def tool(name: str) -> str | None:
    """The path of a tool of the CUDA toolkit, or None."""
    homes = [os.environ.get("CUDA_HOME", "/usr/local/cuda"), "/usr/local/cuda"]
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(f"{home}/bin" for home in homes))


def console() -> Console:
    """The console for tables, wide enough for them where the output is a file too."""
    return Console(width=max(Console().width, 120))


@contextmanager
def progress(about: str = "") -> Iterator[Callable[[str], None]]:
    """A function that says on one line of a terminal what is being done."""
    with Console(stderr=True).status("") as status:
        yield lambda doing: status.update(about + doing)


def write_whole(path: str | os.PathLike, content: bytes) -> None:
    """Put `content` at `path` in one step: a reader sees the old file or the new one, never a part."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: str | os.PathLike | None, result: dict) -> None:
    """The result as JSON at `path`; without a path nothing is written."""
    if path is not None:
        write_whole(path, (json.dumps(result, indent=1) + "\n").encode())
