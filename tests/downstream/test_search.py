"""Search: an excerpt retrieves its song and time; an updated index equals a new one."""

import base64
import io
import json
import shutil

import jax
import numpy as np
import pytest
import soundfile
from absl.testing import flagsaver

from specdiff_jax import main
from specdiff_jax.audio import files
from specdiff_jax.conditioning.text_encoders.encoder import l2_normalize
from specdiff_jax.config import build
from specdiff_jax.data import prepare
from specdiff_jax.diffusion import schedules
from specdiff_jax.downstream import embedders, search, vector_index
from specdiff_jax.downstream import index as indexing
from specdiff_jax.evaluation.embedders.embedder import Embedder
from specdiff_jax.reports import search_report
from specdiff_jax.training import trained_model
from tests.helpers.nano import RATE, small_config

pytest.importorskip("usearch")


@pytest.fixture(autouse=True)
def without_processes(monkeypatch):
    """Decode in this process: worker processes take a second to start."""

    def in_order(one, jobs, seconds):
        for job in jobs:
            try:
                yield job, one(job), None
            except ValueError as error:
                yield job, None, str(error)

    monkeypatch.setattr(indexing.worker_pool, "in_order", in_order)


@pytest.fixture(scope="module")
def base(music, caches, trained_nano, tmp_path_factory):
    """A config with the trained run's backbone and half of the music."""
    folder = tmp_path_factory.mktemp("search")
    config = small_config(music, caches, folder)
    config.workdir = trained_nano
    config.data.source = str(folder / "songs")
    config.search.index = str(folder / "index")
    for artist in range(4):
        shutil.copytree(music / f"artist {artist}", folder / "songs" / f"artist {artist}")
        (folder / "songs" / f"artist {artist}" / "1.json").write_text(
            json.dumps({"labels": ["kind:odd", f"artist:{artist}"]})
        )
    (folder / "songs" / "text.wav").write_text("no sound")
    return config


@pytest.fixture(scope="module")
def built(base):
    """The index of `base`, built once; copy it to change it."""
    patch = pytest.MonkeyPatch()
    without_processes.__wrapped__(patch)
    indexing.run(base)
    patch.undo()
    return base


@pytest.fixture
def config(built, tmp_path):
    """The same with songs and an index of its own."""
    config = built.copy_and_resolve_references()
    shutil.copytree(built.data.source, tmp_path / "songs")
    shutil.copytree(built.search.index, tmp_path / "index")
    config.data.source, config.search.index = str(tmp_path / "songs"), str(tmp_path / "index")
    return config


def find_hits(config, **fields):
    config = config.copy_and_resolve_references()
    config.search.update(fields)
    return search.find_songs(config, vector_index.read_index(indexing.index_folder(config)))


def test_excerpt_retrieves_its_song_at_its_time(built):
    hop = vector_index.read_index(built.search.index).about["hop"] / RATE
    for name, first in (("artist 2/0.wav", 8 * hop), ("artist 0/1.wav", 0.0)):
        path = f"{built.data.source}/{name}"
        best, second = find_hits(built, query=path, seconds=(first, first + 1.0))[:2]
        assert best.song["name"] == name and best.score > 0.999999 > second.score
        assert best.start == pytest.approx(first) and abs(best.end - first - 1) <= hop
    path = f"{built.data.source}/artist 3/0.wav"  # between two windows of the index
    best = find_hits(built, query=path, seconds=(1.33, 2.33))[0]
    assert best.song["name"] == "artist 3/0.wav" and abs(best.start - 1.33) <= hop


def test_whole_song_and_a_longer_query_retrieve_the_song(built, tmp_path):
    path = f"{built.data.source}/artist 1/0.wav"
    best = find_hits(built, query=path)[0]
    assert best.song["name"] == "artist 1/0.wav" and best.start == 0 and best.end > 3.9
    wave, _ = soundfile.read(path)
    hop = vector_index.read_index(built.search.index).about["hop"]
    noise = 0.1 * np.random.default_rng(0).standard_normal(10 * hop)
    files.write(tmp_path / "long.wav", np.concatenate([noise, wave]), RATE)
    best = find_hits(built, query=str(tmp_path / "long.wav"))[0]
    assert best.song["name"] == "artist 1/0.wav" and best.score > 0.99


