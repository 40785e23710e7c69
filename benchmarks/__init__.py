"""Benchmarks: time, peak memory and error of kernels and ops, beside the peers, in one run on one machine."""
