"""Embeddings: crops retrieve their song, captions too, frozen weights stay, runs resume."""

import json
import pathlib

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import specdiff_jax
from configs import embedding as shipped
from specdiff_jax.conditioning import text_encoders
from specdiff_jax.data import crops, prepare
from specdiff_jax.downstream import embed, embed_job, embedders, search, vector_index
from specdiff_jax.downstream import index as indexing
from specdiff_jax.evaluation.embedders.embedder import embed_windows
from specdiff_jax.sampling import check_config
from specdiff_jax.training import checkpoints, validation
from tests.helpers.letters import load_letters
from tests.helpers.nano import RATE, small_config
from tests.helpers.song_lists import sine, write_song_list

STEPS = 60  # of training without captions
SONGS = {"train": 8, "valid": 4, "test": 4}


@pytest.fixture(scope="module", autouse=True)
def letters():
    text_encoders.TEXT_ENCODERS["letters"] = load_letters
    yield
    del text_encoders.TEXT_ENCODERS["letters"]


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    """Songs of a tone each, low or high, in noise; a label and a caption say which."""
    songs = []
    for part, (split, count) in enumerate(SONGS.items()):
        for number in range(count):
            rng = np.random.default_rng([part, number])
            kind, low, high = (("low", 150, 600), ("high", 1200, 3500))[number % 2]
            hertz = low * (high / low) ** ((number // 2 + 0.2 + 0.1 * part) / (count // 2))
            wave = 0.3 * sine(hertz, 3 * RATE) + 0.02 * rng.standard_normal(3 * RATE)
            songs.append((split, wave, f"pitch:{kind}", f"{kind} notes"))
    return write_song_list(tmp_path_factory.mktemp("toned"), songs)


@pytest.fixture(scope="module")
def veiled(tmp_path_factory):
    """Songs of a soft tone each, under loud ones above it that change all the time.

    (The chords of `music` share nothing within a song that could be trained on.)
    """
    songs = []
    for split, count in {"train": 24, "valid": 8, "test": 2}.items():
        for number in range(count):
            rng = np.random.default_rng([count, number])
            own = 200 * 6 ** ((number + rng.uniform(0.2, 0.8)) / count)
            loud = [sine(rng.uniform(1500, 3800), RATE // 4) for _ in range(8)]
            songs.append((split, 0.08 * sine(own, 2 * RATE) + 0.4 * np.concatenate(loud), "", ""))
    return write_song_list(tmp_path_factory.mktemp("veiled"), songs)


def embed_config(songs, caches, folder, trainable="all", **fields):
    config = small_config(songs, caches, folder)
    config.model.depth = 1  # layers after the block that is read are frozen
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
    return embed_config(songs, caches, tmp_path)


@pytest.fixture(scope="module")
def captioned(songs, caches, tmp_path_factory):
    """An embedding trained with captions on a frozen backbone, and its index of all songs."""
    folder = tmp_path_factory.mktemp("captioned")
    config = embed_config(songs, caches, folder, trainable="head", text="letters", max_tokens=12)
    config.train.update(num_steps=60, eval_every=30, checkpoint_every=30)
    embed.run(config)
    indexing.run(config)
    return config


def test_api_embed_equals_the_embedder_of_the_run(captioned):
    model, embedder = (
        specdiff_jax.load(captioned.workdir),
        embedders.load_embedding(captioned.workdir),
    )
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, (1, embedder.window)).astype(np.float32)
    expected = embed_windows(embedder, wave)
    np.testing.assert_allclose(model.embed(wave), expected, atol=1e-6)
    assert model.embed(np.tile(wave, (1, 3))).shape == (1, captioned.embed.dim)


def job_of(config):
    embed.check(config)
    prepare.run(config)
    job = embed_job.make_job(config)
    job.take_songs()
    return job


def flat(params):
    return {"/".join(path): np.asarray(x) for path, x in flatten_dict(params).items()}


def restore_newest(config):
    job = job_of(config)
    return job.restore(checkpoints.newest_good(config.workdir))


# ---- crops


def test_draw_pair_offsets_gives_crops_that_do_not_overlap(config):
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


def test_draw_pair_offsets_is_a_function_of_the_step_and_covers_the_song(config):
    songs = job_of(config).songs
    draw = lambda step: crops.draw_pair_offsets(songs, 1984, 3, step, 16)
    np.testing.assert_array_equal(draw(5), draw(5))
    np.testing.assert_array_equal(
        crops.draw_pair_offsets(songs, 1984, 3, 5, 16, slice(8, 16)), draw(5)[8:]
    )
    seconds = np.concatenate([np.split(draw(step), 2)[1] for step in range(200)])
    inside = (seconds - songs.starts[songs.song_at(seconds)]) / (3 * RATE - 1984)
    assert (np.histogram(inside, 5, (0, 1))[0] > 0.1 * len(inside)).all()


# ---- training


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_training_raises_recall_of_another_crop(veiled, caches, tmp_path, loss):
    """Much above the same head on the same backbone before the training."""
    config = embed_config(veiled, caches, tmp_path, loss=loss)
    config.embed.temperature = 0.1 if loss == "softmax" else None
    config.augment.gain_db = 6.0
    config.train.update(num_steps=STEPS, eval_every=STEPS, checkpoint_every=STEPS)
    job = job_of(config)
    measure = embed_job.RetrievalMetrics(job, job.valid_songs)
    before = measure(job.start().params)
    embed.train(job)
    ((step, after),) = validation.read_history(config.workdir, embed.KIND, embed.SCORE)
    assert step == STEPS and after > before["recall_1"] + 0.2


def test_frozen_backbone_is_unchanged(captioned):
    job, state = job_of(captioned), restore_newest(captioned)
    fresh = job.start()
    for tree in (state.params, state.ema_params):
        for name, array in flat(fresh.params).items():
            assert np.array_equal(array, flat(tree)[name]) == name.startswith("backbone"), name
    rest = {name: x for name, x in fresh.params.items() if name != "backbone"}
    count = sum(x.size for x in jax.tree.leaves(rest))
    assert sum(x.size for x in jax.tree.leaves(state.opt_state) if x.ndim) <= 2 * count


@pytest.mark.slow
def test_training_by_labels_brings_songs_with_the_same_label_together(songs, caches, tmp_path):
    config = embed_config(songs, caches, tmp_path, kinds=("pitch",))
    config.train.update(num_steps=40, eval_every=40, checkpoint_every=40)
    embed.run(config)
    job, params, *_ = embedders.load_best(config.workdir)
    waves = crops.read_spread_crops(job.load_songs("test"), job.rep.samples, 1)[:, 0]
    z = np.asarray(embed_job.make_embed(job)(params, crops.pcm_to_wave(waves)))
    kind = np.arange(4) % 2
    same = kind[:, None] == kind[None]
    cosines = z @ z.T
    assert cosines[same].min() > cosines[~same].max()


@pytest.mark.slow
def test_resumed_run_equals_an_uninterrupted_one(config, tmp_path):
    config.embed.update(text="letters", max_tokens=12, kinds=("pitch",))
    config.head.backbone_lr_scale = 0.5
    config.augment.update(gain_db=6.0, time_roll=0.5)
    embed.train(job_of(config))
    whole = restore_newest(config)
    config.workdir = str(tmp_path / "again")
    config.train.num_steps = 10
    embed.train(job_of(config))
    config.train.num_steps = 30
    embed.train(job_of(config))
    for ours, theirs in zip(
        jax.tree.leaves(whole), jax.tree.leaves(restore_newest(config)), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


# ---- search by it


def test_text_query_retrieves_the_songs_of_its_caption(captioned):
    index = vector_index.read_index(indexing.index_folder(captioned))
    assert index.about["embedder"] == f"embed:{captioned.workdir}"
    assert index.about["sha256"] == embedders.load_best(captioned.workdir).sha256
    np.testing.assert_allclose(np.linalg.norm(index.vectors, axis=1), 1, rtol=1e-5)
    for kind in ("low", "high"):
        config = captioned.copy_and_resolve_references()
        config.search.update(text=f"{kind} notes", num_results=6)
        hits = search.find_songs(config, index)
        assert all(hit.song["labels"] == [f"pitch:{kind}"] for hit in hits), kind
    results = json.loads((pathlib.Path(captioned.workdir) / "embedding.json").read_text())
    assert results["test"]["text_recall_1"] == 1.0


def test_embedder_by_workdir_retrieves_the_query_from_any_config(captioned, tmp_path):
    other = captioned.copy_and_resolve_references()
    other.workdir = str(tmp_path)
    query = str(pathlib.Path(captioned.data.source).parent / "test 13.wav")
    other.search.update(embedder=f"embed:{captioned.workdir}", query=query)
    other.search.index = str(indexing.index_folder(captioned))
    hits = search.find_songs(other, vector_index.read_index(other.search.index))
    assert hits[0].song["file"] == query and hits[0].score > 0.999


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"block": 0}, "search.block=0 is for a backbone, not for 'embed:"),
        ({"noise_level": 0.1}, "search.noise_level=0.1 is for a backbone, not for 'embed:"),
        ({"embedder": "embed:nowhere"}, "embed:nowhere: no embedding was trained there"),
        ({"embedder": "embed:"}, "embedder 'embed:' names no run"),
    ],
)
def test_search_refuses_fields_of_other_embedders(captioned, fields, message):
    config = captioned.copy_and_resolve_references()
    config.search.update({"text": "low notes"} | fields)
    with pytest.raises(ValueError, match=message) as caught:
        search.run(config)
    assert "\n" not in str(caught.value)


