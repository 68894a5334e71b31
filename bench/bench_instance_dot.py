"""pytest bench/bench_instance_dot.py: see bench/under_pytest.py."""

from bench.under_pytest import benchmark_of

test_instance_dot = benchmark_of("instance_dot")
