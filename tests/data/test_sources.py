"""A folder and a Hugging Face data set become the same cache: songs, splits, named skips."""

import json
import os

import datasets
import numpy as np
import pytest
import soundfile

from specdiff_jax.audio import decode as ingest_module
from specdiff_jax.audio import files, quality_checks
from specdiff_jax.audio.decode import AudioFormat, decode_audio, measure_lufs
from specdiff_jax.data import cache, collection, crops, prepare
from specdiff_jax.data.sources import folder, huggingface, metadata
from specdiff_jax.data.sources import manifest as manifest_source
from specdiff_jax.data.sources.songbook import songbook
from tests.helpers import synth

pytestmark = pytest.mark.usefixtures("quick_prepare")
RATE = 8000


def manifest(config):
    prepare.run(config)
    return cache.read_manifest(prepare.locate_cache(config))


def song_of(config, name):
    """(entry, pcm [N, A]) of a prepared song."""
    prepared = manifest(config)
    song = next(entry for entry in prepared["songs"] if entry["name"] == name)
    shard = cache.open_shards(prepare.locate_cache(config), prepared)[song["shard"]]
    return song, shard[song["start"] : song["start"] + song["samples"]]


def tones(folder, count=4, seconds=2.0, rate=RATE):
    """Sound files of different notes: 0.wav, 1.wav, ..."""
    for k in range(count):
        rng = np.random.default_rng(k)
        wave = synth.chords(110 * 2 ** (3 * rng.random(8)), seconds / 8, rate)
        files.write(folder / f"{k}.wav", wave, rate)
    return folder


def test_folder_songs_equal_the_samples_of_the_files(nano, music):
    prepared = manifest(nano)
    assert len(prepared["songs"]) == 16 and not prepared["skipped"]
    for entry in prepared["songs"]:
        wave, _ = soundfile.read(music / entry["name"], dtype="int16")
        np.testing.assert_array_equal(song_of(nano, entry["name"])[1][:, 0], wave)
        assert entry["artist"] == entry["name"].split("/")[0]


@pytest.mark.parametrize(("format", "suffix"), [("FLAC", "flac"), ("OGG", "ogg"), ("MP3", "mp3")])
def test_formats_decode_to_the_same_spectrum(tmp_path, format, suffix):
    wave = synth.chords([220, 330], 1.0, 22_050)
    path = tmp_path / f"song.{suffix}"
    soundfile.write(path, wave, 22_050, format=format)
    pcm, facts, _ = decode_audio(str(path), AudioFormat(22_050))
    assert facts["sample_rate"] == 22_050 and abs(len(pcm) - len(wave)) < 2500  # mp3 pads
    spectrum = lambda x: np.abs(np.fft.rfft(x[: len(wave)], len(wave)))
    assert np.corrcoef(spectrum(pcm[:, 0]), spectrum(wave))[0, 1] > 0.98


def test_resampling_keeps_pitch_and_level():
    wave = synth.harmonics(440.0, 1.0, 48_000, partials=1)
    pcm, _, _ = decode_audio((np.stack([wave, wave]), 48_000), AudioFormat(22_050))
    ours, theirs = pcm[:, 0] / 32768, synth.harmonics(440.0, 1.0, 22_050, partials=1)
    assert len(ours) == 22_050 and np.argmax(np.abs(np.fft.rfft(ours))) == 440
    assert abs(20 * np.log10(ours[1000:-1000].std() / theirs[1000:-1000].std())) < 0.05


def test_decoding_is_independent_of_the_block_size(tmp_path, monkeypatch):
    wave = synth.chords([220, 330, 440], 1.0, 44_100)
    files.write(tmp_path / "song.wav", wave, 44_100)
    whole = decode_audio(str(tmp_path / "song.wav"), AudioFormat(22_050))[0]
    monkeypatch.setattr(files, "BLOCK", 1000)
    np.testing.assert_array_equal(
        decode_audio(str(tmp_path / "song.wav"), AudioFormat(22_050))[0], whole
    )


