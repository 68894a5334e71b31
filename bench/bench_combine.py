"""pytest bench/bench_combine.py: see bench/under_pytest.py."""

from bench.under_pytest import benchmark_of

test_combine = benchmark_of("combine")
