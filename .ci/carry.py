"""The extension on a GPU machine without a network: built here, taken along, put in place there. Standard library only.

`pack` builds it for the Python of that machine. `use`, there, puts it in place where it was built from the sources that
lie there and serves, and else builds it there. Nothing is installed, and torch is not moved.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from set_up import (
    LOG,
    ROOT,
    Failed,
    answer,
    called,
    check_compiler,
    check_writable,
    here,
    last_error,
    run,
    say,
    started,
)

CARRIED = ROOT / "build" / "gpu-carry"
LIBRARY = Path(
    "fastrw", f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"
)  # in the tree, and in the folder that is carried

BUILT_FROM = ("setup.py", "csrc")
MEASURED = (*BUILT_FROM, "fastrw", "kernels", "bench", "tests")
KINDS = (".py", ".cpp", ".h", ".cu", ".cuh")

BUILD = (sys.executable, "setup.py", "build_ext")
ASK = """
import os, platform, sysconfig
headers = os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h"))
print(platform.python_version() if headers else "")"""
# On a GPU one kernel is run: a library built for other chips loads all the same.
SERVES = """
import warnings
warnings.simplefilter("ignore")
import torch
from fastrw.ops import extension
why = extension.reason
if why is None and torch.cuda.is_available():
    if extension.build_info()["cuda"] is None:
        why = "it holds no CUDA code"
    elif torch.ops.fastrw.rectify_normalize(torch.ones(4, device="cuda")).tolist() != [0.25] * 4:
        why = "its CUDA code gives a wrong result"
