"""Evaluation: scores of generated music against real held-out music, with controls."""
