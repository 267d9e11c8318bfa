"""A cache is complete or does not exist; a preparation that was killed resumes."""

import json
import pathlib
import shutil

import numpy as np
import pytest

from specdiff_jax.audio import files
from specdiff_jax.data import cache, collection, prepare, splits, spool
from specdiff_jax.runtime.worker_pool import Stop
from specdiff_jax.sampling import check_config
from tests.helpers import synth

pytestmark = pytest.mark.usefixtures("quick_prepare")


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(cache, "SHARD_BYTES", 100_000)  # two songs of the music


@pytest.fixture
def copied(nano, tmp_path):
    """A config with a copy of the shared cache, which may be changed."""
    prepare.run(nano)
    place = prepare.locate_cache(nano)
    nano.data.cache_dir = str(tmp_path / "cache")
    shutil.copytree(place, prepare.locate_cache(nano))
    return nano


def whole(config):
    """Manifest and samples of a cache."""
    place = prepare.locate_cache(config)
    manifest = cache.read_manifest(place)
    return manifest, [np.array(shard) for shard in cache.open_shards(place, manifest)]


def test_cache_is_reused_until_a_setting_changes(copied):
    place = prepare.locate_cache(copied)
    stamp = (place / "manifest.json").stat().st_mtime_ns
    copied.data.placement = "host"  # how it is read, not what it is
    prepare.run(copied)
    assert prepare.locate_cache(copied) == place
    assert (place / "manifest.json").stat().st_mtime_ns == stamp
    copied.data.valid_fraction = 0.3
    assert prepare.locate_cache(copied) != place


def test_killed_preparation_resumes_to_the_same_cache(fresh, small_shards, monkeypatch):
    real = prepare.record_item
    prepare.run(fresh)
    expected = whole(fresh)
    assert len(expected[1]) > 4
    shutil.rmtree(prepare.locate_cache(fresh))
    names = []

    def record(writer, item, decoded, reason):
        if len(names) == 7:
            names.append("killed")
            raise KeyboardInterrupt
        names.append(item.name)
        real(writer, item, decoded, reason)

    monkeypatch.setattr(prepare, "record_item", record)
    with pytest.raises(KeyboardInterrupt):
        prepare.run(fresh)
    assert not prepare.locate_cache(fresh).exists()
    prepare.run(fresh)
    again = names[8:]
    assert again[0] == names[6] and len(again) == 16 - 6  # three shards of two were safe
    manifest, shards = whole(fresh)
    assert manifest == expected[0]
    for ours, theirs in zip(shards, expected[1], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not cache.locate_partial(prepare.locate_cache(fresh)).exists()


def test_spooled_songs_are_appended_removed_or_stop_the_pool(tmp_path):
    pcm = np.arange(18, dtype=np.int16).reshape(9, 2)
    left, song = spool.write_song(pcm + 1, tmp_path), spool.write_song(pcm[:, ::-1], tmp_path)
    with open(tmp_path / "pcm", "wb") as shard:
        spool.append_song(song, shard)
    np.testing.assert_array_equal(np.fromfile(tmp_path / "pcm", np.int16), pcm[:, ::-1].ravel())
    spool.remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["pcm"] and left.samples == 9
    with pytest.raises(Stop, match="cannot write into .*gone: No such file"):
        spool.write_song(pcm, tmp_path / "gone")


@pytest.mark.parametrize("damage", ["flip", "cut", "missing"])
def test_damaged_cache_fails_before_training(copied, damage):
    shard = prepare.locate_cache(copied) / "pcm-00000.int16"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    {
        "flip": lambda: shard.write_bytes(content),
        "cut": lambda: shard.write_bytes(content[:-2]),
        "missing": shard.unlink,
    }[damage]()
    with pytest.raises(ValueError, match=r"pcm-00000.int16 is damaged .*; delete .* again"):
        prepare.run(copied)


def test_duplicates_are_detected_and_share_a_split(fresh, music, tmp_path):
    folder = tmp_path / "songs"
    for path in files.find_files(music):
        other = folder / path.relative_to(music)
        other.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, other)
    rng, rate = np.random.default_rng(0), 8000
    wave = synth.chords(110 * 2 ** (3 * rng.random(24)), 0.5, rate)
    copy = 0.4 * wave[3 * rate :] + 1e-4 * rng.standard_normal(len(wave) - 3 * rate)
    files.write(folder / "artist 0" / "long.wav", wave, rate)
    files.write(folder / "someone else" / "copy.wav", copy.astype(np.float32), rate)
    shutil.copy(folder / "artist 5" / "1.wav", folder / "someone else" / "same.wav")
    fresh.data.source = str(folder)
    prepare.run(fresh)
    manifest, _ = whole(fresh)
    songs = {song["name"]: song for song in manifest["songs"]}
    pairs = {(pair["first"], pair["second"], pair["kind"]) for pair in manifest["duplicates"]}
    assert pairs == {
        ("artist 0/long.wav", "someone else/copy.wav", "near"),
        ("artist 5/1.wav", "someone else/same.wav", "exact"),
    }
    assert songs["artist 5/1.wav"]["split"] == songs["someone else/same.wav"]["split"]
    assert songs["artist 0/long.wav"]["split"] == songs["someone else/copy.wav"]["split"]
    assert songs["artist 0/long.wav"]["group"] == songs["someone else/copy.wav"]["group"]


