"""Fine-tuning: steps, checkpoints, figures."""
