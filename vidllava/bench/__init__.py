"""Benchmarks of speed and memory; every figure comes from a checked result."""
