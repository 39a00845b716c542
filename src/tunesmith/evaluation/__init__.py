"""Metrics over generated text and benchmarks."""