def test_stereo_keeps_channels_and_mono_is_their_mean():
    left, right = synth.harmonics(440.0, 1.0, RATE), synth.harmonics(550.0, 1.0, RATE)
    stereo, _, _ = decode_audio((np.stack([left, right]), RATE), AudioFormat(RATE, channels=2))
    np.testing.assert_array_equal(stereo, files.to_int16(np.stack([left, right], axis=1)))
    mono, _, _ = decode_audio((np.stack([left, right]), RATE), AudioFormat(RATE))
    assert np.abs(mono[:, 0] - stereo.mean(axis=1)).max() <= 1
    doubled, _, _ = decode_audio((left[None], RATE), AudioFormat(RATE, channels=2))
    np.testing.assert_array_equal(doubled[:, 0], doubled[:, 1])


@pytest.mark.parametrize("gain", [0.02, 0.3])
def test_loudness_is_normalized_to_its_level(gain):
    wave = gain * synth.chords([220, 330, 262, 392] * 2, 0.5, 22_050)[None]
    peak, facts, _ = decode_audio(
        (wave, 22_050), AudioFormat(22_050, loudness="peak", level_db=-6.0)
    )
    assert 20 * np.log10(np.abs(peak).max() / 32768) == pytest.approx(-6.0, abs=0.02)
    assert facts["gain_db"] == pytest.approx(-6.0 - 20 * np.log10(np.abs(wave).max()), abs=0.02)
    loud, _, _ = decode_audio((wave, 22_050), AudioFormat(22_050, loudness="lufs", level_db=-23.0))
    assert measure_lufs(loud, 22_050) == pytest.approx(-23.0, abs=0.05)


def test_trim_removes_silence_at_the_ends_only():
    tone, rest = synth.harmonics(440.0, 1.0, RATE), np.zeros(RATE, np.float32)
    wave = np.concatenate([rest, tone, rest, tone, rest])[None]
    assert len(decode_audio((wave, RATE), AudioFormat(RATE))[0]) == 5 * RATE
    trimmed = decode_audio((wave, RATE), AudioFormat(RATE, trim_db=-60.0))[0]
    assert abs(len(trimmed) - 3 * RATE) <= 0.11 * RATE


def test_int16_is_exact_and_clips_at_full_scale(tmp_path):
    pcm = np.array([-32768, -1, 0, 1, 32767], np.int16)
    np.testing.assert_array_equal(files.to_int16(crops.pcm_to_float(pcm)), pcm)
    np.testing.assert_array_equal(files.to_int16(np.array([2.0, -2.0])), [32767, -32768])


def test_folder_reads_tables_and_sidecars(fresh, tmp_path):
    """metadata.csv in the audiofolder convention, .txt and .json beside a song, a missing file."""
    folder = tones(tmp_path / "songs", 5)
    rows = ["file_name,caption,artist,labels", '0.wav,"slow, sad",Ann,piano;solo', "0.wav,again,,"]
    (folder / "metadata.csv").write_text("\n".join([*rows, "gone.wav,never,Ann,", "1.wav,,Bob,"]))
    (folder / "1.txt").write_text("a line\nanother\n")
    (folder / "2.json").write_text('{"artist": "Eve", "labels": ["a;b"], "split": "validation"}')
    (folder / "3.json").write_text("{broken")
    fresh.data.update(source=str(folder), max_error_fraction=0.5)
    prepared = manifest(fresh)
    songs = {song["name"]: song for song in prepared["songs"]}
    assert prepared["num_items"] == 6 == len(prepared["songs"]) + len(prepared["skipped"])
    assert songs["0.wav"]["captions"] == ["slow, sad", "again"]
    assert songs["0.wav"]["labels"] == ["piano", "solo"] and songs["0.wav"]["artist"] == "Ann"
    assert songs["1.wav"]["captions"] == ["a line", "another"] and songs["1.wav"]["artist"] == "Bob"
    assert songs["2.wav"]["labels"] == ["a;b"] and songs["2.wav"]["split"] == "valid"
    reasons = {skip["name"]: skip["reason"] for skip in prepared["skipped"]}
    assert "not there" in reasons["gone.wav"] and "not JSON" in reasons["3.wav"]


