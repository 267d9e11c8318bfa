"""Where songs come from: every source is a generator of `song.Song` and `song.Skipped` values."""
