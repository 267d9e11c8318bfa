"""From a ConfigDict to checked objects."""
