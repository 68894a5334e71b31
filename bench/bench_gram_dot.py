"""pytest bench/bench_gram_dot.py: bench/gram_dot.py's candidates under pytest-benchmark, one group a case."""

import pytest
import torch

from bench.cases import GRAM_CASES
from bench.gram_dot import BACKENDS, candidates, verdict

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CASES = [name for name, case in GRAM_CASES.items() if DEVICE == "cuda" or not case.large]

pytestmark = pytest.mark.filterwarnings("ignore")  # torch.compile's own, and a candidate skipped


@pytest.mark.parametrize("candidate", [*BACKENDS, "eager", "torch.compile"])
@pytest.mark.parametrize("name", CASES)
def test_gram_dot(benchmark, name, candidate):
    case = GRAM_CASES[name]
    way = candidates(case, torch.float32, DEVICE)[candidate]
    why, red = verdict(way, case, torch.float32, DEVICE)
    assert not red, why
    if why is not None:
        pytest.skip(why)
    benchmark.group = f"gram_dot {name}: r={case.r} k={case.k} p={case.p} q={case.q}"
    benchmark.extra_info |= {"flops": case.flops, "bytes": case.bytes(torch.float32)}

    def waited():
        way()
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    benchmark(waited)