print(why or "it serves")"""
CHIP = "import torch; print('{}.{}'.format(*torch.cuda.get_device_capability()))"


# What lies here


def sources(names: tuple[str, ...]) -> list[Path]:
    """Links are not followed: fastrw/kernels may be one."""
    files = [path for name in names for path in (ROOT / name, *(ROOT / name).rglob("*"))]
    return sorted(path for path in files if path.suffix in KINDS and path.is_file())


def digest(names: tuple[str, ...]) -> str:
    found = hashlib.sha256()
    for path in sources(names):
        content = path.read_bytes()
        found.update(f"{path.relative_to(ROOT)} {len(content)}\n".encode() + content)
    return found.hexdigest()


def described() -> str | None:
    """The commit of this tree, marked where the tree differs from it; None outside a clone."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    ours = os.environ | {"GIT_CEILING_DIRECTORIES": str(ROOT.parent)}  # a copy inside another clone is not of that one
    try:
        found = subprocess.run(command, cwd=ROOT, env=ours, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def packed() -> dict:
    """What `pack` has noted."""
    try:
        return json.loads((CARRIED / "packed.json").read_text())
    except (OSError, ValueError):
        return {}


# The stages


def pack(python: str) -> None:
    """With the objects of the last build, as all but one serve every Python: seconds after `make build`."""
    version = answer(Path(python), ASK)
    if not version:
        raise Failed(
            f"{python} does not start or lacks its C headers (Python.h): name one of the GPU machine's version, with "
            "headers and without need of torch, by make gpu-carry CARRY_PYTHON=/path/to/python3.12"
        )
    check_writable(LOG.parent)
    shutil.rmtree(CARRIED, ignore_errors=True)
    say(f"building the extension for Python {version} on a GPU machine")
    to_carry = {"FASTRW_PYTHON": python, "FASTRW_CUDA": "1"}
    run("building the extension", LOG.parent, *BUILD, "--build-lib", str(CARRIED), **to_carry)
    note = {"commit": described(), "built from": digest(BUILT_FROM), "measured": digest(MEASURED)}
    (CARRIED / "packed.json").write_text(json.dumps(note, indent=1) + "\n")
    size = sum(path.stat().st_size for path in CARRIED.rglob("*"))
    say(f"take along {here(CARRIED)} ({size / 2**20:.0f} MiB) with the source tree")


def use(limit: float) -> None:
    """The extension into the source tree, and fastrw.kernels where `import fastrw` finds them."""
    start = time.monotonic()
    check_writable(ROOT / "fastrw")
    link_kernels()
    for which, place in {"carried": carry_in, "in the source tree": left_here}.items():
        if (why := place()) is None:
            return say(f"the extension {which} serves ({time.monotonic() - start:.0f} s)")
        say(f"the extension {which} cannot be used: {why}")
    check_writable(LOG.parent)
    check_compiler()
    say("building the extension")
    fresh = {"FASTRW_PYTHON": "", "FASTRW_KEEP": "0"}
    if "TORCH_CUDA_ARCH_LIST" not in os.environ and (chip := answer(Path(sys.executable), CHIP)):
        fresh["TORCH_CUDA_ARCH_LIST"] = chip  # no other needs it here
    run("building the extension", LOG.parent, *BUILD, "--inplace", limit=limit, **fresh)
    if (why := unfit()) is not None:
        raise Failed(f"the extension that was built here cannot be used: {why}")
    say(f"the extension is built ({time.monotonic() - start:.0f} s)")


def link_kernels() -> None:
    """They lie beside the package, and an installation puts them into it; where there is none a link does."""
    for finder in sys.meta_path:
        if spec := finder.find_spec("fastrw.kernels", [str(ROOT / "fastrw")]):
            if Path(spec.origin).resolve().parent == ROOT / "kernels":
                return
            break
    (ROOT / "fastrw" / "kernels").symlink_to("../kernels")


def carry_in() -> str | None:
    """None when the library that was carried is in place and serves, or why not."""
    carried, placed = CARRIED / LIBRARY, ROOT / LIBRARY
    if not carried.exists():
        return f"no {here(carried)}"
    if packed().get("built from") != digest(BUILT_FROM):
        return "it was built from other sources"
    if not placed.exists() or placed.read_bytes() != carried.read_bytes():
        half = placed.with_suffix(".half")
        shutil.copy(carried, half)
        os.replace(half, placed)  # what has loaded the old one keeps it
    return unfit()


def left_here() -> str | None:
    """None when the library in the tree is newer than its sources and serves, or why not."""
    placed = ROOT / LIBRARY
    if not placed.exists():
        return "there is none"
    kept = os.environ.get("FASTRW_KEEP") == "1"
    if not kept and any(path.stat().st_mtime > placed.stat().st_mtime for path in sources(BUILT_FROM)):
        return "its sources are newer"
    return unfit()


def unfit() -> str | None:
    """Why the library in the tree does not serve; None where it does."""
    first = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    try:
        tried = called([sys.executable, "-c", SERVES], limit=120, PYTHONPATH=first, FASTRW_DISABLE_EXTENSION="0")
    except subprocess.TimeoutExpired:
        return "it has no answer after 120 s"
    said = tried.stdout.strip().splitlines()
    if tried.returncode:
        return last_error(tried.stdout)
    return None if said[-1] == "it serves" else said[-1]


def commit() -> None:
    """Prints what was measured: the commit of this clone, or in a copy the one that it was packed at."""
    found, note = described(), packed()
    if found is None and (found := note.get("commit")) and note.get("measured") != digest(MEASURED):
        found = f"{found.removesuffix('-dirty')}-dirty"
    print(found or "")


def main() -> None:
    parser = argparse.ArgumentParser(prog=here(Path(__file__).resolve()), description=__doc__)
    stages = parser.add_subparsers(dest="stage", required=True)
    stage = stages.add_parser("pack", help="build the extension for a GPU machine into build/gpu-carry")
    stage.add_argument("python", help="one of that machine's version, with its C headers")
    stage = stages.add_parser("use", help="on that machine: put it in place for this Python, or build it")
    stage.add_argument("--limit", type=float, default=150, help="seconds that a build may take (default: 150)")
    stages.add_parser("commit", help="print the commit that this tree is of; in a copy without .git that of `pack`")
    given = vars(parser.parse_args())
    os.chdir(ROOT)  # as setup.py needs it
    started({"pack": pack, "use": use, "commit": commit}, given)


if __name__ == "__main__":
    main()
