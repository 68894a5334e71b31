"""The extension that a GPU machine takes along: packed here, put in place there, or built there. Mostly acted."""

import importlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import record
from fastrw.ops import extension

ROOT = Path(__file__).parents[1]


@pytest.fixture
def carry(monkeypatch, tmp_path):
    """The script as a module, with a source tree of its own."""
    monkeypatch.syspath_prepend(ROOT / ".ci")
    module, tree = importlib.import_module("carry"), tmp_path / "tree"
    for name in ("setup.py", "csrc/a.cpp", "kernels/__init__.py", "fastrw/__init__.py"):
        write(tree / name)
    monkeypatch.chdir(tree)
    monkeypatch.setattr(module, "ROOT", tree)
    monkeypatch.setattr(module, "CARRIED", tree / "build/gpu-carry")
    monkeypatch.setattr(module, "LOG", tree / "build/set_up.log")
    monkeypatch.setattr(module, "check_compiler", lambda: None)
    for name in ("FASTRW_KEEP", "TORCH_CUDA_ARCH_LIST"):
        monkeypatch.delenv(name, raising=False)
    return module


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def packed(carry, library: str = "carried", commit: str | None = None) -> Path:
    """What `pack` leaves behind, with this for the library."""
    note = {"commit": commit, "built from": carry.digest(carry.BUILT_FROM), "measured": carry.digest(carry.MEASURED)}
    write(carry.CARRIED / "packed.json", json.dumps(note))
    return write(carry.CARRIED / carry.LIBRARY, library)


@pytest.fixture
def use(carry, monkeypatch):
    """Runs the stage where these libraries serve and a build makes "built"; what it built with, if it built."""

    def stage(*serving: str) -> dict | None:
        def build(doing, place, *command, **how):
            asked.append(how)
            write(carry.ROOT / carry.LIBRARY, "built")

        asked = []
        unfit = {} if not serving else dict.fromkeys(serving)
        monkeypatch.setattr(carry, "unfit", lambda: unfit.get((carry.ROOT / carry.LIBRARY).read_text(), "no"))
        monkeypatch.setattr(carry, "run", build)
        monkeypatch.setattr(carry, "answer", lambda python, code: "9.0")
        carry.use(limit=7)
        return asked[0] if asked else None

    return stage


def test_what_was_carried_is_put_in_place(carry, use, capsys):
    packed(carry)
    assert use("carried") is None
    assert (carry.ROOT / carry.LIBRARY).read_text() == "carried"
    assert "set-up: the extension carried serves (" in capsys.readouterr().out
    packed(carry, "newer")  # a second call
    assert use("carried", "newer") is None
    assert (carry.ROOT / carry.LIBRARY).read_text() == "newer"


def test_what_was_built_from_other_sources_is_not(carry, use, capsys):
    packed(carry)
    write(carry.ROOT / "csrc/a.cpp", "int a;")
    built = use("carried", "built")
    assert built["limit"] == 7 and built["TORCH_CUDA_ARCH_LIST"] == "9.0"  # that GPU's, and no other
    assert (carry.ROOT / carry.LIBRARY).read_text() == "built"
    assert "carried cannot be used: it was built from other sources" in capsys.readouterr().out


def test_what_does_not_serve_is_built_there(carry, use, monkeypatch, capsys):
    monkeypatch.setenv("FASTRW_KEEP", "1")  # of no use: what is kept does not serve
    packed(carry)
    assert use("built")["FASTRW_KEEP"] == "0"
    assert capsys.readouterr().out.splitlines()[-1].startswith("set-up: the extension is built (")
    with pytest.raises(carry.Failed, match="the extension that was built here cannot be used: no"):
        use()


def test_what_is_in_place_already_is_left_alone(carry, use, monkeypatch):
    write(carry.ROOT / carry.LIBRARY, "mine")
    assert use("mine") is None
    later = time.time() + 100
    os.utime(carry.ROOT / "csrc/a.cpp", (later, later))
    monkeypatch.setenv("FASTRW_KEEP", "1")
    assert use("mine") is None
    monkeypatch.delenv("FASTRW_KEEP")
    assert use("mine", "built") is not None


TORCH = """
class cuda:
    is_available = staticmethod(lambda: {gpu})
class ops:
    class fastrw:
        def rectify_normalize(s):
            {op}
def ones(*shape, device): ...
class tensor:
    tolist = staticmethod(lambda: {weights})
class AcceleratorError(RuntimeError): ...
"""


