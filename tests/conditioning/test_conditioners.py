"""Conditions of songs: each acts on its own item of the batch, and can be dropped."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from specdiff_jax.conditioning import vocabulary
from specdiff_jax.conditioning.conditioners import drop_conditions, null_condition
from specdiff_jax.conditioning.labels import Labels, label_table, list_labels
from specdiff_jax.conditioning.scalars import Scalars
from specdiff_jax.conditioning.text import Text, TextValue
from specdiff_jax.config import build
from specdiff_jax.data import crops
from specdiff_jax.data.feeding import Batch
from specdiff_jax.data.songs import Songs, balance_labels
from specdiff_jax.models.conditioning import ConditionEmbedding
from specdiff_jax.sampling import check_config

LABELS, SCALARS = Labels(("a", "b", "c")), Scalars(("tempo", "start"))
TEXT = Text("letters", "1", "0", width=6, pooled_width=5, max_tokens=4)
ALL = (LABELS, SCALARS, TEXT)
VOCABULARY = vocabulary.Vocabulary(ALL)
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
def tables():
    return jax.device_put(VOCABULARY.tables(songs_of(ENTRIES), features()))


def draw(tables, songs, starts=0.0, key=None):
    song = np.array(songs, np.int32)
    start = np.broadcast_to(np.float32(starts), song.shape)
    return VOCABULARY.draw(tables, Batch(None, song, start), key)


def test_a_crop_has_the_condition_of_its_own_song(tables):
    condition = draw(tables, [2, 0, 1], starts=np.array([0.0, 30.0, 60.0]))
    np.testing.assert_array_equal(condition["labels"], [[0, 0, 0], [1, 0, 0], [1, 1, 0]])
    np.testing.assert_allclose(condition["scalars"], [[1.0, 0.0], [0.0, 0.5], [np.nan, 1.0]])
    text = condition["text"]
    np.testing.assert_array_equal(text.mask.any(axis=1), [True, True, False])
    np.testing.assert_array_equal(text.pooled[:2, 0], [0, 5])  # "four" and "one"


def test_captions_of_a_song_are_drawn_equally_often(tables):
    condition = draw(tables, [0] * 3000, key=jax.random.key(0))
    captions, counts = np.unique(condition["text"].pooled[:, 0], return_counts=True)
    np.testing.assert_array_equal(captions, [5, 10, 15])  # one, three, two
    assert np.abs(counts - 1000).max() < 4 * np.sqrt(3000 * 2 / 9)


def test_labels_are_ordered_by_frequency_then_name_without_rare_ones():
    songs = songs_of(ENTRIES)
    assert list_labels(songs) == ("a", "b")
    assert list_labels(songs, min_songs=2) == ("a",)
    table = label_table(songs, ("b", "a"))
    np.testing.assert_array_equal(table, [[False, True], [True, True], [False, False]])


def test_vocabulary_survives_json():
    vocab = vocabulary.Vocabulary(ALL, {"labels": ["a"]})
    assert vocabulary.from_dict(json.loads(json.dumps(vocab.to_dict()))) == vocab
    assert hash(vocab.conditioners) == hash(ALL)


def test_dropout_drops_items_kinds_and_elements_at_their_rates():
    size = 20_000
    text = TextValue(jnp.ones((size, 1, 1)), jnp.ones((size, 1), bool), jnp.ones((size, 1)))
    full = {"labels": jnp.ones((size, 2)), "scalars": jnp.ones((size, 2)), "text": text}
    rates = {"everything": 0.2, "part": 0.3, "each": 0.6}
    dropped = drop_conditions(ALL, full, jax.random.key(0), **rates)
    labels, scalars = dropped["labels"] > 0, np.isfinite(dropped["scalars"])
    tokens = np.asarray(dropped["text"].mask)
    near = lambda kept, expected: np.testing.assert_allclose(
        np.mean(kept, axis=0), expected, atol=4 * np.sqrt(0.25 / size)
    )
    both, neither = 1 - 0.6 + 0.6**2 / 3, 0.6**2 / 3  # of a rate uniform in 0 to 0.6
    near(labels, 0.8 * 0.7 * 0.7)
    near(labels.all(axis=1), 0.8 * 0.7 * both)
    near(scalars, 0.8 * 0.7)
    near(scalars.all(axis=1), 0.8 * both)
    near(~scalars.any(axis=1), 0.2 + 0.8 * neither)
    near(tokens, 0.8 * 0.7 * 0.7)
    # With one rate for all of an item, a token and a label are dropped together more often.
    near(tokens[:, 0] & labels[:, 0], 0.8 * 0.7 * 0.7 * both)


def test_label_balance_repeats_songs_by_repeat_factor_sampling():
    entries = [{"labels": ["common"], "captions": [], "seconds": 10.0} for _ in range(98)]
    entries += [{"labels": ["rare", "common"], "captions": [], "seconds": 10.0} for _ in range(2)]
    songs = songs_of(entries)
    balanced = balance_labels(songs, share=0.32)
    factor = np.sqrt(0.32 / 0.02)  # 4
    assert set(balanced.repeats[:98]) == {1} and set(balanced.repeats[98:]) == {factor}
    size = crops.epoch_size(balanced, 1000)
    drawn = crops.draw_offsets(balanced, 1000, seed=0, step=0, batch_size=size)
    np.testing.assert_array_equal(np.bincount(balanced.song_at(drawn)), balanced.repeats)
    assert crops.epoch_size(songs, 1000) == 100


def build_model(conditioners, cross_heads, **fields):
    config = base.get_config("tiny")
    config.model.update(patch=(8, 4), width=16, depth=2, heads=2, **fields)
    config.condition.cross_heads = cross_heads
    return build.model(config, (8, 16, 1), vocabulary.Vocabulary(conditioners))


@functools.cache
def conditional(conditioners, cross_heads=1, zeroed=None, dtype="float32", **fields):
    """Return condition -> output of a tiny model whose parameters are nonzero but for `zeroed`."""
    model = build_model(conditioners, cross_heads, dtype=dtype, **fields)
    keys = jax.random.split(jax.random.key(0))
    x_t, t = jax.random.normal(keys[0], (3, 8, 16, 1)), jnp.array([0.2, 0.5, 0.9])
    null = null_condition(conditioners, 3)
    params = jax.jit(model.init)(keys[1], x_t, t, null)["params"]
    # Zero-initialized layers would hide the condition: give every parameter something.
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: x + 0.2 * rng.normal(size=x.shape).astype(x.dtype), params)
    if zeroed:
        params["condition"][zeroed] = jnp.zeros_like(params["condition"][zeroed])
    return jax.jit(lambda condition: model.apply({"params": params}, x_t, t, condition)[0])


SETTINGS = [{}, {"block": "pre_ln"}, {"scan": True}, {"remat": "block"}]
OTHERS = [pytest.param(settings, marks=pytest.mark.slow) for settings in SETTINGS[1:]]


@pytest.fixture(scope="module", params=[SETTINGS[0], *OTHERS], ids=str)
def model(request):
    return conditional(ALL, **request.param)


def full(seed=0):
    keys = jax.random.split(jax.random.key(seed), 4)
    mask = jnp.array([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]], bool)
    tokens, pooled = jax.random.normal(keys[2], (3, 4, 6)), jax.random.normal(keys[3], (3, 5))
    return {
        "labels": (jax.random.uniform(keys[0], (3, 3)) > 0.5).astype(jnp.float32),
        "scalars": jax.random.normal(keys[1], (3, 2)),
        "text": TextValue(tokens, mask, pooled),
    }


def with_text(condition, **fields):
    return condition | {"text": condition["text"]._replace(**fields)}


def change(model, before, after):
    """Return the largest change of the output of each item.  # [3]"""
    return np.abs(model(before) - model(after)).max(axis=(1, 2, 3))