def test_folder_labels_turn_sub_folders_into_labels(nano, music, caches):
    nano.data.folder_labels = True
    prepared = manifest(nano)
    assert all(song["labels"] == [song["name"].split("/")[0]] for song in prepared["songs"])
    assert len({song["group"] for song in prepared["songs"]}) == 16


def test_manifest_yields_parts_of_files(fresh, tmp_path):
    folder = tones(tmp_path / "songs", 3)
    lines = [
        {"path": "songs/0.wav", "start": 0.5, "end": 1.0, "labels": ["x"], "split": "train"},
        {"path": "songs/0.wav", "start": 0.5, "end": 1.0, "caption": "half a second"},
        {"path": "songs/0.wav", "start": 1.0, "license": "CC-BY"},
        {"path": "songs/1.wav", "artist": "Bob"},
        {"path": "songs/7.wav"},
    ]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    fresh.data.update(source=str(tmp_path / "list.jsonl"), max_error_fraction=0.5)
    wave, _ = soundfile.read(folder / "0.wav", dtype="int16")
    entry, pcm = song_of(fresh, "songs/0.wav#0.5-1.0")
    np.testing.assert_array_equal(pcm[:, 0], wave[RATE // 2 : RATE])
    assert entry["captions"] == ["half a second"] and entry["labels"] == ["x"]
    rest, pcm = song_of(fresh, "songs/0.wav#1-")
    np.testing.assert_array_equal(pcm[:, 0], wave[RATE:])
    assert rest["license"] == "CC-BY" and rest["group"] == entry["group"]
    assert [skip["name"] for skip in manifest(fresh)["skipped"]] == ["songs/7.wav"]


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "line 1: is not JSON"), ('{"start": 1}', "row 1 has no path"), ("", "lists no songs")]
    + [('{"path": "a", "split": "some"}', "split='some'"), ("[1]", "line 1: is not a JSON object")]
    + [('{"path": "a", "start": "soon"}', "start='soon' is not a time")],
)
def test_broken_manifest_fails_with_its_line(nano, tmp_path, text, message):
    (tmp_path / "list.jsonl").write_text(text)
    nano.data.source = str(tmp_path / "list.jsonl")
    with pytest.raises(ValueError, match=message):
        list(collection.iterate_items(nano))


