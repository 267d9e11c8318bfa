"""Conditions: conditioners, vocabularies, prompts, text encoders."""
