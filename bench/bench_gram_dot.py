"""pytest bench/bench_gram_dot.py: see bench/under_pytest.py."""

from bench.under_pytest import benchmark_of

test_gram_dot = benchmark_of("gram_dot")
