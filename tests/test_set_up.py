"""What `make` says where something is missing: one sentence. Compilers and pip are acted; nothing is installed."""

import errno
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
VERSION = "{}.{}".format(*sys.version_info)


@pytest.fixture
def set_up(monkeypatch, tmp_path):
    """The script as a module, with a source tree of its own in which Python.h lies."""
    spec = importlib.util.spec_from_file_location("set_up", ROOT / ".ci/set_up.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "tree/fastrw").mkdir(parents=True)
    shutil.copy(ROOT / "pyproject.toml", tmp_path / "tree")
    (tmp_path / "include").mkdir()
    (tmp_path / "include/Python.h").touch()
    monkeypatch.chdir(tmp_path / "tree")
    monkeypatch.setattr(module, "ROOT", tmp_path / "tree")
    monkeypatch.setattr(module, "LOG", tmp_path / "tree/build/set_up.log")
    monkeypatch.setattr(module.sysconfig, "get_path", lambda name: str(tmp_path / "include"))
    return module


@pytest.fixture
def refusal(set_up, monkeypatch):
    """The sentence that a stage ends in."""

    def sentence(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["set_up.py", *arguments])
        with pytest.raises(SystemExit) as stopped:
            set_up.main()
        text = stopped.value.code
        assert text.startswith("set-up: ") and "\n" not in text and "Traceback" not in text
        return text

    return sentence


@pytest.fixture
def acted(set_up, monkeypatch):
    """Commands are not run: each says and returns what is told here. The list of what was asked for."""
    asked = []

    def act(said: str = "", code: int = 0) -> list[list[str]]:
        def called(command):
            asked.append(command)
            return subprocess.CompletedProcess(command, code, said)

        monkeypatch.setattr(set_up, "called", called)
        return asked

    return act


def program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


PIP = {
    "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n": (
        r"no space left on the disk while installing \(free: [\d.]+ GB in .+, [\d.]+ GB in .+\): make room"
    ),
    "ERROR: Could not install packages due to an OSError: [Errno 122] Disk quota exceeded\n": "no space left",
    "FileNotFoundError: [Errno 2] No usable temporary directory found in ['/tmp']\n": "no space left.*TMPDIR=",
    "WARNING: Retrying (Retry(total=0, connect=None)) after connection broken by "
    "'NewConnectionError('Failed to establish it: [Errno -3] Temporary failure in name resolution')': /simple/\n"
    "ERROR: Could not find a version that satisfies the requirement setuptools>=77 (from versions: none)\n": (
        r"registry cannot be reached \(Temporary failure in name resolution\): .*PIP_INDEX_URL=.*build/set_up\.log$"
    ),
    "pip._vendor.urllib3.exceptions.ReadTimeoutError: HTTPSConnectionPool(host='files.example', port=443): "
    "Read timed out.\n": r"registry at files\.example cannot be reached \(timed out\)",
    "WARNING: Retrying (Retry(total=1, connect=None)) after connection broken by 'timed out': /simple/\n"
    "ERROR: Could not find a version that satisfies the requirement torch==2.99.0 (from versions: 2.11.0, 2.14.1)\n": (
        r"no torch==2\.99\.0 for Python .*, but 2\.11\.0, 2\.14\.1: .* by make TORCH=torch==2\.14\.1 TRITON="
    ),
    "ERROR: Could not find a version that satisfies the requirement torch==2.14.1 (from versions: 2.2.1, 2.2.2)\n": (
        r"no torch==2\.14\.1 .*, but 2\.2\.1, 2\.2\.2: choose another Python by PYTHON="
    ),
    "ERROR: Could not find a version that satisfies the requirement triton==3.8.0 (from versions: 3.6.0)\n": (
        r"choose one of them by make TRITON=triton==3\.6\.0; all"
    ),
    "Could not fetch URL https://example/simple/torch/: 403 Client Error: Forbidden - skipping\n"
    "ERROR: Could not find a version that satisfies the requirement torch==2.14.1 (from versions: none)\n": (
        r"no torch for Python .* \(403 Client Error: Forbidden\): .*pip config list"
    ),
    "ERROR: Cannot install torch==2.14.1 and triton==3.6.0 because.\n\nThe conflict is caused by:\n"
    "    The user requested triton==3.6.0\n    torch 2.14.1 depends on triton~=3.8.0\n\nTo fix this\n": (
        r"together \(The user requested triton==3\.6\.0, torch 2\.14\.1 depends on triton~=3\.8\.0\): .*TORCH=.*TRITON="
    ),
    "WARNING: noise\nerror: externally-managed-environment\n\n× This environment is managed\n": (
        r"installing failed: error: externally-managed-environment; all of it is in build/set_up\.log"
    ),
    "": "installing failed: it said nothing",
}


@pytest.mark.parametrize("said", PIP)
def test_what_pip_says_is_one_sentence(said, acted, refusal):
    acted(said, 1)
    assert re.search(PIP[said], refusal("install", "torch==2.14.1", ""))
    assert Path("build/set_up.log").read_text().endswith(said)


BUILD = {
    "/usr/bin/ld: final link failed: No space left on device\n": r"no space left on the disk while building .*TMPDIR=",
    "collect2: fatal error: ld terminated with signal 7 [Bus error], core dumped\n": "no space left",
    "c++: fatal error: Killed signal terminated program cc1plus\n": "memory ran out.*MAX_JOBS=1",
    "  csrc/a.cpp:3:10: fatal error: x.h: No such file or directory\n  subprocess.CalledProcessError: Command 'c++'\n"
    "ERROR: Failed building editable for fastrw\n": r"failed: csrc/a\.cpp:3:10: fatal error: x\.h: No such file",
    "  setup.py: FASTRW_CUDA must be 0 or 1, got 2\nERROR: Failed building editable for fastrw\n": (
        "failed: setup.py: FASTRW_CUDA must be 0 or 1, got 2;"
    ),
    "  ModuleNotFoundError: No module named 'torch'\nERROR: Failed building editable for fastrw\n": (
        "failed: ModuleNotFoundError: No module named 'torch';"
    ),
}


@pytest.mark.parametrize("said", BUILD)
def test_what_the_build_says_is_one_sentence(said, acted, set_up, monkeypatch, refusal):
    monkeypatch.setattr(set_up, "check_compiler", lambda: None)
    acted(said, 1)
    assert re.search(BUILD[said], refusal("build"))


COMPILERS = {
    "echo \"g++: error: unrecognized option '-std=c++20'\" >&2; exit 1": r"not compile C\+\+20 \(g\+\+: error",
    'echo "try.cpp:2:10: fatal error: concepts: No such file" >&2; exit 1': r"\(try\.cpp:2:10: fatal error",
    'echo "cc1plus: error writing to /tmp/x.s: No space left on device" >&2; exit 1': "no space left on the disk",
    "exit 1": "it said nothing",
}


@pytest.mark.parametrize("script", COMPILERS)
def test_a_compiler_that_cannot_serve(script, tmp_path, monkeypatch, refusal):
    monkeypatch.setenv("CXX", str(program(tmp_path / "bin/c++", script)))
    assert re.search(COMPILERS[script], refusal("environment", "venv"))
    assert not Path("venv").exists()


def test_no_compiler(monkeypatch, tmp_path, refusal):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "there is no C++ compiler (c++ is not found): install g++ 10 or later" in refusal("environment", "venv")


def test_a_compiler_that_does_not_start(monkeypatch, tmp_path, refusal):
    compiler = tmp_path / "c++"
    compiler.write_bytes(b"\x7fELF")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    assert "does not start (Exec format error): use g++" in refusal("environment", "venv")


def test_no_headers_of_python(tmp_path, refusal):
    (tmp_path / "include/Python.h").unlink()
    assert re.search(rf"no Python\.h in .*package python{VERSION}-dev.*PYTHON=", refusal("environment", "venv"))


@pytest.mark.parametrize("module", ["venv", "ensurepip"])
def test_no_module_that_makes_environments(module, set_up, monkeypatch, refusal):
    def find_spec(name):
        if name.startswith(module):
            raise ModuleNotFoundError(name)
        return name

    monkeypatch.setattr(set_up.importlib.util, "find_spec", find_spec)
    assert f"lacks its module {module}: install it" in refusal("environment", "venv")


def test_a_full_disk_before_any_command_is_run(set_up, monkeypatch, refusal):
    def full():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(set_up, "check_python", full)
    assert "no space left on the disk while setting up" in refusal("environment", "venv")


@pytest.fixture
def environment(set_up, acted, monkeypatch):
    """Runs the stage on an environment; the modules that were run for it."""
    monkeypatch.setattr(set_up, "check_python", lambda: None)
    monkeypatch.setattr(set_up, "check_compiler", lambda: None)

    def run(made: str, python: str | None, **files: str) -> list[str]:
        venv = Path("venv")
        files = {"pyvenv.cfg": f"home = /usr/bin\nversion = {made}.1\n"} | files
        for name, text in files.items():
            (venv / name).parent.mkdir(parents=True, exist_ok=True)
            (venv / name).write_text(text)
        if python is not None:
            program(venv / "bin/python", python)
        asked = acted()
        set_up.environment(venv)
        return [command[2] for command in asked]

    return run


def starts(version: str, pip: str = "23.0") -> str:
    return f'case "$2" in *pip*) echo "{pip}";; *) echo {version};; esac'


def test_a_whole_environment_is_left_alone(environment):
    assert environment(VERSION, starts(VERSION)) == []


def test_one_without_pip_is_completed(environment):
    assert environment(VERSION, starts(VERSION, pip="")) == ["ensurepip"]


@pytest.mark.parametrize(
    ("made", "python"),
    [(VERSION, None), (VERSION, "exit 127"), ("3.9", starts("3.9")), ("3.9", starts(VERSION))],
    ids=["its Python gone", "its Python broken", "of another Python", "its Python replaced by another"],
)
def test_one_that_cannot_be_completed_is_made_again(made, python, environment):
    assert environment(made, python)[0] == "venv"


def test_a_finished_one_keeps_its_python(environment):
    assert environment("3.99", starts("3.99"), **{".tools": ""}) == []


def test_what_pip_was_stopped_in_does_not_count_as_installed(environment):
    site = f"lib/python{VERSION}/site-packages"
    files = [f"{site}/half-1.dist-info/METADATA", f"{site}/a-1.dist-info/METADATA", f"{site}/a-1.dist-info/INSTALLER"]
    environment(VERSION, starts(VERSION), **dict.fromkeys(files, ""))
    assert [path.name for path in Path("venv", site).iterdir()] == ["a-1.dist-info"]


def test_a_folder_of_something_else_is_left_alone(refusal, environment):
    program(Path("venv/thesis.txt"), "")
    assert "venv is no environment of Python: remove it, or name another by" in refusal("environment", "venv")
    assert Path("venv/thesis.txt").exists()


def test_a_place_that_cannot_be_written(set_up, monkeypatch, refusal, environment):
    def refuse(**_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(set_up.tempfile, "TemporaryFile", refuse)
    assert "venv cannot be written (Read-only file system): copy the tree" in refusal("environment", "venv")


def test_what_is_installed_is_what_pyproject_names(set_up):
    needs = set_up.required("dev")
    assert "torch>=2.11" in needs and any(need.startswith("pytest-xdist") for need in needs)
    assert not any(need.startswith("fastrw") for need in needs) and len(set(needs)) == len(needs)


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize(("python", "says"), [("echo 3.8.18; exit 1", "is 3.8.18"), (None, "is not there")])
def test_make_needs_a_python_that_is_new_enough(python, says, tmp_path):
    path = tmp_path / "python"
    if python:
        program(path, python)
    command = ["make", f"PYTHON={path}", f"VENV={tmp_path / 'venv'}", "demo"]
    alone = {name: value for name, value in os.environ.items() if "MAKE" not in name}  # not a part of `make test`
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=alone | {"LC_ALL": "C"})
    first, *rest = done.stderr.splitlines()
    assert done.returncode and done.stdout == "" and len(rest) == 1  # make's own
    assert first.startswith("set-up: needs Python 3.10 or later") and says in first and "PYTHON=/path" in first
    assert not (tmp_path / "venv").exists()