@pytest.mark.parametrize(
    ("says", "gpu", "reason", "cuda", "op", "weights"),
    [
        (None, False, None, None, "", []),
        (None, True, None, "13.0", "return tensor", [0.25] * 4),
        ("it does not load (no GLIBC_2.99)", True, "it does not load (no GLIBC_2.99)", None, "", []),
        ("it holds no CUDA code", True, None, None, "", []),
        ("its CUDA code gives a wrong result", True, None, "13.0", "return tensor", [0.0] * 4),
        (
            "torch.AcceleratorError: no kernel image",
            True,
            None,
            "13.0",
            "raise AcceleratorError('no kernel image')",
            [],
        ),
    ],
)
def test_what_serves_has_run(says, gpu, reason, cuda, op, weights, carry):
    """With a torch that is acted: what the library says of itself, and a kernel where there is a GPU."""
    write(carry.ROOT / "torch/__init__.py", TORCH.format(gpu=gpu, op=op or "...", weights=weights))
    write(carry.ROOT / "fastrw/ops/__init__.py")
    write(carry.ROOT / "fastrw/ops/extension.py", f"reason = {reason!r}\ndef build_info(): return {{'cuda': {cuda!r}}}")
    assert carry.unfit() == says


def test_kernels_are_found_where_nothing_is_installed(carry, monkeypatch):
    link = carry.ROOT / "fastrw/kernels"
    monkeypatch.setattr(sys, "meta_path", [importlib.machinery.PathFinder])
    carry.link_kernels()
    assert link.is_symlink() and link.resolve() == carry.ROOT / "kernels"
    carry.link_kernels()
    assert not any("fastrw/kernels" in str(path) for path in carry.sources(carry.MEASURED))  # counted once

    class Installed:
        def find_spec(name, path):
            return importlib.machinery.ModuleSpec(name, None, origin=str(installed))

    monkeypatch.setattr(sys, "meta_path", [Installed])
    link.unlink()
    installed = carry.ROOT / "kernels/__init__.py"
    carry.link_kernels()
    assert not link.exists()
    installed = Path("/of/another/tree/kernels/__init__.py")
    carry.link_kernels()
    assert link.is_symlink()


def test_a_build_is_stopped_at_its_limit_with_all_that_it_started(carry, tmp_path):
    started = tmp_path / "started"
    compilers = f"sh -c 'echo $$ > {started}; sleep 60' & wait"
    with pytest.raises(carry.Failed, match=r"^building took more than 1 s and was stopped: allow more by --limit$"):
        carry.run("building", tmp_path, "sh", "-c", compilers, limit=0.6)
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            os.kill(int(started.read_text()), 0)
            time.sleep(0.05)


def test_a_python_that_cannot_be_built_for(carry, tmp_path):
    path = write(tmp_path / "python3.12", "#!/bin/sh\necho 'python3.12: command not found' >&2; exit 127\n")
    path.chmod(0o755)
    for python in (str(path), str(tmp_path / "none")):
        with pytest.raises(carry.Failed, match=rf"^{python} does not start or lacks.*gpu-carry CARRY_PYTHON="):
            carry.pack(python)


def test_a_copy_is_of_the_commit_that_it_was_packed_at(carry, tmp_path, monkeypatch):
    for name in ("carry.py", "set_up.py"):
        write(carry.ROOT / ".ci" / name, (ROOT / ".ci" / name).read_text())
    write(carry.ROOT / "bench/__init__.py")
    monkeypatch.setattr(record, "ROOT", carry.ROOT)
    assert record.commit() is None
    packed(carry, commit="0123abcd")
    assert record.commit() == "0123abcd"
    write(carry.ROOT / "bench/__init__.py", "changed since")
    assert record.commit() == "0123abcd-dirty"
    if shutil.which("git"):  # a copy inside a clone is not of that clone
        subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
        author = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        command = ["git", *author, "commit", "--quiet", "--allow-empty", "-m", "a"]
        subprocess.run(command, cwd=tmp_path, check=True)
        assert record.commit() == "0123abcd-dirty"


IGNORED = shutil.ignore_patterns(".git", ".venv*", "dist", "*.egg-info", "*.so", "__pycache__", ".*_cache", "kernels")
OBJECTS = Path("build", f"objects-{platform.machine()}")


@pytest.mark.skipif(extension.build_info().get("cuda") is None, reason="the extension has no CUDA: no toolkit is here")
@pytest.mark.skipif(not (ROOT / OBJECTS).exists(), reason="would compile for minutes: nothing was built in this tree")
def test_from_one_tree_into_another(tmp_path):
    """All of it, for this Python, with the objects of the source tree, where they are, to save compiling."""
    here, there = tmp_path / "here", tmp_path / "there"
    for name in ("csrc", "fastrw", "kernels", "bench", "tests", ".ci"):
        shutil.copytree(ROOT / name, here / name, ignore=IGNORED)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, here)
    shutil.copytree(here, there)
    shutil.copytree(ROOT / OBJECTS, here / OBJECTS)

    def said(tree: Path, *stage: str) -> str:
        command = [sys.executable, ".ci/carry.py", *stage]
        done = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=1800)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "take along build/gpu-carry" in said(here, "pack", sys.executable)
    shutil.copytree(here / "build/gpu-carry", there / "build/gpu-carry")
    assert "set-up: the extension carried serves" in said(there, "use", "--limit", "1")
    assert (there / "fastrw/kernels/__init__.py").exists()
