"""A folder and a Hugging Face data set become the same cache: songs, splits, named skips."""

import io
import json

import datasets
import numpy as np
import pytest
import soundfile

from specdiff_jax import build, data, prepare
from specdiff_jax.audio import files, synth
from specdiff_jax.sources import songbook

RATE = 8000


def manifest(config):
    prepare.run(config)
    return data.load_manifest(prepare.cache_of(config))


def pcm_of(config, name):
    found = manifest(config)
    song = next(entry for entry in found["songs"] if entry["name"] == name)
    pcm = np.memmap(prepare.cache_of(config) / "pcm.int16", dtype=np.int16)
    return pcm[song["start"] : song["start"] + song["samples"]]


def test_a_folder_s_songs_are_the_files_samples(nano, music):
    found = manifest(nano)
    assert len(found["songs"]) == 16 and not found["skipped"]
    for entry in found["songs"]:
        wave, _ = soundfile.read(music / entry["name"], dtype="int16")
        np.testing.assert_array_equal(pcm_of(nano, entry["name"]), wave)
        assert entry["artist"] == entry["name"].split("/")[0]


def test_a_cache_is_found_again_and_a_changed_setting_makes_another(nano):
    manifest(nano)
    cache = prepare.cache_of(nano)
    stamp = (cache / "manifest.json").stat().st_mtime_ns
    nano.data.feed = "host"  # how it is read, not what it is
    prepare.run(nano)
    assert prepare.cache_of(nano) == cache
    assert (cache / "manifest.json").stat().st_mtime_ns == stamp
    nano.data.valid_fraction = 0.3
    assert prepare.cache_of(nano) != cache


def test_broken_files_are_left_out_by_name(nano, tmp_path):
    folder = tmp_path / "songs"
    for k in range(4):
        files.write(folder / f"{k}.wav", synth.harmonics(200 + k, 2, RATE), RATE)
    (folder / "text.wav").write_text("not sound")
    sound = io.BytesIO()
    soundfile.write(sound, synth.harmonics(300, 2, RATE), RATE, format="FLAC")
    (folder / "cut.flac").write_bytes(sound.getvalue()[: len(sound.getvalue()) // 2])
    (folder / "empty.ogg").write_bytes(b"")
    nano.data.source = str(folder)
    found = manifest(nano)
    assert len(found["songs"]) == 4
    assert {skip["name"] for skip in found["skipped"]} == {"text.wav", "cut.flac", "empty.ogg"}


@pytest.mark.parametrize(("format", "suffix"), [("FLAC", "flac"), ("OGG", "ogg"), ("MP3", "mp3")])
def test_formats_decode_to_the_sound_they_hold(tmp_path, format, suffix):
    wave = synth.chords([220, 330], 1.0, 22_050)
    path = tmp_path / f"song.{suffix}"
    soundfile.write(path, wave, 22_050, format=format)
    decoded, rate = files.decode(path)
    assert rate == 22_050 and abs(decoded.shape[1] - len(wave)) < 2500  # mp3 pads
    spectrum = lambda x: np.abs(np.fft.rfft(x[: len(wave)], len(wave)))
    ours, theirs = spectrum(decoded[0]), spectrum(wave)
    assert np.corrcoef(ours, theirs)[0, 1] > 0.98


def test_resampling_keeps_a_tone_s_pitch_and_level():
    wave = synth.harmonics(440.0, 1.0, 48_000, partials=1)
    ours = files.mono(np.stack([wave, wave]), 48_000, 22_050)
    theirs = synth.harmonics(440.0, 1.0, 22_050, partials=1)
    assert np.argmax(np.abs(np.fft.rfft(ours))) == 440
    assert abs(20 * np.log10(ours[1000:-1000].std() / theirs[1000:-1000].std())) < 0.05


def test_int16_is_exact_and_clips_at_full_scale(tmp_path):
    pcm = np.array([-32768, -1, 0, 1, 32767], np.int16)
    np.testing.assert_array_equal(files.to_int16(data.to_float(pcm)), pcm)
    np.testing.assert_array_equal(files.to_int16(np.array([2.0, -2.0])), [32767, -32768])


@pytest.fixture(params=["parquet file", "folder of parquet", "save_to_disk"])
def dataset(request, music, tmp_path):
    """The folder's songs in each local form of a Hugging Face data set."""
    rows = [
        {
            "audio": {"bytes": path.read_bytes(), "path": f"{path.parent.name}-{path.name}"},
            "caption": f"chords of {path.parent.name}",
            "artist": path.parent.name,
        }
        for path in files.find(music)
    ]
    table = datasets.Dataset.from_list(rows)
    folder = tmp_path / "dataset"
    if request.param == "save_to_disk":
        table.save_to_disk(str(folder))
        return folder
    folder.mkdir()
    table.to_parquet(str(folder / "train.parquet"))
    return folder / "train.parquet" if request.param == "parquet file" else folder


def test_a_hugging_face_data_set_gives_the_same_songs(nano, music, dataset):
    nano.data.update(source=str(dataset), caption_column="caption", artist_column="artist")
    found = manifest(nano)
    assert len(found["songs"]) == 16 and not found["skipped"]
    name = "artist 3-1.wav"
    wave, _ = soundfile.read(music / "artist 3" / "1.wav", dtype="int16")
    np.testing.assert_array_equal(pcm_of(nano, name), wave)
    entry = next(entry for entry in found["songs"] if entry["name"] == name)
    assert entry["captions"] == ["chords of artist 3"] and entry["artist"] == "artist 3"


def test_a_missing_column_or_a_wrong_option_is_named(nano, dataset):
    nano.data.update(source=str(dataset), caption_column="words")
    with pytest.raises(ValueError, match="no column 'words'"):
        list(build.source(nano))
    nano.data.update(caption_column=None, split="validation")
    with pytest.raises(ValueError, match="data.split='validation' is for Hub names"):
        list(build.source(nano))
    nano.data.update(split=None, song_seconds=10.0)
    with pytest.raises(ValueError, match=r"data.song_seconds=10.0 is not used by"):
        build.source(nano)


@pytest.mark.parametrize(
    ("source", "pieces"), [("songbook", 300), ("songbook:900", 900), ("/music/songbook", None)]
)
def test_the_songbook_s_name_says_its_size(source, pieces):
    assert songbook.pieces_of(source) == pieces
    with pytest.raises(ValueError, match="'songbook:many': write"):
        songbook.pieces_of("songbook:many")


def test_a_half_written_cache_is_never_taken_for_whole(nano, monkeypatch):
    def dies(config):
        yield from list(real(config))[:3]
        raise KeyboardInterrupt

    real = build.source
    monkeypatch.setattr(build, "source", dies)
    with pytest.raises(KeyboardInterrupt):
        prepare.run(nano)
    assert not prepare.cache_of(nano).exists()
    monkeypatch.undo()
    assert len(manifest(nano)["songs"]) == 16
    json.dumps(manifest(nano))
