"""Diffusion: schedules, predictions, losses, samplers. It depends on neither audio nor networks."""
