"""pytest bench/bench_conv_dot.py: see bench/under_pytest.py."""

from bench.under_pytest import benchmark_of

test_conv_dot = benchmark_of("conv_dot")
