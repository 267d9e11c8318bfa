"""Pages, charts and pictures of results."""
