"""pytest bench/bench_norm_instance.py: see bench/under_pytest.py."""

from bench.under_pytest import benchmark_of

test_norm_instance = benchmark_of("norm_instance")
