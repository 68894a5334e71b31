"""pytest bench/bench_project_dot.py: see bench/under_pytest.py."""

from bench.under_pytest import benchmark_of

test_project_dot = benchmark_of("project_dot")
