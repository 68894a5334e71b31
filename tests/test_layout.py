"""Imports point down only, and run in no circle: what each folder says that it may import is all that it does."""

import ast
import inspect
import itertools
from pathlib import Path

import pytest
import torch
from torch import nn

import fastrw
from fastrw.ops import backends

ROOT = Path(__file__).parents[1]
# folder of fastrw -> the folders that it may import. "." is fastrw itself: its public names.
MAY_IMPORT = {
    "errors": set(),
    "learned": set(),
    "data": set(),
    "graph": {"errors"},
    "ops": {"errors", "kernels"},
    "nodes": {"graph", "ops", "errors"},
    "engine": {"nodes", "graph", "ops", "errors", "learned"},
    "state": {"errors", "learned"},
    "api": {"learned", "engine", "state", "nodes", "graph", "ops", "errors"},
    "fsr": {"api", "engine", "state", "nodes", "graph", "ops", "errors"},
    "testing": set(),
    "demo": {".", "fsr", "testing"},
    "cli": {".", "api", "fsr", "testing", "demo", "engine", "graph", "ops", "errors"},
}


def modules(package):
    """Dotted name -> path, of the modules of a package."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    if package == "fastrw":
        found["fastrw.kernels"] = ROOT / "kernels/__init__.py"  # installed there
    return found


def imported(name, path, known):
    """The modules of the package that this one imports, wherever in its text."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            base = ".".join(filter(None, (base, node.module)))
            for alias in node.names:
                found.add(f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base)
    return {one for one in found if one.split(".")[0] == name.split(".")[0] and one != name}


@pytest.mark.quick
def test_each_folder_imports_only_what_lies_below_it():
    known = modules("fastrw")
    for name, path in known.items():
        parts = name.split(".")
        if len(parts) == 1 or parts[1] in ("__main__", "kernels"):
            continue
        for other in imported(name, path, known):
            folder = other.split(".")[1] if "." in other else "."
            assert folder == parts[1] or folder in MAY_IMPORT[parts[1]], f"{name} imports {other}"


@pytest.mark.quick
def test_the_library_imports_no_benchmark_and_no_test():
    for folder in ("fastrw", "kernels"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
                assert not {name.split(".")[0] for name in names} & {"bench", "tests", "kernels"}, path
                if folder == "kernels":
                    assert all(n.startswith("fastrw.kernels") for n in names if n.split(".")[0] == "fastrw"), path


@pytest.mark.quick
def test_benchmarks_import_downwards():
    """The papers' experiments from the benchmarks, never the reverse; the cases of the ops from nothing but cases."""
    known = modules("bench")
    for name, path in known.items():
        others = imported(name, path, known)
        if not name.startswith("bench.papers"):
            assert not any(other.startswith("bench.papers") for other in others), name
        if name.startswith("bench.cases"):
            assert all(other.startswith("bench.cases") for other in others), name


@pytest.mark.quick
@pytest.mark.parametrize("package", ["fastrw", "bench"])
def test_modules_do_not_import_one_another_in_a_circle(package):
    known = modules(package)
    edges = {name: imported(name, path, known) & known.keys() - {package} for name, path in known.items()}
    done, open_ = set(), []

    def visit(name):
        assert name not in open_, " -> ".join([*open_[open_.index(name) :], name])
        if name not in done:
            open_.append(name)
            for other in sorted(edges[name]):
                visit(other)
            open_.pop()
            done.add(name)

    for name in known:
        visit(name)


@pytest.mark.quick
@pytest.mark.parametrize("folder", sorted(MAY_IMPORT.keys() - {"errors", "learned", "data"}))
def test_each_folder_says_what_it_may_import(folder):
    text = ast.get_docstring(ast.parse((ROOT / "fastrw" / folder / "__init__.py").read_text()))
    assert "May import" in text


@pytest.mark.quick
def test_the_way_from_backward_to_an_op_is_short(monkeypatch):
    """Six files at most with the op's own, and none twice: what a reader goes through who follows the losses."""
    seen, choose = set(), backends.choose

    def watched(*args):
        frames = [Path(frame.filename) for frame in reversed(inspect.stack(0))]
        files = [str(path.relative_to(ROOT)) for path in frames if ROOT / "fastrw" in path.parents]
        files = ["fastrw/ops" if path.startswith("fastrw/ops/") else path for path in [*files, "fastrw/ops/"]]
        seen.add(tuple(path for path, _ in itertools.groupby(files)))
        return choose(*args)

    monkeypatch.setattr(backends, "choose", watched)
    convolution = nn.Conv2d(1, 2, 3), nn.GroupNorm(1, 2), nn.Flatten()
    net = nn.Sequential(*convolution, nn.Linear(32, 300), nn.Linear(300, 300), nn.Linear(300, 3))  # small ones, and not
    x, y = torch.randn(6, 1, 6, 6), torch.randint(0, 3, (6,))
    f = nn.functional.cross_entropy(net(x), y, reduction="none")
    fastrw.backward(f[:4], f[4:].mean())
    assert all(any(f"fastrw/nodes/{name}.py" in files for files in seen) for name in ("conv", "grams"))
    for files in seen:
        assert files[0] == "fastrw/api/backward.py" and len(files) <= 6 and len({*files}) == len(files), files
