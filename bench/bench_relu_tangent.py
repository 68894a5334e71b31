"""pytest bench/bench_relu_tangent.py: see bench/under_pytest.py."""

from bench.under_pytest import benchmark_of

test_relu_tangent = benchmark_of("relu_tangent")