def test_too_many_bad_files_fail_and_decoded_songs_are_kept(fresh, music, tmp_path, capsys):
    folder = tmp_path / "songs"
    shutil.copytree(music, folder)
    for name in ("a.wav", "b.flac"):
        (folder / name).write_text("not sound")
    fresh.data.source = str(folder)
    with pytest.raises(ValueError, match=r"2 of 18 files are bad .*data.max_error_fraction=0.05"):
        prepare.run(fresh)
    log = capsys.readouterr().err
    assert "bad: a.wav: not readable" in log and "bad: b.flac: not readable" in log
    partial = cache.locate_partial(prepare.locate_cache(fresh))
    stamps = {path.name: path.stat().st_mtime_ns for path in partial.glob("pcm-*")}
    fresh.data.max_error_fraction = 0.2
    prepare.run(fresh)
    place = prepare.locate_cache(fresh)
    assert {path.name: path.stat().st_mtime_ns for path in place.glob("pcm-*")} == stamps
    assert len(whole(fresh)[0]["skipped"]) == 2
    fresh.data.max_error_fraction = 0.05  # of a whole cache too
    with pytest.raises(ValueError, match="2 of 18 files are bad"):
        prepare.run(fresh)


def test_report_is_written_beside_the_songs(nano):
    prepare.run(nano)
    place = prepare.locate_cache(nano)
    report = json.loads((place / "data_report.json").read_text())
    assert (
        report["num_items"] == 16 and "artist 0/0.wav" in (place / "data_report.html").read_text()
    )
    sides = {song["split"] for song in whole(nano)[0]["songs"]}
    assert sides <= set(splits.SPLITS) and {"train", "valid"} <= sides


def test_wrong_audio_format_is_rejected(nano):
    nano.data.level_db = -14.0
    with pytest.raises(ValueError, match=r"data.level_db=-14.0 does not go with .*'as_is'"):
        collection.build_audio_format(nano)
    nano.data.update(level_db=None, channels=3)
    with pytest.raises(ValueError, match="data.channels=3"):
        collection.build_audio_format(nano)
    nano.data.update(channels=1, loudness="loud")
    with pytest.raises(ValueError, match="data.loudness='loud' is not one of"):
        collection.build_audio_format(nano)


def test_collection_without_a_usable_song_fails_with_reasons(fresh, tmp_path, capsys):
    (tmp_path / "songs").mkdir()
    (tmp_path / "songs" / "a.wav").write_text("not sound")
    fresh.data.source = str(tmp_path / "songs")
    with pytest.raises(ValueError, match="no song could be read"):
        prepare.run(fresh)
    assert "bad: a.wav: not readable" in capsys.readouterr().err


@pytest.mark.parametrize("field", ["include_labels", "exclude_labels"])
def test_label_of_no_song_is_rejected_by_prepare(nano, field):
    nano.data.folder_labels = True
    nano.data[field] = "artist 0, artist 9"
    for _ in range(2):  # with an existing cache too
        with pytest.raises(ValueError, match="'artist 9' .*of the songs"):
            prepare.run(nano)
    nano.data[field] = "artist 0"
    prepare.run(nano)


def test_read_only_cache_is_readable(nano, monkeypatch):
    """As another machine's; one that does not exist yet cannot be written."""
    prepare.run(nano)
    place = prepare.locate_cache(nano)

    def refused(path, mode="r", *rest):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(cache, "open", refused, raising=False)
    with cache.lock_cache(place):
        pass
    with pytest.raises(PermissionError), cache.lock_cache(place.with_name("other")):
        pass


def test_cache_is_complete_after_a_kill_during_publish(tmp_path, monkeypatch):
    writer = cache.Writer(tmp_path / "songs")
    song = spool.write_song(np.ones((9, 1), np.int16), writer.folder)
    writer.add({"name": "a"}, song, np.zeros((0, 2), np.int32))
    writer.count_item()
    writer.close_shard()

    def killed(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(pathlib.Path, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        writer.publish({"channels": 1, "shards": writer.shards, "songs": writer.songs})
    cache.verify_cache(tmp_path / "songs")


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"max_error_fraction": -1.0}, "data.max_error_fraction=-1.0 is not a fraction")]
    + [({"valid_fraction": 0.7, "test_fraction": 0.6}, "leave nothing to train with")]
    + [({"placement": "disk"}, "data.placement='disk' is not one of auto, device, host")]
    + [({"trim_db": 6.0}, "data.trim_db=6.0 cuts everything")]
    + [({"source": ""}, "data.source='' is not")],
)
def test_wrong_values_are_rejected_before_a_song_is_read(nano, fields, message):
    nano.data.update(fields)
    with pytest.raises(ValueError, match=message):
        check_config.check(nano)
        collection.find_source(nano)


def test_damaged_manifest_is_named(tmp_path):
    (tmp_path / "manifest.json").write_text('{"songs": [')
    with pytest.raises(ValueError, match=r"manifest.json is damaged .*prepare it again"):
        cache.read_manifest(tmp_path)
