"""pytest bench/bench_conv_outer.py: see bench/under_pytest.py."""

from bench.under_pytest import benchmark_of

test_conv_outer = benchmark_of("conv_outer")
