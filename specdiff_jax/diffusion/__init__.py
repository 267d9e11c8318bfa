"""Diffusion: schedules, predictions, losses, samplers. Knows nothing of sound or networks."""
