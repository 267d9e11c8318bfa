"""Songs: sources, the prepared cache, splits, crops."""
