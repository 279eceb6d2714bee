"""How many frames, how much pooling, which RoPE factor does a question need? A sweep and its report."""