def test_updated_index_equals_a_new_one(config, music, tmp_path, capfd):
    songs, before = tmp_path / "songs", vector_index.read_index(config.search.index)
    shutil.rmtree(songs / "artist 1")
    shutil.copytree(music / "artist 6", songs / "artist 6")
    shutil.copy(music / "artist 7" / "0.wav", songs / "artist 0" / "0.wav")
    (songs / "artist 2" / "0.json").write_text('{"labels": ["new"]}')
    indexing.run(config)
    log = capfd.readouterr().err
    assert "2 new, 1 changed, 5 unchanged, 1 skipped, 2 removed" in log
    assert "skipped: 'text.wav': not readable as sound" in log
    updated = vector_index.read_index(config.search.index, whole=True)
    config.search.index = str(tmp_path / "fresh")
    indexing.run(config)
    fresh = vector_index.read_index(config.search.index, whole=True)
    np.testing.assert_array_equal(updated.vectors, fresh.vectors)
    plain = lambda index: [{**song, "number": None} for song in index.songs]
    assert plain(updated) == plain(fresh) and updated.about == fresh.about
    assert len({song["number"] for song in updated.songs}) == len(updated.songs)
    names = [song["name"] for song in updated.songs]
    assert "artist 1/0.wav" not in names and "artist 6/1.wav" in names
    assert [s["labels"] for s in updated.songs if s["name"] == "artist 2/0.wav"] == [["new"]]
    assert len(list((tmp_path / "index").glob("vectors-*"))) == 1
    assert len(before.songs) == 8


def test_index_of_another_level_is_refused(config):
    quiet = config.copy_and_resolve_references()
    quiet.data.update(loudness="peak", level_db=-20.0)
    quiet.search.query = f"{config.data.source}/artist 0/0.wav"
    with pytest.raises(ValueError, match="data.loudness: .* was built with 'as_is', not 'peak'"):
        search.run(quiet)
    quiet.search.query = None
    with pytest.raises(ValueError, match="data.loudness: .* was built with 'as_is', not 'peak'"):
        indexing.run(quiet)


def test_unchanged_songs_are_not_embedded_again(config, monkeypatch):
    monkeypatch.setattr(indexing, "embed_wave", lambda *_: pytest.fail("embedded again"))
    before = vector_index.read_index(config.search.index)
    indexing.run(config)
    np.testing.assert_array_equal(before.vectors, vector_index.read_index(before.folder).vectors)


@pytest.mark.parametrize("stops", ["embedded", "vectors", "index.json"])
def test_interrupted_build_leaves_the_old_index_whole(config, music, monkeypatch, stops):
    old = vector_index.read_index(config.search.index)
    vectors, songs = np.array(old.vectors), old.songs
    shutil.copytree(music / "artist 5", f"{config.data.source}/artist 5")

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if stops == "embedded":
            patch.setattr(indexing, "embed_wave", interrupt)
        elif stops == "vectors":
            patch.setattr(vector_index.np, "save", interrupt)
        else:
            patch.setattr(vector_index, "write_json", interrupt)
        with pytest.raises(KeyboardInterrupt):
            indexing.run(config)
    now = vector_index.read_index(config.search.index, whole=True)
    np.testing.assert_array_equal(now.vectors, vectors)
    assert now.songs == songs
    indexing.run(config)
    left = sorted(path.name for path in now.folder.iterdir())
    assert len(left) == 2 and left[0] == "index.json"


