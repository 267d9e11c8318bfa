"""The data of the slides: the Song Describer Dataset (Manco et al. 2023, arXiv 2311.10057).

706 songs of Jamendo artists with 1106 captions by listeners, CC-licensed, two minutes at most. On
the Hub a row is a caption: rows of the same track become one song with several captions.
"""

from configs import base


def get_config(size="base"):
    """Return the config for `--config=configs/song_describer.py` or `...:tiny`."""
    config = base.get_config(size)
    config.name = f"song_describer_{size}"
    config.workdir = f"runs/song_describer_{size}"
    config.data.update(
        source="renumics/song-describer-dataset",
        audio_column="path",
        caption_column="caption",
        artist_column="artist_id",
        album_column="album_id",
        song_column="track_id",
    )
    return config
