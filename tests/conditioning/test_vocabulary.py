"""What songs are called reaches the network, item by item, and can be left unsaid."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from specdiff_jax.conditioning import vocabulary
from specdiff_jax.config import build
from specdiff_jax.data import crops
from specdiff_jax.data.feeding import Batch
from specdiff_jax.data.songs import Songs, balance_labels
from specdiff_jax.models.conditioning import (
    Condition,
    ConditionEmbedding,
    Inputs,
    drop_conditions,
    null_condition,
)
from specdiff_jax.sampling import check_config

TEXT = {"name": "made up", "revision": "1", "sha256": "0", "width": 6, "pooled_width": 5}
TEXT |= {"max_tokens": 4}
VOCABULARY = vocabulary.Vocabulary(("a", "b", "c"), ("tempo", "start"), TEXT)
ENTRIES = (
    {"labels": ["a"], "captions": ["one", "two", "three"], "tempo": 100.0, "seconds": 60.0},
    {"labels": ["b", "a"], "captions": [], "tempo": None, "seconds": 30.0},
    {"labels": [], "captions": ["four"], "tempo": 200.0, "seconds": 90.0},
)


def songs_of(entries):
    lengths = np.array([round(100 * entry["seconds"]) for entry in entries])
    shards = (np.zeros((int(lengths.sum()), 1), np.int16),)
    places = np.stack([np.zeros_like(lengths), np.cumsum(lengths) - lengths], axis=1)
    return Songs(shards, places, lengths, tuple(entries), sample_rate=100)


def features():
    texts = ["four", "one", "three", "two"]
    tokens = np.arange(4 * 4 * 6, dtype=np.float16).reshape(4, 4, 6)
    pooled = np.arange(4 * 5, dtype=np.float32).reshape(4, 5)
    return {text: row for row, text in enumerate(texts)}, (tokens, np.ones((4, 4), bool), pooled)


@pytest.fixture(scope="module")
def held():
    made = vocabulary.tables(VOCABULARY, songs_of(ENTRIES), features())
    return jax.device_put(made)


def draw(held, songs, starts=0.0, key=None):
    song = np.array(songs, np.int32)
    start = np.broadcast_to(np.float32(starts), song.shape)
    return vocabulary.draw(VOCABULARY, held, Batch(None, song, start), key)


def test_a_crop_is_told_of_its_own_song(held):
    made = draw(held, [2, 0, 1], starts=np.array([0.0, 30.0, 60.0]))
    np.testing.assert_array_equal(made.labels, [[0, 0, 0], [1, 0, 0], [1, 1, 0]])
    np.testing.assert_allclose(made.scalars, [[1.0, 0.0], [0.0, 0.5], [np.nan, 1.0]])
    np.testing.assert_array_equal(made.mask.any(axis=1), [True, True, False])
    np.testing.assert_array_equal(made.pooled[:2, 0], [0, 5])  # "four" and "one"


def test_each_caption_of_a_song_is_drawn_as_often_as_the_others(held):
    made = draw(held, [0] * 3000, key=jax.random.key(0))
    found, counts = np.unique(made.pooled[:, 0], return_counts=True)
    np.testing.assert_array_equal(found, [5, 10, 15])  # one, three, two
    assert np.abs(counts - 1000).max() < 4 * np.sqrt(3000 * 2 / 9)


def test_labels_are_ordered_by_frequency_then_name_and_rare_ones_left_out():
    songs = songs_of(ENTRIES)
    assert vocabulary.labels_of(songs) == ("a", "b")
    assert vocabulary.labels_of(songs, min_songs=2) == ("a",)


def test_dropping_leaves_out_as_much_as_it_says():
    size = 20_000
    full = Condition(
        labels=jnp.ones((size, 2)),
        scalars=jnp.ones((size, 2)),
        tokens=jnp.ones((size, 1, 1)),
        mask=jnp.ones((size, 1), bool),
        pooled=jnp.ones((size, 1)),
    )
    made = drop_conditions(full, jax.random.key(0), everything=0.2, part=0.3, each=0.6)
    labels, numbers, text = made.labels > 0, np.isfinite(made.scalars), np.asarray(made.mask)
    near = lambda found, wanted: np.testing.assert_allclose(
        np.mean(found, axis=0), wanted, atol=4 * np.sqrt(0.25 / size)
    )
    both, neither = 1 - 0.6 + 0.6**2 / 3, 0.6**2 / 3  # of a rate uniform in 0 to 0.6
    near(labels, 0.8 * 0.7 * 0.7)
    near(labels.all(axis=1), 0.8 * 0.7 * both)
    near(numbers, 0.8 * 0.7)
    near(numbers.all(axis=1), 0.8 * both)
    near(~numbers.any(axis=1), 0.2 + 0.8 * neither)
    near(text, 0.8 * 0.7 * 0.7)
    # With one rate for all of an item, a token and a label are left out together more often.
    near(text[:, 0] & labels[:, 0], 0.8 * 0.7 * 0.7 * both)


def test_rare_labels_come_as_often_as_repeat_factor_sampling_says():
    entries = [{"labels": ["common"], "captions": [], "seconds": 10.0} for _ in range(98)]
    entries += [{"labels": ["rare", "common"], "captions": [], "seconds": 10.0} for _ in range(2)]
    songs = songs_of(entries)
    made = balance_labels(songs, share=0.32)
    factor = np.sqrt(0.32 / 0.02)  # 4
    assert set(made.repeats[:98]) == {1} and set(made.repeats[98:]) == {factor}
    size = crops.epoch_size(made, 1000)
    drawn = crops.draw_offsets(made, 1000, seed=0, step=0, batch_size=size)
    np.testing.assert_array_equal(np.bincount(made.song_at(drawn)), made.repeats)
    assert crops.epoch_size(songs, 1000) == 100


def model_of(inputs, silence=None, **fields):
    """A tiny model with every parameter at work, but those of the condition named `silence`."""
    config = base.get_config("tiny")
    config.model.update(patch=(8, 4), width=16, depth=2, heads=2, **fields)
    made = dataclasses.replace(build.model(config, (8, 16, 1)), inputs=inputs)
    keys = jax.random.split(jax.random.key(0))
    x_t, t = jax.random.normal(keys[0], (3, 8, 16, 1)), jnp.array([0.2, 0.5, 0.9])
    params = jax.jit(made.init)(keys[1], x_t, t, inputs and null_condition(inputs, 3))["params"]
    # Zero-initialised layers would hide the condition: give every parameter something.
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: x + 0.2 * rng.normal(size=x.shape).astype(x.dtype), params)
    if silence:
        params["condition"][silence] = jnp.zeros_like(params["condition"][silence])
    return jax.jit(lambda condition: made.apply({"params": params}, x_t, t, condition)[0])


INPUTS = Inputs(labels=3, scalars=2, text=6, pooled=5, cross_heads=1)
STYLES = [{}, {"block": "pre_ln"}, {"scan": True}, {"remat": "block"}]


OTHERS = [pytest.param(style, marks=pytest.mark.slow) for style in STYLES[1:]]


@pytest.fixture(scope="module", params=[STYLES[0], *OTHERS], ids=str)
def asked(request):
    return model_of(INPUTS, **request.param)


def full(seed=0):
    keys = jax.random.split(jax.random.key(seed), 4)
    mask = jnp.array([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]], bool)
    return Condition(
        labels=(jax.random.uniform(keys[0], (3, 3)) > 0.5).astype(jnp.float32),
        scalars=jax.random.normal(keys[1], (3, 2)),
        tokens=jax.random.normal(keys[2], (3, 4, 6)),
        mask=mask,
        pooled=jax.random.normal(keys[3], (3, 5)),
    )


def change(asked, before, after):
    """How far each item's output moves.  # [3]"""
    return np.abs(asked(before) - asked(after)).max(axis=(1, 2, 3))


