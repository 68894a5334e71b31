"""pytest bench/bench_conv_use.py: see bench/under_pytest.py."""

from bench.under_pytest import benchmark_of

test_conv_use = benchmark_of("conv_use")
