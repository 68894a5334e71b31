"""pytest bench/bench_conv_tangent.py: see bench/under_pytest.py."""

from bench.under_pytest import benchmark_of

test_conv_tangent = benchmark_of("conv_tangent")
