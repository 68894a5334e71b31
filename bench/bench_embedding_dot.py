"""pytest bench/bench_embedding_dot.py: see bench/under_pytest.py."""

from bench.under_pytest import benchmark_of

test_embedding_dot = benchmark_of("embedding_dot")
