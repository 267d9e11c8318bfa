"""Heads on a backbone: tagging, embeddings, search."""
