"""From the source tree to an sdist, from the sdist to a wheel, from the wheel to a place where nothing else is."""

import email
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
IGNORED = shutil.ignore_patterns(".git", ".venv*", "build", "dist", "*.egg-info", "*.so", "__pycache__", ".*_cache")


def call(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    tree = tmp_path_factory.mktemp("tree") / "fastrw"
    shutil.copytree(ROOT, tree, ignore=IGNORED)
    call(sys.executable, "setup.py", "--quiet", "sdist", cwd=tree)
    (archive,) = (tree / "dist").iterdir()
    return archive


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory) -> Path:
    """Built from what the sdist holds; with the objects of the source tree, where they are, to save compiling."""
    place = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(place, filter="data")
    (tree,) = place.iterdir()
    for objects in ROOT.glob("build/objects-*"):
        shutil.copytree(objects, tree / "build" / objects.name)
    pip = (sys.executable, "-m", "pip", "--quiet")
    call(*pip, "wheel", "--no-build-isolation", "--no-deps", "-w", str(place), ".", cwd=tree)
    (built,) = place.glob("*.whl")
    return built


def test_the_sdist_holds_what_a_build_and_its_tests_need(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tracked = {
        str(path.relative_to(ROOT))
        for folder in ("csrc", "kernels", "tests", "fastrw", "bench")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".cpp", ".h", ".cu", ".cuh"}
    }
    assert tracked <= names
    assert {"setup.py", "pyproject.toml", "README.md", "LICENSE", "Makefile", ".ci/set_up.py"} <= names
    assert not any(name.endswith((".so", ".pyc")) for name in names)


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        needs = email.message_from_bytes(archive.read(metadata)).get_all("Requires-Dist")
    assert {"fastrw/kernels/__init__.py", "fastrw/kernels/gram_dot.py", "fastrw/ops/extension.py"} <= set(names)
    assert any(name.startswith("fastrw/_C.") for name in names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"fastrw"}
    assert [need for need in needs if "extra ==" not in need] == ["torch>=2.11"]


USE = """
import json, fastrw, torch
from fastrw.ops import extension, reference
from fastrw import kernels, ops
x = [torch.ones(shape) for shape in ((4, 3), (4, 2), (5, 3), (5, 2))]
equal = torch.equal(ops.gram_dot(*x, backend="cpp"), reference.gram_dot(*x))
print(json.dumps([fastrw.__file__, kernels.__file__, extension.reason, equal]))"""


def test_the_wheel_works_where_nothing_else_is(wheel, tmp_path):
    site = tmp_path / "site"
    pip = (sys.executable, "-m", "pip", "--quiet")
    call(*pip, "install", "--no-deps", "--target", str(site), str(wheel), cwd=tmp_path)
    package, kernels, reason, equal = json.loads(call(sys.executable, "-c", USE, cwd=tmp_path, PYTHONPATH=str(site)))
    assert package.startswith(str(site)) and kernels == str(site / "fastrw/kernels/__init__.py")
    assert reason is None and equal