def test_embedder_without_captions_embeds_no_text(config):
    job = job_of(config)
    writer = checkpoints.Writer(pathlib.Path(config.workdir) / "best", 1)
    writer.save(job.start(), job.to_dict())
    writer.finish()
    embedder = embedders.load_embedding(config.workdir)
    with pytest.raises(ValueError, match="embeds no texts; set search.embedder=embed:WORKDIR"):
        search.embed_text(embedder, "low notes")


# ---- what is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embed.loss": "softmx"}, "did you mean 'softmax'"),
        ({"embed.temperature": None}, "embed.temperature=None does not go with embed.loss"),
        ({"embed.loss": "sigmoid"}, "embed.temperature=0.1 does not go with embed.loss='sigmoid'"),
        ({"embed.temperature": -1.0}, "embed.temperature=-1.0 is not above 0"),
        ({"embed.dim": 1}, "embed.dim=1 is less than 2"),
        ({"head.windows": 1}, "head.windows=1: retrieval needs two windows"),
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
        (
            {"condition.labels": True},
            "condition: --mode=embed uses the backbone without conditions",
        ),
        ({"data.max_songs": 1}, "a single train song leaves its crops no song"),
    ],
)
def test_job_refuses_fields_that_make_no_sense(config, change, message):
    for name, value in change.items():
        section, field = name.split(".")
        config[section][field] = value
    with pytest.raises(ValueError, match=message) as caught:
        job_of(config)
    assert "\n" not in str(caught.value)


def test_job_refuses_text_for_songs_without_captions(music, caches, tmp_path):
    config = embed_config(music, caches, tmp_path, text="letters", max_tokens=12)
    with pytest.raises(ValueError, match="embed.text='letters': none of the 16 songs has a capt"):
        job_of(config)


@pytest.mark.parametrize("way", ["", *(f",{way}" for way in shipped.WAYS), ",probe,text,tags"])
@pytest.mark.parametrize("size", ["base", "tiny"])
def test_shipped_configs_pass(size, way):
    config = shipped.get_config(size + way)
    check_config.check(config)
    embed.check(config)
    with pytest.raises(ValueError, match="'fast' is not one of full, probe"):
        shipped.get_config("tiny,fast")
