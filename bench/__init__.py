"""Benchmarks: they print numbers and ratios measured side by side, and fail for none of them."""
