"""pytest bench/bench_weighted_outer.py: see bench/under_pytest.py."""

from bench.under_pytest import benchmark_of

test_weighted_outer = benchmark_of("weighted_outer")
