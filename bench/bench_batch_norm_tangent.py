"""pytest bench/bench_batch_norm_tangent.py: see bench/under_pytest.py."""

from bench.under_pytest import benchmark_of

test_batch_norm_tangent = benchmark_of("batch_norm_tangent")
