"""Sampling: from noise to waves, edits, the demo."""
