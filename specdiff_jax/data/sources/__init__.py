"""Kinds of collections, one file each; `data.collection.SOURCES` lists them."""
