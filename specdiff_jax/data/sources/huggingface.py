"""A Hugging Face data set: a Hub name, a parquet file, a folder of them, or `save_to_disk`.

Audio is read with `Audio(decode=False)` and decoded by libsndfile: no torch, no torchcodec.
"""

import hashlib
import pathlib
import re

from specdiff_jax.data.sources import metadata
from specdiff_jax.data.sources.items import More, Skipped, Song

COLUMNS = ("audio", "caption", "artist", "album", "label", "licence", "song", "tempo")


def iterate_songs(source, columns, split=None, streaming=False, revision=None):
    """Yields a Song, a More or a Skipped for each row, in the data set's order.

    Rows of the same audio (one a caption) are one song: those that share the song column, or,
    where none is named, the very bytes.

    Args:
      columns: {one of COLUMNS: column name, or several with commas for labels}.
      split: of a Hub name; where None, all of them, and theirs are respected.

    Raises:
      ValueError: the data set cannot be loaded or lacks a named column.
    """
    columns = {"audio": "audio"} | columns
    seen, names = {}, set()
    for given, table in load_tables(source, split, streaming, revision):
        features = table.features or {}
        for index, row in enumerate(select_audio(table, columns, source)):
            place = f"{given or ''} row {index}".strip()
            try:
                told = read_fields(row, columns, given, features)
            except ValueError as error:
                raise ValueError(f"data.source: {place}: {error}") from error
            sound = row[columns["audio"]] or {}
            audio = sound.get("bytes") or sound.get("path")
            if not audio:
                yield Skipped(place, "the row holds no audio")
                continue
            key = song_key(row, columns, audio)
            if key in seen:
                yield More(seen[key], told["labels"], told["captions"])
                continue
            name = (key if "song" in columns else sound.get("path")) or place
            seen[key] = name = name if name not in names else f"{name}#{len(names)}"
            names.add(name)
            yield Song(name=name, audio=audio, **told)


def load_tables(source, split, streaming, revision):
    """[(split that the data set gives or None, table)] without decoding any audio."""
    import datasets  # slow to import

    path = pathlib.Path(source)
    for field, value in (("split", split), ("revision", revision)):
        if path.exists() and value:
            raise ValueError(f"data.{field}={value!r} is for Hub names; a local path is read whole")
    try:
        if (path / "dataset_info.json").exists() or (path / "dataset_dict.json").exists():
            loaded = datasets.load_from_disk(str(path))
        elif path.exists():
            found = [path] if path.is_file() else sorted(path.rglob("*.parquet"))
            found = found or sorted(path.rglob("*.arrow"))
            kind, parts = found[0].suffix[1:], group_by_split(found, path)
            loaded = datasets.load_dataset(kind, data_files=parts, streaming=streaming)
        else:
            loaded = datasets.load_dataset(
                source, split=split, streaming=streaming, revision=revision
            )
    except Exception as error:  # the library raises many kinds; the user needs one line
        reason = str(error).splitlines()[0]
        raise ValueError(f"data.source: cannot load the data set {source!r} ({reason})") from error
    if not isinstance(loaded, dict):
        return [(None, loaded)]
    if len(loaded) == 1:  # one table called train is no decision about splits
        return [(None, *loaded.values())]
    return [(metadata.SPLITS.get(name), table) for name, table in loaded.items()]


def group_by_split(paths, root):
    """{split or 'unsaid': files}, by a word of their names, as the Hub tells them."""
    found = {}
    for path in paths:
        words = re.split("[^a-z]+", path.relative_to(root).as_posix().lower())
        split = next((metadata.SPLITS[word] for word in words if word in metadata.SPLITS), "unsaid")
        found.setdefault(split, []).append(str(path))
    return found


def select_audio(table, columns, source):
    """The table with its audio undecoded.

    Raises:
      ValueError: a named column is not there, or that of the audio holds none.
    """
    import datasets

    there = table.column_names or list(table.features or ())
    for kind, value in columns.items():
        for column in value.split(",") if kind == "label" else [value]:
            if column not in there:
                raise ValueError(
                    f"data.{kind}_column: {source!r} has no column {column!r}, but {there}"
                )
    try:
        return table.cast_column(columns["audio"], datasets.Audio(decode=False))
    except Exception as error:  # the library raises many kinds; the user needs one line
        raise ValueError(
            f"data.audio_column: {columns['audio']!r} of {source!r} holds no sound ({error})"
        ) from error


def read_fields(row, columns, given, features):
    """The Song fields of a row; a list in a column gives several labels or captions."""
    plain = {
        kind: row[column] for kind, column in columns.items() if kind not in ("audio", "label")
    }
    plain["captions"] = as_list(plain.pop("caption", None))
    named = columns.get("label", "").split(",") if "label" in columns else []
    plain["labels"] = [
        label for column in named for label in name_labels(row[column], features.get(column))
    ]
    return metadata.parse_fields(plain) | {"split": given}


def as_list(value):
    """None, one value or several as a list; one caption is not cut at its semicolons."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


def name_labels(value, feature):
    """Labels as a list; a ClassLabel's numbers, or a list of them, by their names."""
    kind = getattr(feature, "feature", feature)  # of a list's members
    if not hasattr(kind, "int2str"):
        return as_list(value)
    # A row of a test set may have -1: no label.
    return [kind.int2str(k) for k in as_list(value) if k is not None and k >= 0]


def song_key(row, columns, audio):
    """What two rows of the same song share."""
    if "song" in columns:
        return str(row[columns["song"]])
    return hashlib.sha256(audio).hexdigest() if isinstance(audio, bytes) else audio


def resolve_commit(source, revision):
    """The commit that a revision of a Hub name stands for now.

    Asks the Hub, except where the revision is a commit already.

    Raises:
      ValueError: the Hub does not answer, or does not know it.
    """
    if re.fullmatch("[0-9a-f]{40}", revision or ""):
        return revision
    import huggingface_hub

    try:
        return huggingface_hub.HfApi().dataset_info(source, revision=revision).sha
    except Exception as error:  # the library raises many kinds; the user needs one line
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"data.source: the Hub does not tell the commit of {source!r} ({reason}); without a "
            "network set data.revision to the 40 digits of one"
        ) from error
