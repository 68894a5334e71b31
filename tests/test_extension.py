"""The compiled library: it loads, its pool is threaded, every instruction set is right; without it, one warning."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch

from fastrw.ops import extension
from fastrw.ops.tolerance import SCORE_GOAL

ROOT = Path(__file__).parents[1]


def run(code: str, *, cwd: Path = ROOT, **environment: str):
    """What the code, run by a new interpreter, prints as JSON."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=os.environ | environment, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_is_built_and_loaded():
    assert extension.reason is None
    info = extension.build_info()
    assert info["compiler"] and "-O3" in info["flags"] and info["torch"]
    assert info["isa"] in info["isa_levels"]
    assert (info["cuda"] is None) == (info["cuda_archs"] is None)


def test_built_with_cuda_it_holds_cuda_ops():
    has_cuda = torch._C._dispatch_has_kernel_for_dispatch_key("fastrw::gram_dot", "CUDA")
    assert has_cuda == (extension.build_info()["cuda"] is not None)


def test_the_pool_is_threaded():
    code = """
import json, torch; from fastrw import extension
found = []
for threads in (1, 2, 1):
    torch.set_num_threads(threads)
    found.append(extension.build_info()["pool_threads"])
print(json.dumps(found))"""
    assert run(code) == [1, 2, 1]


SIZES = [(1, 1, 1, 1), (4, 6, 16, 8), (9, 13, 37, 70), (6, 300, 250, 33), (3, 2, 0, 5), (3, 0, 4, 5), (0, 2, 4, 5)]


@pytest.mark.parametrize("level", extension.build_info().get("isa_levels", []))
def test_every_instruction_set_is_right(level):
    code = f"""
import json, torch; from fastrw.ops import extension, reference; from fastrw.ops.tolerance import bound, relative_error
torch.set_num_threads(1)
wrong = []
torch.manual_seed(0)
for r, k, p, q in {SIZES}:
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        # nothing below 0: terms that cancel leave an error that no bound of the sum, which is relative, can hold
        x = [torch.randn(shape).abs().to(dtype) for shape in ((r, p), (r, q), (k, p), (k, q))]
        truth = reference.gram_dot(*(t.double() for t in x), 0.5)
        plain = reference.gram_dot(*x, 0.5)
        error = relative_error(torch.ops.fastrw.gram_dot(*x, 0.5), truth)
        if not error <= bound(plain.dtype, relative_error(plain, truth), k * (p + q)):
            wrong.append([str(dtype), r, k, p, q, error])
print(json.dumps([extension.build_info()["isa"], wrong]))"""
    ran, wrong = run(code, FASTRW_ISA=level)
    if ran != level:
        pytest.skip(f"this processor runs {ran} at most")
    assert not wrong


def test_every_half_is_widened_exactly():
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    x, one = bits.view(torch.float16)[:, None], torch.ones(1, 1, dtype=torch.float16)
    s = torch.ops.fastrw.gram_dot(x, one.expand(len(x), 1), one, one, 0.0)
    assert torch.equal(s.nan_to_num(7e9), x[:, 0].float().nan_to_num(7e9))


USE_WITHOUT = """
import json, sys, warnings
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in repr(f)]  # it would find the library of the checkout
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    import fastrw
import torch
from fastrw.ops import extension, reference
from fastrw import ops
from fastrw.ops.tolerance import relative_error
torch.manual_seed(0)
x = [torch.randn(shape) for shape in ((4, 3), (4, 2), (5, 3), (5, 2))]
model, y = torch.nn.Linear(3, 2), torch.tensor([0, 1, 1, 0])
weights = fastrw.meta_weights(model, (x[0], y), (x[2][:4], y))
print(json.dumps({
    "file": fastrw.__file__,
    "reason": extension.reason,
    "warnings": [[str(w.message), w.category.__name__] for w in seen],
    "error": relative_error(ops.gram_dot(*x), reference.gram_dot(*x)),
    "sum": weights.sum().item(),
}))"""


@pytest.mark.parametrize("fault", ["missing", "broken", "disabled"])
def test_without_the_library_one_warning_and_right_results(fault, tmp_path):
    package = tmp_path / "fastrw"
    shutil.copytree(ROOT / "fastrw", package, ignore=shutil.ignore_patterns("__pycache__", "*.so", "kernels"))
    shutil.copytree(ROOT / "kernels", package / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    if fault == "broken":
        (package / f"_C{sysconfig.get_config_var('EXT_SUFFIX')}").write_bytes(b"no library at all")
    switch = {"FASTRW_DISABLE_EXTENSION": "1"} if fault == "disabled" else {}
    found = run(USE_WITHOUT, cwd=tmp_path, **switch)
    assert found["file"].startswith(str(tmp_path))
    assert {"missing": "not built", "broken": "does not load", "disabled": "switches it off"}[fault] in found["reason"]
    (message, category), *others = found["warnings"]
    assert category == "NotBuilt" and not others
    assert extension.BUILD_COMMAND in message and found["reason"] in message and "\n" not in message
    assert found["error"] <= SCORE_GOAL[torch.float32] and abs(found["sum"] - 1) < 1e-5
