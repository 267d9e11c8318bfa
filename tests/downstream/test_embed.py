"""Embeddings: a song's crops find each other, words find songs, what is held stays, runs resume."""

import csv
import json
import pathlib

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from configs import embedding as shipped
from specdiff_jax.audio import files
from specdiff_jax.conditioning import text_encoders
from specdiff_jax.data import crops, prepare
from specdiff_jax.downstream import embed, embed_rules, search, trained_embedding, vector_index
from specdiff_jax.downstream import index as indexing
from specdiff_jax.downstream.embed_job import Embedding
from specdiff_jax.sampling import check_config
from specdiff_jax.training import checkpoints, validation
from tests.helpers.letters import load_letters
from tests.helpers.nano import RATE, small_config

STEPS = 60  # of training by crops alone
SONGS = {"train": 8, "valid": 4, "test": 4}


@pytest.fixture(scope="module", autouse=True)
def letters():
    text_encoders.TEXT_ENCODERS["letters"] = load_letters
    yield
    del text_encoders.TEXT_ENCODERS["letters"]


def listed(folder, songs):
    """A list of songs for data.source. songs: (split, wave, labels, captions), no label twice."""
    rows = []
    for number, (split, wave, labels, captions) in enumerate(songs):
        path = folder / f"{split} {number}.wav"
        files.write(path, wave.astype(np.float32), RATE)
        row = {"path": path, "split": split, "artist": path.stem}
        rows.append(row | {"labels": labels, "captions": captions})
    with (folder / "songs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / "songs.csv"


def tone(hertz, samples):
    return np.sin(2 * np.pi * hertz * np.arange(samples) / RATE)


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    """Songs of a tone each, low or high, in noise; a label and a caption say which."""
    made_up = []
    for part, (split, count) in enumerate(SONGS.items()):
        for number in range(count):
            rng = np.random.default_rng([part, number])
            kind, low, high = (("low", 150, 600), ("high", 1200, 3500))[number % 2]
            hertz = low * (high / low) ** ((number // 2 + 0.2 + 0.1 * part) / (count // 2))
            wave = 0.3 * tone(hertz, 3 * RATE) + 0.02 * rng.standard_normal(3 * RATE)
            made_up.append((split, wave, f"pitch:{kind}", f"{kind} notes"))
    return listed(tmp_path_factory.mktemp("toned"), made_up)


@pytest.fixture(scope="module")
def veiled(tmp_path_factory):
    """Songs of a soft tone each, under loud ones above it that change all the time.

    (The chords of `music` have nothing in common within a song: there is nothing to learn.)
    """
    made_up = []
    for split, count in {"train": 24, "valid": 8, "test": 2}.items():
        for number in range(count):
            rng = np.random.default_rng([count, number])
            own = 200 * 6 ** ((number + rng.uniform(0.2, 0.8)) / count)
            loud = [tone(rng.uniform(1500, 3800), RATE // 4) for _ in range(8)]
            made_up.append((split, 0.08 * tone(own, 2 * RATE) + 0.4 * np.concatenate(loud), "", ""))
    return listed(tmp_path_factory.mktemp("veiled"), made_up)


def made(songs, caches, folder, trainable="all", **fields):
    config = small_config(songs, caches, folder)
    config.model.depth = 1  # what comes after the block that is read never learns
    config.embed.update(dim=16)
    config.head.update(pool_queries=1, windows=4, trainable=trainable)
    config.embed.update(fields)
    config.optimizer.update(
        learning_rate=0.01, lr_schedule="constant", ema_decay=0.5, weight_decay=0.0
    )
    config.train.update(
        batch_size=16, num_steps=30, eval_every=10, checkpoint_every=10, steps_per_dispatch=5
    )
    return config


@pytest.fixture
def config(songs, caches, tmp_path):
    return made(songs, caches, tmp_path)


@pytest.fixture(scope="module")
def worded(songs, caches, tmp_path_factory):
    """An embedding trained with captions on a held trunk, and an index of all songs by it."""
    folder = tmp_path_factory.mktemp("worded")
    config = made(songs, caches, folder, trainable="head", text="letters", max_tokens=12)
    config.train.update(num_steps=60, eval_every=30, checkpoint_every=30)
    embed.run(config)
    indexing.run(config)
    return config


def job_of(config):
    embed_rules.check(config)
    prepare.run(config)
    job = Embedding(config)
    job.take_songs()
    return job


def flat(params):
    return {"/".join(path): np.asarray(x) for path, x in flatten_dict(params).items()}


def newest(config):
    job = job_of(config)
    return job.restore(checkpoints.newest_good(config.workdir))


# ---- crops


def test_two_crops_of_a_song_never_overlap_where_there_is_room(config):
    songs = job_of(config).songs
    samples = 1984
    for step in range(40):
        first, second = np.split(crops.draw_pair_offsets(songs, samples, 0, step, 16), 2)
        np.testing.assert_array_equal(first, crops.draw_offsets(songs, samples, 0, step, 8))
        np.testing.assert_array_equal(songs.song_at(first), songs.song_at(second))
        inside = second - songs.starts[songs.song_at(second)]
        assert (inside >= 0).all() and (inside + samples <= songs.lengths[0]).all()
        assert (np.abs(first - second) >= samples).all()
    tight = 3 * RATE * 5 // 9  # a crop in the middle leaves no room for another
    first, second = np.split(crops.draw_pair_offsets(songs, tight, 0, 0, 16), 2)
    inside = second - songs.starts[songs.song_at(second)]
    assert set(inside) <= {0, 3 * RATE - tight}


def test_a_partner_can_be_anywhere_and_a_step_always_has_the_same(config):
    songs = job_of(config).songs
    draw = lambda step: crops.draw_pair_offsets(songs, 1984, 3, step, 16)
    np.testing.assert_array_equal(draw(5), draw(5))
    np.testing.assert_array_equal(
        crops.draw_pair_offsets(songs, 1984, 3, 5, 16, slice(8, 16)), draw(5)[8:]
    )
    partners = np.concatenate([np.split(draw(step), 2)[1] for step in range(200)])
    inside = (partners - songs.starts[songs.song_at(partners)]) / (3 * RATE - 1984)
    assert (np.histogram(inside, 5, (0, 1))[0] > 0.1 * len(inside)).all()


# ---- training


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_training_makes_crops_of_a_song_find_each_other(veiled, caches, tmp_path, loss):
    """Much better than the same head on the same trunk before it learned."""
    config = made(veiled, caches, tmp_path, loss=loss)
    config.embed.temperature = 0.1 if loss == "softmax" else None
    config.augment.gain_db = 6.0
    config.train.update(num_steps=STEPS, eval_every=STEPS, checkpoint_every=STEPS)
    job = job_of(config)
    scores = embed.Scores(job, job.valid_songs)
    before = scores.of(job.start().params)
    embed.trained(job)
    ((step, after),) = validation.read_history(config.workdir, embed.KIND, embed.SCORE)
    assert step == STEPS and after > before["recall_1"] + 0.2


def test_a_held_trunk_stays_to_the_bit(worded):
    job, state = job_of(worded), newest(worded)
    fresh = job.start()
    for tree in (state.params, state.ema_params):
        for name, array in flat(fresh.params).items():
            assert np.array_equal(array, flat(tree)[name]) == name.startswith("trunk"), name
    rest = {name: x for name, x in fresh.params.items() if name != "trunk"}
    count = sum(x.size for x in jax.tree.leaves(rest))
    assert sum(x.size for x in jax.tree.leaves(state.opt_state) if x.ndim) <= 2 * count


@pytest.mark.slow
def test_labels_bring_songs_together_that_are_called_the_same(songs, caches, tmp_path):
    config = made(songs, caches, tmp_path, kinds=("pitch",))
    config.train.update(num_steps=40, eval_every=40, checkpoint_every=40)
    embed.run(config)
    job, params, _ = trained_embedding.best(config.workdir)
    waves = crops.read_spread_crops(job.held_out("test"), job.rep.samples, 1)[:, 0]
    z = np.asarray(job.vectors()(params, crops.pcm_to_wave(waves)))
    kind = np.arange(4) % 2
    same = kind[:, None] == kind[None]
    cosines = z @ z.T
    assert cosines[same].min() > cosines[~same].max()


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_and_is_the_same(config, tmp_path):
    config.embed.update(text="letters", max_tokens=12, kinds=("pitch",))
    config.head.backbone_lr_scale = 0.5
    config.augment.update(gain_db=6.0, time_roll=0.5)
    embed.trained(job_of(config))
    whole = newest(config)
    config.workdir = str(tmp_path / "again")
    config.train.num_steps = 10
    embed.trained(job_of(config))
    config.train.num_steps = 30
    embed.trained(job_of(config))
    for ours, theirs in zip(jax.tree.leaves(whole), jax.tree.leaves(newest(config)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


# ---- search by it


def test_words_find_the_songs_that_they_are_said_of(worded):
    index = vector_index.read_index(indexing.place_of(worded))
    assert index.about["embedder"] == f"embed:{worded.workdir}"
    assert index.about["sha256"] == trained_embedding.best(worded.workdir)[2]
    np.testing.assert_allclose(np.linalg.norm(index.vectors, axis=1), 1, rtol=1e-5)
    for kind in ("low", "high"):
        asked = worded.copy_and_resolve_references()
        asked.search.update(text=f"{kind} notes", num_results=6)
        hits = search.asked(asked, index)
        assert all(hit.song["labels"] == [f"pitch:{kind}"] for hit in hits), kind
    found = json.loads((pathlib.Path(worded.workdir) / "embedding.json").read_text())
    assert found["test"]["text_recall_1"] == 1.0


def test_a_song_finds_itself_by_the_run_s_name_from_any_config(worded, tmp_path):
    other = worded.copy_and_resolve_references()
    other.workdir = str(tmp_path)
    query = str(pathlib.Path(worded.data.source).parent / "test 13.wav")
    other.search.update(embedder=f"embed:{worded.workdir}", query=query)
    other.search.index = str(indexing.place_of(worded))
    hits = search.asked(other, vector_index.read_index(other.search.index))
    assert hits[0].song["file"] == query and hits[0].score > 0.999


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"block": 0}, "search.block=0 is for a trunk, not for 'embed:"),
        ({"noise_level": 0.1}, "search.noise_level=0.1 is for a trunk, not for 'embed:"),
        ({"embedder": "embed:nowhere"}, "embed:nowhere: no embedding was trained there"),
        ({"embedder": "embed:"}, "embedder 'embed:' names no run"),
    ],
)
def test_what_is_no_embedding_s_is_refused(worded, fields, message):
    asked = worded.copy_and_resolve_references()
    asked.search.update({"text": "low notes"} | fields)
    with pytest.raises(ValueError, match=message) as caught:
        search.run(asked)
    assert "\n" not in str(caught.value)


def test_without_captions_it_reads_no_text(config):
    job = job_of(config)
    writer = checkpoints.Writer(pathlib.Path(config.workdir) / "best", 1)
    writer.save(job.start(), job.to_dict())
    writer.finish()
    embedder = trained_embedding.load(config.workdir)
    with pytest.raises(ValueError, match="reads no texts; index by search.embedder=embed:WORKDIR"):
        search.read(embedder, "low notes")


# ---- what is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embed.loss": "softmx"}, "did you mean 'softmax'"),
        ({"embed.temperature": None}, "embed.temperature=None does not go with embed.loss"),
        ({"embed.loss": "sigmoid"}, "embed.temperature=0.1 does not go with embed.loss='sigmoid'"),
        ({"embed.temperature": -1.0}, "embed.temperature=-1.0 is not above 0"),
        ({"embed.dim": 1}, "embed.dim=1 is less than 2"),
        ({"head.windows": 1}, "head.windows=1: a window finds another"),
        ({"head.block": 1}, "head.block=1: the backbone has blocks 0 to 0"),
        (
            {"head.trainable": "head", "head.backbone_lr_scale": 0.5},
            "head.backbone_lr_scale=0.5 needs a trainable backbone",
        ),
        ({"head.trainable": "head_first"}, "head.frozen_steps and head.trainable='head_first'"),
        ({"embed.min_songs": 2}, "embed.min_songs=2 is not used without embed.kinds"),
        ({"embed.max_tokens": 12}, "embed.max_tokens=12 is not used without embed.text"),
        ({"embed.text_weight": 2.0}, "embed.text_weight=2.0 is not used without embed.text"),
        ({"embed.text": "letters"}, "embed.max_tokens must be set for embed.text='letters'"),
        ({"embed.kinds": ("pich",)}, r"embed.kinds=\('pich',\), .* leave no tag: .* have pitch"),
        ({"train.batch_size": 1}, "train.batch_size=1 is not even and at least 4"),
        ({"train.batch_size": 7}, "train.batch_size=7 is not even"),
        (
            {"optimizer.grad_accum_steps": 2},
            "optimizer.grad_accum_steps=2 would leave each crop fewer",
        ),
        ({"augment.mix_up": 0.3}, "augment.mix_up would mix songs"),
        (
            {"finetune.trainable": "block_0"},
            "finetune.trainable is not used by --mode=embed; see head",
        ),
        ({"condition.labels": True}, "condition: --mode=embed tells the trunk nothing"),
        ({"data.max_songs": 1}, "one train song alone holds two crops"),
    ],
)
def test_what_makes_no_sense_is_refused(config, change, message):
    for name, value in change.items():
        section, field = name.split(".")
        config[section][field] = value
    with pytest.raises(ValueError, match=message) as caught:
        job_of(config)
    assert "\n" not in str(caught.value)


def test_songs_without_captions_cannot_be_found_by_words(music, caches, tmp_path):
    config = made(music, caches, tmp_path, text="letters", max_tokens=12)
    with pytest.raises(ValueError, match="embed.text='letters': none of the 16 songs has a capt"):
        job_of(config)


@pytest.mark.parametrize("way", ["", *(f",{way}" for way in shipped.WAYS), ",probe,text,tags"])
@pytest.mark.parametrize("size", ["base", "tiny"])
def test_shipped_configs_pass(size, way):
    config = shipped.get_config(size + way)
    check_config.check(config)
    embed_rules.check(config)
    with pytest.raises(ValueError, match="'fast' is not one of full, probe"):
        shipped.get_config("tiny,fast")
