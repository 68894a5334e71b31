"""pytest bench/bench_rectify_normalize.py: see bench/under_pytest.py."""

from bench.under_pytest import benchmark_of

test_rectify_normalize = benchmark_of("rectify_normalize")
