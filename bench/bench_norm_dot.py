"""pytest bench/bench_norm_dot.py: see bench/under_pytest.py."""

from bench.under_pytest import benchmark_of

test_norm_dot = benchmark_of("norm_dot")