def test_labels_filter_songs_and_alone_rank_them_by_their_mean(built):
    hits = find_hits(built, labels="odd")
    assert {hit.song["name"] for hit in hits} == {f"artist {a}/1.wav" for a in range(4)}
    index = vector_index.read_index(built.search.index)
    rows = search.rows_of_songs(index, search.select_songs(index, "odd"))
    mean = index.vectors[rows].mean(axis=0)
    cosines = index.vectors[rows] @ (mean / np.linalg.norm(mean))
    assert hits[0].score == pytest.approx(cosines.max(), abs=1e-6)
    query = f"{built.data.source}/artist 3/0.wav"
    assert len(find_hits(built, labels="odd", query=query)) == 4
    (only,) = find_hits(built, labels="odd, artist:2", query=query)
    assert only.song["name"] == "artist 2/1.wav"


def test_text_query_uses_an_embedder_of_texts(built, monkeypatch):
    index = vector_index.read_index(built.search.index)
    about = index.about
    embedder = Embedder(
        about["embedder"],
        about["sha256"],
        about["width"],
        about["sample_rate"],
        about["window"],
        8,
        None,
        lambda texts: np.stack([3 * index.vectors[index.firsts[int(text)]] for text in texts]),
    )
    monkeypatch.setattr(indexing, "load_embedder", lambda config: embedder)
    best = find_hits(built, text="5")[0]
    assert best.song == index.songs[5] and best.start == 0 and best.score > 0.999999


def test_run_logs_a_table_and_writes_json_and_a_page(built, tmp_path, capfd):
    changed = built.copy_and_resolve_references()
    changed.search.update(
        query=f"{built.data.source}/artist 2/1.wav", seconds=(1.0, 2.0), num_results=3
    )
    search.run(changed, tmp_path / "results.json", tmp_path / "results.html")
    log = capfd.readouterr().err
    assert "artist 2/1.wav  (kind:odd, artist:2)" in log and "8 songs" in log
    results = json.loads((tmp_path / "results.json").read_text())
    assert [one["name"] for one in results["results"]][0] == "artist 2/1.wav"
    assert len(results["results"]) == 3 and results["query"]["seconds"] == [1.0, 2.0]
    page = (tmp_path / "results.html").read_text()
    assert page.count("<audio") == 4 and "http" not in page.split("<main>")[1]


def test_player_of_a_song_without_a_file_plays_the_prepared_range(built, caches):
    """To the sample, from where its range begins; unprepared, or trimmed, it is not."""
    changed = built.copy_and_resolve_references()
    name = "artist 2/1.wav"
    changed.data.cache_dir = str(caches / "searched")
    assert name not in search.open_prepared_songs(changed)
    changed.data.max_error_fraction = 0.5
    prepare.run(changed)
    pcm, rate = search.open_prepared_songs(changed)[name]
    kept, _ = soundfile.read(f"{built.data.source}/{name}", dtype="int16", always_2d=True)
    np.testing.assert_array_equal(pcm, kept)
    one = {"name": name, "file": None, "start": 1.0, "end": 2.0, "labels": []}
    shown = search_report.load_result(one, search.open_prepared_songs(changed))
    sound = base64.b64decode(shown.sound.split("base64,")[1])
    played, _ = soundfile.read(io.BytesIO(sound), dtype="int16")
    np.testing.assert_array_equal(played, kept[rate : 2 * rate, 0])
    assert "another" not in search.open_prepared_songs(changed)
    changed.data.trim_db = -60.0
    assert name not in search.open_prepared_songs(changed)


def test_page_escapes_names_and_labels(tmp_path):
    hostile = "<script>alert(1)</script>\"'"
    one = {"name": hostile, "score": 1.0, "start": 0.0, "end": 1.0, "labels": [hostile]}
    one |= {"artist": hostile, "captions": [], "file": hostile, "offset": 0.0}
    results = {"query": {"file": None, "seconds": None, "text": hostile, "labels": hostile}}
    results |= {
        "songs": 1,
        "vectors": 1,
        "embedder": hostile,
        "results": [one, one | {"file": None}],
    }
    written = search_report.write_search_report(tmp_path / "page.html", results, {}).read_text()
    assert "/home/" not in search_report.describe_query(
        results["query"] | {"file": "/home/me/a.wav"}
    )
    assert "<script" not in written and "&lt;script" in written and "cannot be played" in written


