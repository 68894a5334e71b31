"""What holds for every test: one thread, Triton's interpreter first, GPU tests skipped where none is."""

import gc
import os

# Workers share the cores already, and threads that wait for one another on a busy machine take twenty times as long.
# Before torch is imported, so that whatever a test starts inherits it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# With it cuBLAS gives the same bits in every run, and is not refused under deterministic algorithms.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import pytest
import torch

import tests.interpreter  # noqa: F401  (before any kernel is imported)
from tests import settings, tiers


def pytest_addoption(parser):
    told = "; ".join(f"{name}: {what}" for name, what in tiers.TIERS.items())
    parser.addoption("--tier", choices=[*tiers.TIERS], default="usual", help=f"how much to run. {told}")


def pytest_configure(config):
    tiers.tier = config.getoption("--tier")
    settings.no_tf32()
    # What is printed is read as on a wide terminal without colours, whatever terminal the tests are run from.
    os.environ["COLUMNS"] = "120"
    for name in ("LINES", "FORCE_COLOR", "CLICOLOR_FORCE", "PYTHON_COLORS", "TTY_COMPATIBLE"):
        os.environ.pop(name, None)
    # glibc has read its settings by now; the benchmarks would go to another process, out of reach of a test's patches.
    for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"):
        os.environ.pop(name, None)


@pytest.fixture(autouse=True, scope="module")
def what_lives_is_no_garbage():
    """What lives when a file begins is left out when tests search for garbage: all of torch and of its compiler."""
    gc.collect()
    gc.freeze()


def _threads(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def one_thread():
    """Sums in one order, however many threads the other tests run with."""
    yield from _threads(1)


@pytest.fixture
def two_threads():
    yield from _threads(2)


@pytest.fixture
def float32_settings():
    """The test changes in which precision float32 is computed, in whatever way."""
    yield
    settings.no_tf32()


@pytest.fixture
def tf32_allowed(float32_settings):
    """torch allows TF32 in products of matrices."""
    torch.backends.cuda.matmul.fp32_precision = "tf32"


@pytest.fixture
def one_algorithm():
    """cuDNN gives the same bits in every run."""
    from fastrw.ops.self_test import one_algorithm

    with one_algorithm():
        yield


def pytest_collection_modifyitems(config, items):
    if tiers.tier == "quick":
        chosen = [bool(item.get_closest_marker("quick")) for item in items]
        config.hook.pytest_deselected(items=[item for item, quick in zip(items, chosen, strict=True) if not quick])
        items[:] = [item for item, quick in zip(items, chosen, strict=True) if quick]
    # Files with tests that say that they take long come first: none is begun when the others are done.
    slow = {item.path for item in items if "Takes over" in (getattr(item, "obj", None).__doc__ or "")}
    items.sort(key=lambda item: item.path not in slow)
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a GPU: none is visible to torch"))


@pytest.fixture
def by_hand(monkeypatch):
    """Captured steps are recorded without a GPU."""
    from fastrw.api.capture import Graphs
    from tests.tape import Tape

    monkeypatch.setattr(Graphs.__init__, "__defaults__", (Tape,))
    Tape.made = 0
