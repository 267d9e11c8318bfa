"""Configs of experiments: `base.py` comments every field; the others change a few of them."""