@pytest.mark.parametrize("field", ["labels", "scalars", "tokens", "pooled"])
def test_condition_changes_its_own_item_alone(model, field):
    condition = full()
    if field in condition:
        other = condition | {field: condition[field].at[1].add(1.0)}
    else:
        other = with_text(condition, **{field: getattr(condition["text"], field).at[1].add(1.0)})
    changes = change(model, condition, other)
    assert changes[1] > 1e-3 and changes[0] < 1e-6 and changes[2] < 1e-6


def test_masked_tokens_and_texts_change_nothing(model):
    condition = full()
    text = condition["text"]
    beyond = jnp.where(text.mask[..., None], text.tokens, 99.0)
    assert change(model, condition, with_text(condition, tokens=beyond)).max() < 1e-6
    masked = with_text(condition, mask=jnp.zeros_like(text.mask))
    other = with_text(masked, tokens=text.tokens + 1, pooled=text.pooled - 1)
    assert change(model, masked, other).max() < 1e-6
    assert change(model, masked, condition).min() > 1e-3


def test_context_has_a_token_for_each_element_of_a_condition():
    condition = full()
    condition["scalars"] = condition["scalars"].at[1, 0].set(jnp.nan)
    embed = ConditionEmbedding(ALL, width=8, cross_heads=1)
    key = jax.random.key(0)
    (_, context), params = jax.jit(embed.init_with_output)(key, condition)
    masks = np.concatenate([mask for _, mask in context], axis=1)
    count = condition["labels"].sum(axis=1) + np.isfinite(condition["scalars"]).sum(axis=1)
    np.testing.assert_array_equal(masks.sum(axis=1), 1 + count + condition["text"].mask.sum(axis=1))
    vector, context = ConditionEmbedding((LABELS, SCALARS), 8).apply(params, condition)
    assert vector.shape == (3, 8) and context == ()


