"""Conditions: vocabularies, prompts, text encoders."""
