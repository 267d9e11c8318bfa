"""Tagging: probes predict planted tags, frozen weights stay, the test songs choose nothing."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import specdiff_jax
from configs import tagging as shipped
from specdiff_jax.audio import augment, files
from specdiff_jax.data import prepare
from specdiff_jax.downstream import head_job, tag, tag_job
from specdiff_jax.downstream.backbone import map_windows
from specdiff_jax.downstream.head_job import HeadJob
from specdiff_jax.evaluation.metrics import classification
from specdiff_jax.training import checkpoints, train, trained_model
from tests.helpers.nano import RATE, small_config
from tests.helpers.song_lists import sine, write_song_list

PARTS = {"instrument:bass": 250.0, "instrument:bell": 1700.0}  # Hz
SPLITS = {"train": 12, "valid": 6, "test": 6}


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    """Songs of a low tone, a high one, or both, in noise; those of one have a register too."""
    songs = []
    for part, (split, count) in enumerate(SPLITS.items()):
        for number in range(count):
            rng = np.random.default_rng([part, number])
            names = [[name] for name in PARTS] + [list(PARTS)]
            chosen = names[number % 3]
            wave = 0.02 * rng.standard_normal(RATE)
            for name in chosen:
                wave += 0.3 * sine(PARTS[name] * rng.uniform(0.98, 1.02), RATE)
            alone = [f"register:{chosen[0][-4:]}"] if len(chosen) == 1 else []
            songs.append((split, wave, ";".join(chosen + alone), ""))
    return write_song_list(tmp_path_factory.mktemp("tagged"), songs)


def tag_config(songs, caches, folder, **head):
    config = small_config(songs, caches, folder)
    config.tag.update(kinds=("instrument",), robustness=False)
    config.head.update(windows=3, pool_queries=1)
    config.head.update(head)
    config.optimizer.update(
        learning_rate=0.02, lr_schedule="constant", ema_decay=0.5, weight_decay=0.0
    )
    config.train.update(num_steps=30, eval_every=10, checkpoint_every=10, steps_per_dispatch=5)
    return config


@pytest.fixture
def config(songs, caches, tmp_path):
    return tag_config(songs, caches, tmp_path)


@pytest.fixture(scope="module")
def probe(songs, caches, tmp_path_factory):
    """A linear probe trained to the end, on a random backbone."""
    config = tag_config(songs, caches, tmp_path_factory.mktemp("probe"), trainable="head")
    config.train.update(num_steps=60, eval_every=60, checkpoint_every=60, steps_per_dispatch=10)
    config.head.noise_level = 0.02
    tag.run(config)
    return config


def job_of(config):
    prepare.run(config)
    job = tag_job.make_job(config)
    job.take_songs()
    return job


def flat(params):
    return {"/".join(path): np.asarray(x) for path, x in flatten_dict(params).items()}


def read_results(config):
    return json.loads((pathlib.Path(config.workdir) / "tags.json").read_text())


def restore_newest(config):
    job = job_of(config)
    return job.restore(checkpoints.newest_good(config.workdir))


def test_probe_predicts_planted_tags(probe):
    results = read_results(probe)
    for name in ("accuracy", "f1_micro", "f1_macro", "roc_auc_macro", "pr_auc_macro"):
        assert results["test"][name]["value"] == 1.0, name
    assert [row["support"] for row in results["tags"]] == [4, 4]
    assert not results["about"]["one"] and results["confusion"] is None
    page = (pathlib.Path(probe.workdir) / "tags.html").read_text()
    assert "://" not in page and "instrument:bell" in page


def test_frozen_backbone_is_unchanged_and_has_no_optimizer_state(probe):
    job, state = job_of(probe), restore_newest(probe)
    fresh = job.start()
    for tree in (state.params, state.ema_params):
        for name, array in flat(fresh.params).items():
            assert np.array_equal(array, flat(tree)[name]) == name.startswith("backbone"), name
    head = sum(x.size for x in jax.tree.leaves(fresh.params["head"]))
    sizes = [x.size for x in jax.tree.leaves(state.opt_state) if x.ndim]
    assert sum(sizes) == 2 * head


def test_layers_after_the_block_are_frozen(config):
    job = job_of(config)
    trainable = flat(head_job.trainable(config, jax.eval_shape(job.init).params))
    layers = {n.split("/")[1] for n, yes in trainable.items() if n.startswith("backbone") and yes}
    assert layers == {"patch_in", "time", "block_0"}


def test_scale_backbone_freezes_the_first_steps_and_scales_the_rest(config):
    config.head.update(trainable="head_first", frozen_steps=2, backbone_lr_scale=0.25)
    tx = head_job.scale_backbone(0.25, 2)
    updates, factors = {"backbone": {"w": jnp.ones(())}, "head": {"w": jnp.ones(())}}, []
    state = tx.init(updates)
    for _ in range(4):
        scaled, state = tx.update(updates, state)
        factors.append((float(scaled["backbone"]["w"]), float(scaled["head"]["w"])))
    assert factors == [(0, 1), (0, 1), (0.25, 1), (0.25, 1)]
    tag_job.check(config)


@pytest.mark.slow
def test_one_tag_a_song_is_inferred_and_songs_without_tags_are_not_used(config):
    config.tag.kinds = ("register",)
    tag.run(config)
    results = read_results(config)
    assert results["about"]["one"] and results["about"]["songs"]["test"] == 4
    assert np.sum(results["confusion"]) == 4 and results["tags"][0]["threshold"] is None
    probabilities = np.array([song["probabilities"] for song in results["songs"]])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.slow
def test_resumed_run_equals_an_uninterrupted_one(config, tmp_path):
    config.tag.update(mix_up=0.3, freq_masks=(1, 4), time_masks=(1, 4), class_balance=1.0)
    tag.train(job_of(config))
    whole = restore_newest(config)
    config.workdir = str(tmp_path / "again")
    config.train.num_steps = 15
    tag.train(job_of(config))
    config.train.num_steps = 30
    tag.train(job_of(config))
    for ours, theirs in zip(
        jax.tree.leaves(whole), jax.tree.leaves(restore_newest(config)), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_patience_stops_the_training_and_keeps_the_best(config, monkeypatch):
    config.head.patience = 2
    config.train.num_steps = 80
    scores = iter([0.5, 0.9, 0.7, 0.9, 0.95])
    real = classification.compute_metrics
    monkeypatch.setattr(
        classification, "compute_metrics", lambda *given: real(*given) | {tag.SCORE: next(scores)}
    )
    job = job_of(config)
    tag.train(job)
    assert checkpoints.steps(tag.best_folder(config.workdir)) == [20]
    assert checkpoints.steps(config.workdir)[-1] == 40
    tag.train(job_of(config))  # nothing is left to do
    assert next(scores) == 0.95


def test_test_songs_choose_neither_thresholds_nor_checkpoint(config, probe, monkeypatch):
    loaded = []
    real = HeadJob.load_songs
    monkeypatch.setattr(
        HeadJob, "load_songs", lambda self, split: loaded.append(split) or real(self, split)
    )
    job = job_of(config)
    tag.train(job)
    assert set(loaded) == {"valid"}
    folder = tag.best_folder(probe.workdir)
    saved = checkpoints.read_run(folder, checkpoints.newest_good(folder))
    thresholds = [row["threshold"] for row in read_results(probe)["tags"]]
    assert thresholds == saved["thresholds"]
    before = (pathlib.Path(probe.workdir) / "tags.json").stat().st_mtime_ns
    loaded.clear()
    tag.run(probe)
    assert "test" not in loaded
    assert before == (pathlib.Path(probe.workdir) / "tags.json").stat().st_mtime_ns


@pytest.mark.slow
def test_backbone_starts_as_a_conditional_run_of_init_from(songs, caches, tmp_path):
    first = small_config(songs, caches, tmp_path / "first")
    first.condition.update(labels=True, min_songs=1, cross_heads=1, dropout=0.1)
    first.condition.update(modality_dropout=0.1, token_dropout=0.1)
    prepare.run(first)
    train.run(first)
    config = tag_config(songs, caches, tmp_path, trainable="head")
    config.finetune.init_from = first.workdir
    job, old = job_of(config), trained_model.load(first.workdir)
    state = job.start()
    for name, array in flat(old.params).items():
        np.testing.assert_array_equal(array, flat(state.params["backbone"])[name])
    np.testing.assert_array_equal(job.rep.mean, old.rep.mean)
    x = jnp.ones((1, *job.rep.shape))
    features = dataclasses.replace(job.backbone, noise_level=0.3).features
    tokens = features(state.params["backbone"], x, x)
    model = job.backbone.model
    alpha, sigma = (f(jnp.array(0.3)) for f in (model.schedule.alpha, model.schedule.sigma))
    inputs = (alpha + sigma) * x, jnp.array([0.3]), model.null_condition(1)
    direct = model.model.apply({"params": old.params}, *inputs)[1][0]
    np.testing.assert_allclose(tokens, direct, rtol=1e-5, atol=1e-6)
    tag.run(config)
    assert trained_model.load(first.workdir).step == 6
    config.model.width = 64
    with pytest.raises(ValueError, match="model.width is 32 in the run of finetune.init_from, 64"):
        job_of(config).start()


def test_predict_file_averages_windows_and_repeats_a_short_file(probe, tmp_path, capsys):
    job, params, thresholds = tag.load_best(probe.workdir)
    n = job.rep.samples
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 2 * n + n // 2 + 1).astype(np.float32)
    starts = (0, n, len(wave) - n)
    files.write(tmp_path / "long.wav", wave, RATE)
    each = []
    for number, start in enumerate(starts):
        path = tmp_path / f"{number}.wav"
        files.write(path, wave[start : start + n], RATE)
        each.append(tag.predict_file(job, params, thresholds, path))
    whole = tag.predict_file(job, params, thresholds, tmp_path / "long.wav")
    by_tag = lambda one: {row["tag"]: row["probability"] for row in one["tags"]}
    for name, value in by_tag(whole).items():
        np.testing.assert_allclose(value, np.mean([by_tag(one)[name] for one in each]), rtol=1e-6)
    files.write(tmp_path / "short.wav", wave[: n // 2], RATE)
    files.write(tmp_path / "tiny.wav", wave[:100], RATE)
    with_sidecars = probe.copy_and_resolve_references()
    with_sidecars.tag.write_sidecars = True
    with pytest.raises(ValueError, match="1 of 2 files could not be tagged"):
        tag.run(with_sidecars, [tmp_path / "tiny.wav", tmp_path / "short.wav"])
    sidecar = json.loads((tmp_path / "short.wav.tags.json").read_text())
    assert sidecar["windows"] == 1 and "instrument:b" in capsys.readouterr().out


def test_api_tag_equals_predict_file(probe, tmp_path):
    job, params, thresholds = tag.load_best(probe.workdir)
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 2 * job.rep.samples)
    files.write(tmp_path / "two.wav", wave, RATE)
    expected = tag.predict_file(job, params, thresholds, tmp_path / "two.wav")["tags"]
    (tags,) = specdiff_jax.load(probe.workdir).tag(wave)
    assert tags == pytest.approx({r["tag"]: r["probability"] for r in expected}, abs=1e-3)


def test_prediction_of_a_window_is_independent_of_its_batch(probe):
    job, params, _ = tag.load_best(probe.workdir)
    pcm = np.random.default_rng(0).integers(-9000, 9000, (1, 5, job.rep.samples, 1), np.int16)
    together = map_windows(tag_job.make_predict(job), params, pcm, 4)
    alone = map_windows(tag_job.make_predict(job), params, pcm[:, 3:4], 4)
    np.testing.assert_allclose(together[:, 3], alone[:, 0], rtol=1e-5)


# ---- mix-up, masks, balance


def test_mix_up_of_equal_songs_keeps_targets():
    wave, targets = jnp.ones((4, 1, 8)), jnp.ones((4, 3)) * jnp.array([[1.0, 0.0, 1.0]])
    mixed, mixed_targets = tag_job.mix_up(wave, targets, jax.random.key(0), 0.5)
    np.testing.assert_array_equal(mixed_targets, targets)
    same = tag_job.mix_up(wave, targets, jax.random.key(0), 0.0)
    np.testing.assert_array_equal(same[0], wave)
    assert float(jnp.abs(mixed - wave).max()) < 0.5  # coherent sums are louder, by 3 dB at most


def test_mix_up_mixes_targets_in_the_shares_of_the_waves():
    wave, targets = jnp.eye(4)[:, None], jnp.eye(4)  # each song is its own tag
    mixed, mixed_targets = tag_job.mix_up(wave, targets, jax.random.key(1), 0.5)
    share = mixed[:, 0] / mixed[:, 0].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(mixed_targets, share, atol=1e-6)


def test_class_balance_gives_rare_tags_the_weight_of_others():
    true = np.zeros((10, 2), bool)
    true[:8, 0], true[8:, 1] = True, True
    logits, targets = jnp.zeros((10, 2)), jnp.asarray(true, jnp.float32)
    gradient = lambda balance: jax.grad(
        lambda bias: tag_job.make_cross_entropy(true, True, balance)(logits + bias[None], targets)
    )(jnp.zeros(2))
    np.testing.assert_allclose(
        gradient(1.0), 0, atol=1e-6
    )  # zero logits are optimal with equal weights
    np.testing.assert_allclose(gradient(0.0), [-0.3, 0.3], atol=1e-6)
    each = jax.grad(
        lambda bias: tag_job.make_cross_entropy(true[:, 1:], False, 1.0)(
            logits[:, 1:] + bias[None], targets[:, 1:]
        )
    )(jnp.zeros(1))
    np.testing.assert_allclose(each, 0, atol=1e-6)


def test_cross_entropy_without_weights_equals_scikit_learn():
    from sklearn.metrics import log_loss

    rng = np.random.default_rng(0)
    logits, number = rng.standard_normal((20, 3)), np.arange(20) % 3
    true = np.eye(3, dtype=bool)[number]
    one = tag_job.make_cross_entropy(true, True, 0.0)(jnp.asarray(logits), jnp.asarray(true, float))
    softmax = np.asarray(jax.nn.softmax(logits))
    np.testing.assert_allclose(one, log_loss(number, softmax), rtol=1e-5)
    each = tag_job.make_cross_entropy(true, False, 0.0)(
        jnp.asarray(logits), jnp.asarray(true, float)
    )
    sigmoid = np.asarray(jax.nn.sigmoid(logits))
    exact = np.mean([log_loss(true[:, k], sigmoid[:, k]) for k in range(3)])
    np.testing.assert_allclose(each, exact, rtol=1e-5)


# ---- mistakes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head.block": 2}, "head.block=2: the backbone has blocks 0 to 1"),
        ({"head.noise_level": 1.0}, "head.noise_level=1.0 is not at least 0 and below 1"),
        ({"head.trainable": "hold"}, "head.trainable='hold' is not one of all, head"),
        (
            {"head.trainable": "head_first"},
            "head.frozen_steps and head.trainable='head_first' need",
        ),
        ({"head.frozen_steps": 3}, "head.frozen_steps and head.trainable='head_first' need"),
        (
            {"head.trainable": "head", "head.backbone_lr_scale": 0.1},
            "head.backbone_lr_scale=0.1 needs a trainable backbone",
        ),
        ({"tag.mix_up": 0.7}, "tag.mix_up=0.7 is not between 0 and 0.5"),
        ({"tag.freq_masks": (1, 99)}, "tag.freq_masks=.* is not .how many, widest up to 32"),
        ({"head.windows": 0}, "head.windows=0 is not at least 1"),
        ({"augment.mix_up": 0.2}, "augment.mix_up would mix songs and not their tags"),
        ({"condition.labels": True}, "condition: --mode=tag uses the backbone without conditions"),
        ({"finetune.last_blocks": 1}, "finetune.last_blocks is not used by --mode=tag"),
        ({"model.scan": True}, "model.scan=False"),
        ({"tag.kinds": ("genre",)}, "leave no tag: the songs have instrument, register"),
        ({"tag.min_songs": 99}, "leave no tag"),
        ({"finetune.init_from": "runs/nowhere"}, "finetune.init_from='runs/nowhere' is no run"),
    ],
)
def test_run_refuses_fields_that_make_no_sense(config, change, message):
    for name, value in change.items():
        section, field = name.split(".")
        config[section][field] = value
    with pytest.raises(ValueError, match=message) as caught:
        tag.run(config)
    assert "\n" not in str(caught.value)


def test_fit_tags_refuses_fewer_than_two(config):
    prepare.run(config)
    songs = prepare.load_split(config, "train", 100)
    entries = tuple(entry | {"labels": ["instrument:bell"]} for entry in songs.entries)
    with pytest.raises(ValueError, match="leave one tag only .instrument:bell."):
        tag_job.fit_tags(dataclasses.replace(songs, entries=entries), (), 1)
    entries = tuple(entry | {"labels": []} for entry in songs.entries)
    with pytest.raises(ValueError, match="the songs have no labels"):
        tag_job.fit_tags(dataclasses.replace(songs, entries=entries), (), 1)


def test_predict_refuses_a_workdir_without_a_tagger(config):
    with pytest.raises(ValueError, match="holds no tagger; run --mode=tag without --predict"):
        tag.run(config, ["song.wav"])


def test_restore_refuses_another_head(probe):
    other = probe.copy_and_resolve_references()
    other.head.block = 1
    with pytest.raises(ValueError, match="was trained with head.block=0, the config says 1"):
        tag.run(other)


@pytest.mark.parametrize("way", shipped.WAYS)
@pytest.mark.parametrize("size", ["tiny", "base"])
def test_shipped_configs_pass(size, way):
    config = shipped.get_config(f"{size},{way}")
    tag_job.check(config)
    assert config.workdir == f"runs/{config.name}" and augment
