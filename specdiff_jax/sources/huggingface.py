"""A Hugging Face data set: a Hub name, a parquet file or a `save_to_disk` folder.

Audio is read with `Audio(decode=False)` and decoded by libsndfile: no torch, no torchcodec.
"""

import io
import pathlib

from specdiff_jax.audio import files
from specdiff_jax.sources.song import Skipped, Song


def load(source, split):
    """The data set behind a Hub name or a local path, without decoding any audio."""
    import datasets  # slow to import

    path = pathlib.Path(source)
    if split and path.exists():
        raise ValueError(f"data.split={split!r} is for Hub names; a local path is read whole")
    if path.is_file() and path.suffix == ".parquet":
        return datasets.load_dataset("parquet", data_files=str(path), split="train")
    if (path / "dataset_info.json").exists():
        return datasets.load_from_disk(str(path))
    parquet = sorted(path.rglob("*.parquet")) if path.is_dir() else []
    if parquet:
        names = [str(file) for file in parquet]
        return datasets.load_dataset("parquet", data_files=names, split="train")
    return datasets.load_dataset(source, split=split or "train")


def songs(source, audio_column="audio", split=None, caption_column=None, artist_column=None):
    """Yields a Song or a Skipped for each row, in the data set's order.

    Raises:
      ValueError: the data set cannot be loaded or lacks a named column.
    """
    import datasets

    try:
        rows = load(source, split)
    except Exception as error:  # the library raises many kinds; the user needs one line
        reason = str(error).splitlines()[0]
        raise ValueError(f"data.source: cannot load the data set {source!r} ({reason})") from error
    for column in filter(None, (audio_column, caption_column, artist_column)):
        if column not in rows.column_names:
            raise ValueError(f"data: {source!r} has no column {column!r}, but {rows.column_names}")
    rows = rows.cast_column(audio_column, datasets.Audio(decode=False))
    for index, row in enumerate(rows):
        name = row[audio_column].get("path") or f"row {index}"
        try:
            content = row[audio_column]["bytes"]
            wave, sample_rate = files.decode(io.BytesIO(content) if content else name)
        except ValueError as error:
            yield Skipped(name, str(error))
            continue
        artist = str(row[artist_column]) if artist_column else name
        captions = (str(row[caption_column]),) if caption_column else ()
        yield Song(name, artist, (), captions, wave, sample_rate)
