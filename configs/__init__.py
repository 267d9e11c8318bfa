"""Experiments. `base.py` is the commented one; the others are a few lines over it."""
