"""pytest bench/bench_grouped_gram_dot.py: see bench/under_pytest.py."""

from bench.under_pytest import benchmark_of

test_grouped_gram_dot = benchmark_of("grouped_gram_dot")