def test_backbone_embedder_gives_the_mean_token_of_each_window(built):
    one = trained_model.load(built.workdir)
    waves = np.random.default_rng(0).standard_normal((8, one.rep.samples)).astype(np.float32) / 9
    embedder = embedders.embed_by_backbone(one, 0, 0.2)
    vectors = np.asarray(embedder.embed(waves))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(embedder.embed(waves[::-1])[::-1], vectors, atol=1e-6)
    np.testing.assert_array_equal(embedders.embed_by_backbone(one, 0, 0.2).embed(waves), vectors)
    for block, noise in ((1, 0.2), (0, 0.3)):
        other = embedders.embed_by_backbone(one, block, noise)
        assert np.abs(other.embed(waves) - vectors).max() > 1e-3 and other.sha256 != embedder.sha256
    model = build.model(one.config, one.rep.shape, one.vocabulary)
    schedule, t = build.schedule(one.config), np.full(8, np.float32(0.2))
    eps = jax.random.normal(jax.random.key(0), (1, *one.rep.shape))
    x_t = schedules.q_sample(schedule, one.rep.encode(waves), t, eps)
    tokens = jax.jit(model.apply)({"params": one.params}, x_t, t)[1][0].mean(axis=1)
    np.testing.assert_allclose(vectors, l2_normalize(np.asarray(tokens)), atol=1e-5)


@pytest.mark.parametrize(
    ("samples", "starts"), [(3, [0]), (10, [0]), (12, [0]), (13, [0, 3]), (20, [0, 5, 10])]
)
def test_window_starts_are_a_hop_apart_and_cover_the_rest(samples, starts):
    np.testing.assert_array_equal(indexing.window_starts(samples, 10, 5), starts)


def test_index_of_another_embedder_is_refused(config, tmp_path):
    config.search.update(embedder="logmel", index=str(tmp_path / "logmel"))
    indexing.run(config)
    query = f"{config.data.source}/artist 3/0.wav"
    best = find_hits(config, query=query, seconds=(0, 2.9))[0]
    assert best.song["name"] == "artist 3/0.wav" and best.start == 0
    config.search.embedder = None
    with pytest.raises(ValueError, match=r"logmel was built by logmel .*, not by backbone:"):
        find_hits(config, query=query)
    with pytest.raises(ValueError, match="was built by logmel"):
        indexing.run(config)
    config.search.update(embedder="logmel", hop=1.0)
    with pytest.raises(ValueError, match="search.hop: .* was built with 1.48"):
        indexing.run(config)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "give --query=FILE, --text or --labels"),
        ({"query": "a.wav", "text": "loud"}, "search.text is not used beside search.query"),
        ({"text": "loud"}, "embeds no texts"),
        ({"text": "loud", "seconds": (0.0, 1.0)}, r"search.seconds=\(0.0, 1.0\) is not used"),
        ({"labels": "od"}, "label 'od' is not one of the 5 of the songs; did you mean kind:odd"),
        ({"labels": "artist:1, artist:2"}, "no song has all of them"),
        ({"labels": "odd", "block": 1}, "search.block=1 is not used with labels alone"),
        ({"query": "nowhere.wav"}, "'nowhere.wav': not readable as sound .there is no such file"),
        ({"text": ""}, "search.text is empty; unset it"),
        ({"labels": " "}, "search.labels is empty"),
        ({"query": "QUERY", "seconds": (1.0, 1.02)}, "are shorter than one patch, 0.032 s"),
        ({"query": "QUERY", "seconds": (2.0, 1.0)}, r"is not \(from, to\)"),
        ({"query": "QUERY", "seconds": (9.0, 10.0)}, "holds no samples between"),
        ({"query": "QUERY", "block": 0}, "was built by .*block None"),
        (
            {"query": "QUERY", "noise_level": 0.2},
            "set search.embedder, block and noise_level as they were",
        ),
        ({"query": "QUERY", "block": 2}, "search.block=2: .* has blocks 0 to 1"),
        (
            {"query": "QUERY", "noise_level": 1.0},
            "search.noise_level=1.0 is not at least 0 and below 1",
        ),
        (
            {"query": "QUERY", "embedder": "logmel", "noise_level": 0.1},
            "is for a backbone, not for",
        ),
        ({"query": "QUERY", "embedder": "logmell"}, "embedder 'logmell' is unknown"),
        ({"query": "QUERY", "embedder": "backbone:nowhere"}, "nowhere"),
        ({"query": "QUERY", "index": "nowhere"}, "there is none at nowhere; build it with"),
        ({"query": "QUERY", "num_results": 0}, "search.num_results=0"),
    ],
)
def test_search_refuses_fields_that_make_no_sense(built, fields, message):
    changed = built.copy_and_resolve_references()
    changed.search.update(fields)
    if changed.search.query == "QUERY":
        changed.search.query = f"{built.data.source}/artist 0/0.wav"
    with pytest.raises(ValueError, match=message) as caught:
        search.run(changed)
    assert "\n" not in str(caught.value)


