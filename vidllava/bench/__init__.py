"""What does it cost? Benchmarks whose every figure comes from a checked result."""
