"""Metrics of samples and predictions, usable without a config."""