@pytest.mark.slow
def test_labels_act_through_the_vector_and_through_the_context_each_alone():
    condition = {"labels": jnp.eye(3)}
    other = {"labels": jnp.roll(condition["labels"], 1, axis=0)}
    for zeroed in ("labels", "label_tokens"):
        model = conditional((LABELS,), zeroed=zeroed)
        assert change(model, condition, other).min() > 1e-3
    model = conditional((LABELS,), cross_heads=None, zeroed="labels")
    assert change(model, condition, other).max() == 0


def test_text_features_of_any_scale_are_the_same(model):
    condition = full()
    text = condition["text"]
    scaled = with_text(condition, tokens=7 * text.tokens, pooled=0.1 * text.pooled)
    assert change(model, condition, scaled).max() < 1e-3


def test_padding_of_a_text_changes_nothing(model):
    condition = full()
    text = condition["text"]
    tokens, mask = (
        jnp.pad(text.tokens, ((0, 0), (0, 5), (0, 0))),
        jnp.pad(text.mask, ((0, 0), (0, 5))),
    )
    assert change(model, condition, with_text(condition, tokens=tokens, mask=mask)).max() < 1e-5


def test_tokens_of_a_text_change_nothing_at_initialization():
    """Text added to a trained backbone changes no output before training."""
    model, condition = build_model(ALL, 1), full()
    x_t, t = jnp.ones((3, 8, 16, 1)), jnp.full(3, 0.5)
    params = jax.jit(model.init)(jax.random.key(0), x_t, t, null_condition(ALL, 3))
    apply = jax.jit(model.apply)
    outputs = apply(params, x_t, t, condition)
    others = apply(params, x_t, t, with_text(condition, tokens=-condition["text"].tokens))
    jax.tree.map(np.testing.assert_array_equal, outputs, others)


def test_model_without_conditioners_has_the_parameters_of_base():
    def count(conditioners):
        vocab = vocabulary.Vocabulary(conditioners)
        model = build.model(base.get_config(), (512, 1024, 2), vocab)
        example = jnp.zeros((1, 512, 1024, 2)), jnp.zeros(1), null_condition(conditioners, 1)
        shapes = jax.eval_shape(model.init, jax.random.key(0), *example)
        return sum(x.size for x in jax.tree.leaves(shapes))

    assert count(()) == 5_388_802
    assert count((Labels(tuple(map(str, range(100)))),)) == 5_388_802 + 100 * 256


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
def test_condition_fields_that_make_no_sense_are_refused(field, value, message):
    config = base.get_config("tiny")
    config.condition[field] = value
    with pytest.raises(ValueError, match=message):
        check_config.check(config)


def test_bfloat16_outputs_are_close_to_float32():
    exact, half = conditional(ALL), conditional(ALL, dtype="bfloat16")
    difference = np.abs(half(full()) - exact(full())).max() / np.abs(exact(full())).max()
    assert 0 < difference < 0.05