@pytest.mark.parametrize("field", ["labels", "scalars", "tokens", "pooled"])
def test_each_part_of_a_condition_is_heard_by_its_own_item_alone(asked, field):
    condition = full()
    moved = getattr(condition, field).at[1].add(1.0)
    found = change(asked, condition, condition._replace(**{field: moved}))
    assert found[1] > 1e-3 and found[0] < 1e-6 and found[2] < 1e-6


def test_what_is_masked_or_unsaid_is_not_heard(asked):
    condition = full()
    beyond = jnp.where(condition.mask[..., None], condition.tokens, 99.0)
    assert change(asked, condition, condition._replace(tokens=beyond)).max() < 1e-6
    silent = condition._replace(mask=jnp.zeros_like(condition.mask))
    other = silent._replace(tokens=silent.tokens + 1, pooled=silent.pooled - 1)
    assert change(asked, silent, other).max() < 1e-6
    assert change(asked, silent, condition).min() > 1e-3


def test_the_context_holds_a_token_for_each_thing_that_is_said():
    condition = full()
    numbers = condition.scalars.at[1, 0].set(jnp.nan)
    condition = condition._replace(scalars=numbers)
    embed = ConditionEmbedding(INPUTS, width=8)
    (_, context), params = embed.init_with_output(jax.random.key(0), condition)
    masks = np.concatenate([mask for _, mask in context], axis=1)
    said = condition.labels.sum(axis=1) + np.isfinite(numbers).sum(axis=1)
    np.testing.assert_array_equal(masks.sum(axis=1), 1 + said + condition.mask.sum(axis=1))
    (vector, context) = ConditionEmbedding(Inputs(labels=3, scalars=2), 8).apply(params, condition)
    assert vector.shape == (3, 8) and context == ()