def test_index_refuses_fields_that_make_no_sense(config, tmp_path):
    def check_refused(message, section="search", **fields):
        changed = config.copy_and_resolve_references()
        changed[section].update(fields)
        with pytest.raises(ValueError, match=message):
            indexing.run(changed)

    (tmp_path / "empty").mkdir()
    check_refused("no .wav.* file under", "data", source=str(tmp_path / "empty"))
    files.write(tmp_path / "short" / "a.wav", np.full(100, 0.5), RATE)
    check_refused("holds no song that can be indexed", "data", source=str(tmp_path / "short"))
    check_refused("data.trim_db=-40.0 is not used by --mode=index", "data", trim_db=-40.0)
    check_refused("search.query='a.wav' is not used by --mode=index", query="a.wav")
    check_refused("search.hop=9.0 s is not in 0.01 to 0.25", hop=9.0)
    vectors = next((tmp_path / "index").glob("vectors-*"))
    raw = bytearray(vectors.read_bytes())
    raw[-1] ^= 1
    vectors.write_bytes(raw)
    check_refused(f"{vectors.name} is damaged; delete")
    vectors.unlink()
    check_refused(f"{vectors.name} is missing; delete")


def test_flags_set_the_fields_of_their_mode(nano):
    changed = nano
    values = {"query": "a.wav", "query_seconds": "1,2.5", "labels": "odd"}
    with flagsaver.as_parsed(mode="search", json="a.json", page="a.html", **values):
        main.refuse_unused_flags()
        main.apply_flags(changed)
    assert (changed.search.query, changed.search.seconds) == ("a.wav", (1.0, 2.5))
    assert changed.search.labels == "odd" and changed.sample.labels is None
    with flagsaver.as_parsed(mode="sample", labels="odd"):
        main.refuse_unused_flags()
        main.apply_flags(changed)
    assert changed.sample.labels == "odd"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"mode": "index", "query": "a.wav"}, "--query is not used without --mode=search"),
        ({"mode": "index", "labels": "a"}, "--labels is not used without --mode=sample or search"),
        ({"mode": "search", "prompt": "loud"}, "--prompt is not used without --mode=sample"),
        ({"mode": "search", "query_seconds": "1"}, "--query_seconds=1 is not FROM,TO in seconds"),
        ({"mode": "search", "query_seconds": "a,b"}, "--query_seconds=a,b is not FROM,TO"),
    ],
)
def test_flags_that_make_no_sense_are_refused(nano, flags, message):
    with flagsaver.as_parsed(**flags), pytest.raises(ValueError, match=message):
        main.refuse_unused_flags()
        main.apply_flags(nano)
