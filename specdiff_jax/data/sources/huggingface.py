"""A Hugging Face data set: a Hub name, a parquet file, a folder of them, or `save_to_disk`.

Audio is read with `Audio(decode=False)` and decoded by libsndfile: no torch, no torchcodec.
"""

import functools
import hashlib
import pathlib
import re

from specdiff_jax.audio import files
from specdiff_jax.data.sources import folder, metadata
from specdiff_jax.data.sources.items import More, Skipped, Song, Source
from specdiff_jax.runtime.text import first_line

TABLES = (".parquet", ".arrow")


def matches_local(name):
    """Return whether data.source is a data set on disk."""
    path = pathlib.Path(name)
    if path.is_file():
        return path.suffix in TABLES
    if not name or not path.is_dir():
        return False
    saved = any((path / f"dataset_{kind}.json").exists() for kind in ("info", "dict"))
    return saved or bool(files.find_files(path, TABLES) and not files.find_files(path))


def matches_hub(name):
    """Return whether data.source is a name of the Hub, as 'owner/name'."""
    return not (pathlib.Path(name).exists() or name.startswith((".", "/", "~"))) and (
        name.count("/") == 1
    )


def iterate_songs(
    name,
    split=None,
    streaming=False,
    revision=None,
    audio_column="audio",
    caption_column=None,
    artist_column=None,
    album_column=None,
    label_column=None,
    license_column=None,
    song_column=None,
    tempo_column=None,
):
    """Yield a Song, a More or a Skipped for each row, in the data set's order.

    Rows of the same audio (one a caption) are one song: those that share the song column, or,
    where none is named, the very bytes.

    Args:
      split: of a Hub name; where None, all of them, and theirs are respected.
      label_column: one column, or several with commas between them.

    Raises:
      ValueError: the data set cannot be loaded or lacks a named column.
    """
    columns = {
        "audio": audio_column,
        "caption": caption_column,
        "artist": artist_column,
        "album": album_column,
        "label": label_column,
        "license": license_column,
        "song": song_column,
        "tempo": tempo_column,
    }
    columns = {kind: column for kind, column in columns.items() if column is not None}
    seen, names = {}, set()
    for given, table in load_tables(name, split, streaming, revision):
        features = table.features or {}
        for index, row in enumerate(select_audio(table, columns, name)):
            place = f"{given or ''} row {index}".strip()
            try:
                fields = read_fields(row, columns, given, features)
            except ValueError as error:
                raise ValueError(f"data.source: {place}: {error}") from error
            sound = row[columns["audio"]] or {}
            audio = sound.get("bytes") or sound.get("path")
            if not audio:
                yield Skipped(place, "the row holds no audio")
                continue
            key = song_key(row, columns, audio)
            if key in seen:
                yield More(seen[key], fields["labels"], fields["captions"])
                continue
            title = (key if "song" in columns else sound.get("path")) or place
            seen[key] = title = title if title not in names else f"{title}#{len(names)}"
            names.add(title)
            yield Song(name=title, audio=audio, **fields)


def load_tables(name, split, streaming, revision):
    """Return [(split that the data set gives or None, table)] without decoding any audio."""
    import datasets  # slow to import

    path = pathlib.Path(name)
    for field, value in (("split", split), ("revision", revision)):
        if path.exists() and value:
            raise ValueError(f"data.{field}={value!r} is for Hub names; a local path is read whole")
    commit = None if path.exists() else resolve_commit(name, revision)
    try:
        if (path / "dataset_info.json").exists() or (path / "dataset_dict.json").exists():
            loaded = datasets.load_from_disk(str(path))
        elif path.exists():
            paths = [path] if path.is_file() else sorted(path.rglob("*.parquet"))
            paths = paths or sorted(path.rglob("*.arrow"))
            kind, parts = paths[0].suffix[1:], group_by_split(paths, path)
            loaded = datasets.load_dataset(kind, data_files=parts, streaming=streaming)
        else:
            loaded = datasets.load_dataset(name, split=split, streaming=streaming, revision=commit)
    except Exception as error:  # the library raises many kinds; the user needs one line
        reason = first_line(error)
        raise ValueError(f"data.source: cannot load the data set {name!r} ({reason})") from error
    if not isinstance(loaded, dict):
        return [(None, loaded)]
    if len(loaded) == 1:  # one table called train is no decision about splits
        return [(None, *loaded.values())]
    return [(metadata.SPLITS.get(split), table) for split, table in loaded.items()]


