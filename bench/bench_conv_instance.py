"""pytest bench/bench_conv_instance.py: see bench/under_pytest.py."""

from bench.under_pytest import benchmark_of

test_conv_instance = benchmark_of("conv_instance")
