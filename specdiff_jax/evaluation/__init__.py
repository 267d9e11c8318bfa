"""Evaluation: how far generated music is from real music. Knows nothing of networks or configs."""
