"""Benchmarks: they measure and do not test. Run them with `make bench`."""