@pytest.mark.slow
def test_a_label_is_heard_by_the_vector_and_by_the_context_each_alone():
    condition = Condition(labels=jnp.eye(3))
    inputs = Inputs(labels=3, cross_heads=1)
    for deaf in ("labels", "label_tokens"):
        asked = model_of(inputs, silence=deaf)
        other = condition._replace(labels=jnp.roll(condition.labels, 1, axis=0))
        assert change(asked, condition, other).min() > 1e-3
    assert change(model_of(Inputs(labels=3), silence="labels"), condition, other).max() == 0


def test_a_text_of_any_scale_is_the_same_text(asked):
    condition = full()
    louder = condition._replace(tokens=7 * condition.tokens, pooled=0.1 * condition.pooled)
    assert change(asked, condition, louder).max() < 1e-3


def test_padding_a_text_changes_nothing(asked):
    condition = full()
    padded = condition._replace(
        tokens=jnp.pad(condition.tokens, ((0, 0), (0, 5), (0, 0))),
        mask=jnp.pad(condition.mask, ((0, 0), (0, 5))),
    )
    assert change(asked, condition, padded).max() < 1e-5


def test_at_initialisation_a_text_s_tokens_change_nothing():
    """An old trunk that text is added to begins as it was."""
    config = base.get_config("tiny")
    config.model.update(patch=(8, 4), width=16, depth=2, heads=2)
    made = dataclasses.replace(build.model(config, (8, 16, 1)), inputs=INPUTS)
    x_t, t = jnp.ones((3, 8, 16, 1)), jnp.full(3, 0.5)
    params = jax.jit(made.init)(jax.random.key(0), x_t, t, null_condition(INPUTS, 3))
    apply, condition = jax.jit(made.apply), full()
    found, features = apply(params, x_t, t, condition)
    other, others = apply(params, x_t, t, condition._replace(tokens=-condition.tokens))
    jax.tree.map(np.testing.assert_array_equal, (found, features), (other, others))


def test_without_inputs_a_model_has_the_parameters_it_had():
    count = lambda inputs: sum(
        x.size
        for x in jax.tree.leaves(
            jax.eval_shape(
                dataclasses.replace(
                    build.model(base.get_config(), (512, 1024, 2)), inputs=inputs
                ).init,
                jax.random.key(0),
                jnp.zeros((1, 512, 1024, 2)),
                jnp.zeros(1),
                inputs and null_condition(inputs, 1),
            )
        )
    )
    assert count(None) == 5_388_802
    assert count(Inputs(labels=100)) == 5_388_802 + 100 * 256


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("scalars", ("tempos",), "condition.scalars='tempos' is not one of .*did you mean 'tempo'"),
        ("dropout", 0.1, "condition.dropout=0.1 has nothing to act on"),
        ("labels", True, "condition.(min_songs|dropout) must be set"),
        ("cross_heads", 2, "condition.cross_heads=2 has nothing to act on"),
        ("dropout", 1.5, "condition.dropout=1.5 is not between 0 and 1"),
    ],
)
def test_a_condition_that_makes_no_sense_is_refused(field, value, message):
    config = base.get_config("tiny")
    config.condition[field] = value
    with pytest.raises(ValueError, match=message):
        check_config.check(config)


def test_in_bfloat16_what_is_asked_for_is_heard_nearly_alike():
    exact, half = (model_of(INPUTS, dtype=dtype) for dtype in ("float32", "bfloat16"))
    difference = np.abs(half(full()) - exact(full())).max() / np.abs(exact(full())).max()
    assert 0 < difference < 0.05
