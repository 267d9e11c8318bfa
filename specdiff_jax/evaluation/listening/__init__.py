"""The blind listening test: its page, its results, their report."""