def group_by_split(paths, root):
    """Return {split or 'none': paths} by a word of their names, as the Hub does."""
    groups = {}
    for path in paths:
        words = re.split("[^a-z]+", path.relative_to(root).as_posix().lower())
        split = next((metadata.SPLITS[word] for word in words if word in metadata.SPLITS), "none")
        groups.setdefault(split, []).append(str(path))
    return groups


def select_audio(table, columns, name):
    """Return the table with its audio column undecoded.

    Raises:
      ValueError: a named column is missing, or the audio column holds no sound.
    """
    import datasets

    there = table.column_names or list(table.features or ())
    for kind, value in columns.items():
        for column in value.split(",") if kind == "label" else [value]:
            if column not in there:
                raise ValueError(
                    f"data.{kind}_column: {name!r} has no column {column!r}, but {there}"
                )
    try:
        return table.cast_column(columns["audio"], datasets.Audio(decode=False))
    except Exception as error:  # the library raises many kinds; the user needs one line
        raise ValueError(
            f"data.audio_column: {columns['audio']!r} of {name!r} holds no sound ({error})"
        ) from error


def read_fields(row, columns, given, features):
    """Return the Song fields of a row; a list in a column gives several labels or captions."""
    plain = {
        kind: row[column] for kind, column in columns.items() if kind not in ("audio", "label")
    }
    plain["captions"] = as_list(plain.pop("caption", None))
    label_columns = columns["label"].split(",") if "label" in columns else []
    plain["labels"] = [
        label
        for column in label_columns
        for label in name_labels(row[column], features.get(column))
    ]
    return metadata.parse_fields(plain) | {"split": given}


def as_list(value):
    """Return None, one value or several as a list; a caption is not cut at its semicolons."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


def name_labels(value, feature):
    """Return labels as a list; a ClassLabel's numbers, or a list of them, become their names."""
    kind = getattr(feature, "feature", feature)  # of a list's members
    if not hasattr(kind, "int2str"):
        return as_list(value)
    # A row of a test set may have -1: no label.
    return [kind.int2str(k) for k in as_list(value) if k is not None and k >= 0]


def song_key(row, columns, audio):
    """Return what two rows of the same song share."""
    if "song" in columns:
        return str(row[columns["song"]])
    return hashlib.sha256(audio).hexdigest() if isinstance(audio, bytes) else audio


@functools.lru_cache
def resolve_commit(name, revision):
    """Return the commit that a revision of a Hub name stands for now.

    The Hub answers once a process; a commit needs no answer.

    Raises:
      ValueError: the Hub does not answer, or has no such revision.
    """
    if re.fullmatch("[0-9a-f]{40}", revision or ""):
        return revision
    import huggingface_hub

    try:
        return huggingface_hub.HfApi().dataset_info(name, revision=revision).sha
    except Exception as error:  # the library raises many kinds; the user needs one line
        reason = first_line(error)
        raise ValueError(
            f"data.source: the Hub gives no commit of {name!r} ({reason}); without a "
            "network set data.revision to the 40 digits of one"
        ) from error


def fingerprint_local(name, options):
    """Return sizes and modification times of the files of a data set on disk."""
    path = pathlib.Path(name)
    return list(files.read_stamp(path)) if path.is_file() else folder.fingerprint_files(path)


def resolve_revision(name, options):
    """Return the commit of a Hub name for the options of its source."""
    return resolve_commit(name, options.get("revision"))


LOCAL = Source(
    title="a Hugging Face data set on disk",
    matches=matches_local,
    songs=iterate_songs,
    fingerprint=fingerprint_local,
)
HUB = Source(
    title="a Hub name 'owner/name'",
    matches=matches_hub,
    songs=iterate_songs,
    fingerprint=resolve_revision,
    revision=resolve_revision,
)
