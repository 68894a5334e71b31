"""pytest bench/bench_linear_use.py: see bench/under_pytest.py."""

from bench.under_pytest import benchmark_of

test_linear_use = benchmark_of("linear_use")
