"""Training: the loop, its jobs, checkpoints, validation."""
