"""The CUDA sources of csrc/cuda, run on the CPU under AddressSanitizer and UBSan; and bugs planted for them to find."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HERE = ROOT / "tests/cuda_on_cpu"
SANITIZED = [
    "-std=c++20",
    "-O1",  # without which an array that is too short is not found
    "-g1",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-fsanitize-sections=emulated_shared",
]


@pytest.fixture(scope="module")
def compile_command() -> list[str]:
    """g++ with sanitizers, told where CUDA's headers are."""
    cxx = shutil.which("g++")
    if cxx is None or "Free Software Foundation" not in _output(cxx, "--version"):
        pytest.skip("needs GCC's g++: it alone sanitizes a section of its own")
    if not Path(_output(cxx, "-print-file-name=libasan.so")).is_absolute():
        pytest.skip("needs g++ with AddressSanitizer")
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    includes = [Path(home) / "include" for home in homes if home and (Path(home) / "include/cuda_fp16.h").exists()]
    if not includes:
        pytest.skip("needs the headers of a CUDA toolkit: set CUDA_HOME")
    return [cxx, *SANITIZED, f"-I{HERE}", f"-I{includes[0]}"]


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _compile(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def planted(compile_command, tmp_path_factory) -> str:
    program = str(tmp_path_factory.mktemp("planted") / "planted")
    _compile(*compile_command, str(HERE / "planted.cpp"), "-o", program)
    return program


BUGS = {
    0: "right",
    1: "heap-buffer-overflow",  # no test of the tail
    2: "wrong",  # a barrier missing
    3: "deadlock: 1 of 64 threads at __syncthreads",  # a barrier in a branch
    4: "insufficient space",  # a shared array too short
    5: "lanes of one warp meet at different lines",  # a shuffle in a branch
    6: "heap-buffer-overflow",  # a row past the last
    7: "wrong",  # shared memory never written
    8: "heap-buffer-overflow",  # a store past the end
}


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_are_found(planted, bug):
    done = subprocess.run([planted, str(bug)], capture_output=True, text=True, timeout=600)
    assert (done.returncode == 0) == (bug == 0)
    assert BUGS[bug] in done.stdout + done.stderr


def test_ops_are_right_and_clean(compile_command, tmp_path):
    """Takes over 10 s: every CUDA source is compiled with two sanitizers, and every thread of a GPU is emulated."""
    from torch.utils.cpp_extension import include_paths, library_paths

    library = str(tmp_path / "fastrw_on_cpu.so")
    torch_flags = [*(f"-isystem{p}" for p in include_paths()), "-DTORCH_TARGET_VERSION=0x020b000000000000"]
    links = [*(f"-L{p}" for p in library_paths()), "-lc10", "-ltorch_cpu"]
    whole = tmp_path / "whole.cpp"  # one file: torch's headers are read once
    sources = [*sorted(ROOT.glob("csrc/cuda/*.cu")), HERE / "library.cpp"]
    whole.write_text("".join(f'#include "{source}"\n' for source in sources))
    _compile(*compile_command, *torch_flags, "-shared", "-fPIC", str(whole), "-o", library, *links)

    preload = " ".join(_output(compile_command[0], f"-print-file-name=lib{name}.so") for name in ("asan", "stdc++"))
    environment = os.environ | {"LD_PRELOAD": preload, "ASAN_OPTIONS": "detect_leaks=0", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(HERE / "run.py"), library]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("right") > 500
