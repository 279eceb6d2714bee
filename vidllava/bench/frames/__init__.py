"""A sweep over frames, pooling and RoPE factors that a question needs, and its report."""