@pytest.mark.parametrize(
    ("name", "text"),
    [("list.csv", 'path,caption\na.wav,"two\nlines \u2028 \x85"\n')]
    + [("list.jsonl", '{"path": "a.wav", "caption": "two\\nlines \u2028 \x85"}\n')],
)
def test_line_ends_inside_a_text_divide_no_row(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    [row] = metadata.read_rows(tmp_path / name)
    assert row["caption"] == "two\nlines \u2028 \x85"


@pytest.mark.parametrize(
    ("text", "message"),
    [("path,caption\na.wav,slow, sad\n", "line 2 has more cells than the header")]
    + [('path,caption\na.wav,"open\nb.wav,x\n', "unexpected end of data; are quotes closed")]
    + [(f'path\n"{"x" * (1 << 25)}"\n', "line 1: field larger than field limit")],
)
def test_broken_csv_fails_with_its_line(tmp_path, text, message):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        metadata.read_rows(tmp_path / "list.csv")


def test_empty_cells_at_the_end_of_a_row_are_ignored(tmp_path):
    (tmp_path / "list.csv").write_text("path,caption\na.wav,slow,,\n")
    assert metadata.read_rows(tmp_path / "list.csv") == [{"path": "a.wav", "caption": "slow"}]


def test_hostile_json_is_rejected_as_broken_json(tmp_path):
    """Nested deeper than the parser goes; a byte-order mark; a file name that is a number."""
    for number in range(3):
        files.write(tmp_path / f"{number}.wav", np.ones(9), RATE)
    (tmp_path / "0.json").write_text("[" * 200_000)
    (tmp_path / "1.json").write_bytes(b'\xef\xbb\xbf{"labels": ["x"]}')
    (tmp_path / "metadata.jsonl").write_text('{"file_name": 5}')
    deep, marked, _, missing = folder.iterate_songs(tmp_path)
    assert "0.json beside it is not JSON" in deep.reason and marked.labels == ("x",)
    assert missing.name == "5"
    (tmp_path / "metadata.jsonl").write_text("[" * 200_000)
    with pytest.raises(ValueError, match="line 1: is not JSON"):
        list(folder.iterate_songs(tmp_path))


ONE_FILE = pytest.param("parquet file", marks=pytest.mark.slow)


@pytest.fixture(params=[ONE_FILE, "folder of parquet", "save_to_disk"])
def dataset(request, music, tmp_path):
    """The folder's songs in each local form of a Hugging Face data set."""
    rows = [
        {
            "audio": {"bytes": path.read_bytes(), "path": f"{path.parent.name}-{path.name}"},
            "caption": f"chords of {path.parent.name}",
            "artist": path.parent.name,
        }
        for path in files.find_files(music)
    ]
    table = datasets.Dataset.from_list(rows)
    folder = tmp_path / "dataset"
    if request.param == "save_to_disk":
        table.save_to_disk(str(folder))
        return folder
    folder.mkdir()
    table.to_parquet(str(folder / "train.parquet"))
    return folder / "train.parquet" if request.param == "parquet file" else folder


def test_huggingface_yields_the_songs_of_the_folder(nano, music, dataset):
    nano.data.update(source=str(dataset), caption_column="caption", artist_column="artist")
    prepared = manifest(nano)
    assert len(prepared["songs"]) == 16 and not prepared["skipped"]
    name = "artist 3-1.wav"
    wave, _ = soundfile.read(music / "artist 3" / "1.wav", dtype="int16")
    entry, pcm = song_of(nano, name)
    np.testing.assert_array_equal(pcm[:, 0], wave)
    assert entry["captions"] == ["chords of artist 3"] and entry["artist"] == "artist 3"


def test_missing_column_or_wrong_option_is_named(nano, dataset):
    nano.data.update(source=str(dataset), caption_column="words")
    with pytest.raises(ValueError, match="caption_column: .* no column 'words'"):
        list(collection.iterate_items(nano))
    nano.data.update(caption_column=None, split="validation")
    with pytest.raises(ValueError, match="data.split='validation' is for Hub names"):
        list(collection.iterate_items(nano))
    nano.data.update(split=None, songbook_seconds=10.0)
    with pytest.raises(ValueError, match=r"data.songbook_seconds=10.0 is not used by"):
        collection.iterate_items(nano)


@pytest.mark.parametrize(
    ("source", "pieces"), [("songbook", 300), ("songbook:900", 900), ("/music/songbook", None)]
)
def test_songbook_name_sets_its_size(source, pieces):
    assert songbook.parse_num_pieces(source) == pieces
    with pytest.raises(ValueError, match="'songbook:many': write"):
        songbook.parse_num_pieces("songbook:many")


@pytest.mark.slow
def test_huggingface_rows_of_the_same_audio_are_one_song(nano, music, tmp_path):
    """As in Song Describer, where a row is a caption: by the song column, or by the bytes."""
    from configs import song_describer

    captions = ["calm", "slow; sad", "calm"]
    rows = [
        {
            "caption_id": f"{track}-{k}",
            "track_id": track,
            "caption": caption,
            "artist_id": track % 3,
            "album_id": track,
            "path": {"bytes": path.read_bytes(), "path": f"{track}.2min.wav"},
        }
        for k, caption in enumerate(captions)
        for track, path in enumerate(files.find_files(music))
    ]
    datasets.Dataset.from_list(rows).to_parquet(str(tmp_path / "replica.parquet"))
    columns = song_describer.get_config().data
    for field in ("audio", "caption", "artist", "album"):
        nano.data[f"{field}_column"] = columns[f"{field}_column"]
    nano.data.source = str(tmp_path / "replica.parquet")
    for song_column in (columns.song_column, None):
        nano.data.song_column = song_column
        prepared = manifest(nano)
        assert len(prepared["songs"]) == prepared["num_items"] == 16
        assert all(song["captions"] == ["calm", "slow; sad"] for song in prepared["songs"])
        sides = {}
        for song in prepared["songs"]:
            assert sides.setdefault(song["artist"], song["split"]) == song["split"]
        assert set(sides) == {"0", "1", "2"}


def test_huggingface_splits_are_kept(fresh, music, tmp_path):
    paths = files.find_files(music)
    parts = {"train": paths[:10], "validation": paths[10:13], "test": paths[13:]}
    tables = {
        name: datasets.Dataset.from_list(
            [{"audio": {"bytes": path.read_bytes(), "path": path.as_posix()}} for path in chosen]
        )
        for name, chosen in parts.items()
    }
    datasets.DatasetDict(tables).save_to_disk(str(tmp_path / "dict"))
    fresh.data.update(source=str(tmp_path / "dict"), streaming=None)
    prepared = manifest(fresh)
    for name, split in (("train", "train"), ("validation", "valid"), ("test", "test")):
        songs = {song["name"] for song in prepared["songs"] if song["split"] == split}
        assert songs == {path.as_posix() for path in parts[name]}


def test_parquet_file_names_set_the_split(tmp_path):
    """As a data set of the Hub that was downloaded; a song's name is its own in all of them."""
    for part in ("train-00000-of-00001", "validation-00000", "my_test", "2nd"):
        row = {"audio": {"bytes": part.encode(), "path": None}}
        (tmp_path / "data").mkdir(exist_ok=True)
        datasets.Dataset.from_list([row]).to_parquet(str(tmp_path / "data" / f"{part}.parquet"))
    loaded = list(huggingface.iterate_songs(str(tmp_path)))
    split_of = {song.audio.decode(): song.split for song in loaded}
    assert split_of == {
        "train-00000-of-00001": "train",
        "validation-00000": "valid",
        "my_test": "test",
        "2nd": None,
    }
    assert len({song.name for song in loaded}) == 4


def test_class_labels_become_their_names(tmp_path):
    kind = datasets.ClassLabel(names=["rock", "jazz"])
    audio = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    columns = {"audio": audio, "genre": kind, "tags": datasets.Sequence(kind)}
    rows = [
        {"audio": {"bytes": b"a"}, "genre": 1, "tags": [0, 1]},
        {"audio": {"bytes": b"b"}, "genre": -1, "tags": []},
    ]
    table = datasets.Dataset.from_list(rows, features=datasets.Features(columns))
    table.save_to_disk(str(tmp_path / "saved"))
    loaded = list(huggingface.iterate_songs(str(tmp_path / "saved"), label_column="genre,tags"))
    assert [song.labels for song in loaded] == [("jazz", "rock"), ()]


def test_column_of_the_wrong_type_is_named(tmp_path):
    rows = [{"number": 1, "audio": {"bytes": b"a", "path": None}, "bpm": "fast"}]
    datasets.Dataset.from_list(rows).to_parquet(str(tmp_path / "one.parquet"))
    for columns, message in (
        ({"audio_column": "number"}, "data.audio_column: 'number' of .* holds no sound"),
        ({"tempo_column": "bpm"}, "row 0: tempo='fast' is not a number"),
    ):
        with pytest.raises(ValueError, match=message):
            list(huggingface.iterate_songs(str(tmp_path / "one.parquet"), **columns))


def test_streaming_yields_the_same_songs(nano, dataset):
    if (dataset / "dataset_info.json").exists():
        pytest.skip("save_to_disk is read from memory maps, never streamed")
    nano.data.update(source=str(dataset), artist_column="artist")
    plain = manifest(nano)
    nano.data.streaming = True
    streamed = manifest(nano)
    assert streamed["songs"] == plain["songs"] and streamed["shards"] == plain["shards"]


def test_hub_name_resolves_to_a_commit(nano, monkeypatch):
    """The Hub is called once, for a commit never; without an answer the error is one line."""
    import huggingface_hub

    requests = []

    def dataset_info(self, name, revision=None):
        requests.append((name, revision))
        if name == "someone/gone":
            raise OSError("no network\nat all")
        return type("Info", (), {"sha": "a" * 40})

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    nano.data.source = "someone/songs"
    nano.data.revision = "main"
    first = prepare.locate_cache(nano)
    assert collection.resolve_revision(nano) == "a" * 40 and prepare.locate_cache(nano) == first
    assert requests == [("someone/songs", "main")]
    nano.data.revision = "b" * 40
    assert collection.resolve_revision(nano) == "b" * 40 and prepare.locate_cache(nano) != first
    nano.data.update(source="someone/gone", revision=None)
    with pytest.raises(ValueError, match=r"commit of 'someone/gone' \(no network\); without"):
        prepare.locate_cache(nano)
    assert len(requests) == 2


def test_manifest_fingerprint_follows_its_files(nano, tmp_path, monkeypatch):
    """The list itself does not change with its files; a ~ is the home folder."""
    tones(tmp_path / "songs", 2)
    (tmp_path / "list.csv").write_text("path\nsongs/0.wav\nsongs/1.wav\n")
    nano.data.source = str(tmp_path / "list.csv")
    before = prepare.locate_cache(nano)
    assert prepare.locate_cache(nano) == before
    tones(tmp_path / "songs", 1, seconds=3.0)
    assert prepare.locate_cache(nano) != before
    monkeypatch.setenv("HOME", str(tmp_path))
    for source in ("~/list.csv", "~/songs"):
        nano.data.source = source
        assert prepare.locate_cache(nano) and len(list(collection.iterate_items(nano))) == 2


def test_part_beyond_the_end_of_a_file_is_a_finding(tmp_path):
    [path] = files.find_files(tones(tmp_path, 1))
    facts = [decode_audio(str(path), AudioFormat(RATE), 0.5, end)[1] for end in (2.0, 20.0)]
    assert [fact["seconds"] for fact in facts] == [1.5, 1.5]
    assert not any("claims" in line for line in quality_checks.list_problems(facts[0]))
    assert "1.5 s of the 19.5 s it claims" in quality_checks.list_problems(facts[1])


def test_truncated_wav_is_rejected_and_streamed_wav_is_not(tmp_path):
    """libsndfile reports the rest of a truncated WAV as the whole; here one of two seconds."""
    [path] = files.find_files(tones(tmp_path, 1))
    whole = path.read_bytes()
    path.write_bytes(whole[: 44 + (len(whole) - 44) // 2])
    with pytest.raises(ValueError, match="truncated, 8000 of 16000 samples are there"):
        decode_audio(str(path), AudioFormat(RATE))
    assert (
        decode_audio(str(path), AudioFormat(RATE), end=0.5)[1]["seconds"] == 0.5
    )  # a part that is whole
    path.write_bytes(whole[:40] + b"\xff\xff\xff\xff" + whole[44:])  # as written into a pipe
    facts = decode_audio(str(path), AudioFormat(RATE))[1]
    assert (facts["seconds"], facts["claimed_seconds"]) == (2.0, 2.0)


def test_pipe_is_skipped(tmp_path):
    tones(tmp_path, 1)
    os.mkfifo(tmp_path / "pipe.wav")
    assert "pipe or device" in list(folder.iterate_songs(tmp_path))[1].reason


def test_song_beyond_worker_memory_is_rejected_before_decoding(monkeypatch):
    """An hour in stereo; half of it, as a part that a list names, is accepted."""
    monkeypatch.setattr(ingest_module, "MAX_BYTES", 3_200_000)
    hour = np.broadcast_to(np.float32(0), (1, 3600 * 1000)), 1000
    with pytest.raises(ValueError, match="1.0 hours long; cut it, or list parts"):
        decode_audio(hour, AudioFormat(441, channels=2))
    with pytest.raises(ValueError, match="silent"):
        decode_audio((hour[0][:, : 1800 * 1000], 1000), AudioFormat(441, channels=2))


def test_unread_columns_are_logged(tmp_path, capsys):
    tones(tmp_path, 1)
    for name, own in (("metadata.csv", "file_name"), ("list.csv", "path")):
        table = tmp_path / name
        table.write_text(f"{own},label,artist\n0.wav,rock,Ann\n")
        [song] = (
            folder.iterate_songs(tmp_path)
            if own == "file_name"
            else manifest_source.iterate_songs(table)
        )
        assert song.artist == "Ann" and not song.labels
        assert (
            f"{table}: columns not read: 'label'; columns read: {own}, artist"
            in capsys.readouterr().err
        )
        table.unlink()
