"""Contrastive losses against their papers' sums, written as loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from specdiff_jax.downstream import contrastive, embed_rules

TEMPERATURE = 0.2


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def vectors(count, seed=0):
    return unit(np.random.default_rng(seed).standard_normal((count, 5)))


def softmax(z, pairs):
    return float(contrastive.softmax_loss(jnp.asarray(z @ z.T / TEMPERATURE), *pairs))


def nt_xent(z, song):
    """Chen et al. 2020, eq. 1, over both orders of each pair; others of the song are left out."""
    half, total = len(z) // 2, 0.0
    for i in range(len(z)):
        j = (i + half) % len(z)
        below = 0.0
        for k in range(len(z)):
            if k == j or (k != i and song[k] != song[i]):
                below += np.exp(z[i] @ z[k] / TEMPERATURE)
        total -= np.log(np.exp(z[i] @ z[j] / TEMPERATURE) / below)
    return total / len(z)


@pytest.mark.parametrize("songs", [[0, 1, 2, 3], [0, 1, 0, 2], [0, 0, 1, 1]])
def test_crops_of_songs_have_the_loss_of_chen_et_al(songs):
    z, song = vectors(8), np.array(songs * 2)
    np.testing.assert_allclose(
        softmax(z, contrastive.partners(jnp.asarray(song))), nt_xent(z, song), rtol=1e-5
    )


def test_one_song_alone_has_nothing_to_learn():
    pairs = contrastive.partners(jnp.zeros(6, jnp.int32))
    assert abs(softmax(vectors(6), pairs)) < 1e-6


def test_the_order_of_the_batch_does_not_matter():
    z, song, order = vectors(8), np.array([0, 1, 0, 2] * 2), np.array([2, 0, 3, 1])
    both = np.concatenate([order, 4 + order])
    for turned in (both, np.roll(both, 4)):
        np.testing.assert_allclose(
            softmax(z, contrastive.partners(jnp.asarray(song))),
            softmax(z[turned], contrastive.partners(jnp.asarray(song[turned]))),
            rtol=1e-6,
        )


def test_the_least_is_reached_where_songs_are_as_far_apart_as_they_can_be():
    """A simplex: cosine 1 in a song, -1 / (N - 1) between any two."""
    songs = 4
    corners = unit(np.eye(songs) - 1 / songs)
    z, song = np.tile(corners, (2, 1)), jnp.tile(jnp.arange(songs), 2)
    apart = (-1 / (songs - 1) - 1) / TEMPERATURE
    least = np.log(1 + (2 * songs - 2) * np.exp(apart))
    pairs = contrastive.partners(song)
    np.testing.assert_allclose(softmax(z, pairs), least, rtol=1e-3)
    for seed in range(20):
        near = unit(z + 0.1 * np.random.default_rng(seed).standard_normal(z.shape))
        assert softmax(near, pairs) > least


def test_another_crop_of_a_song_is_no_negative():
    """What is done to one leaves the loss of the others of its song as it is."""
    song = jnp.array([0, 0, 1, 0, 0, 1])
    together, counted = contrastive.partners(song)
    assert not counted[0, 1] and not counted[0, 4] and not counted[0, 0]
    scores = lambda z: z @ z.T / TEMPERATURE
    of_first = lambda z: contrastive.softmax_loss(scores(z)[:1], together[:1], counted[:1])
    pull = jax.grad(of_first)(jnp.asarray(vectors(6)))
    np.testing.assert_array_equal(pull[jnp.array([1, 4])], 0)
    assert float(jnp.abs(pull[jnp.array([2, 3, 5])]).min()) > 0


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_the_gradient_brings_partners_together_and_moves_others_apart(loss):
    song, z = jnp.array([0, 1, 2, 0, 1, 2]), jnp.asarray(vectors(6))
    pairs = contrastive.partners(song)
    pull = jax.grad(lambda cosines: contrastive.LOSSES[loss](cosines, *pairs))(z @ z.T)
    together, counted = (np.asarray(x) for x in pairs)
    assert (pull[together > 0] < 0).all() and (pull[counted & (together == 0)] > 0).all()
    np.testing.assert_array_equal(pull[~counted], 0)


# ---- tags


def sup_con(z, label):
    """Khosla et al. 2020, eq. 2."""
    total = 0.0
    for i in range(len(z)):
        others = [a for a in range(len(z)) if a != i]
        below = sum(np.exp(z[i] @ z[a] / TEMPERATURE) for a in others)
        positive = [p for p in others if label[p] == label[i]]
        logs = [np.log(np.exp(z[i] @ z[p] / TEMPERATURE) / below) for p in positive]
        total -= sum(logs) / len(positive)
    return total / len(z)


def test_one_tag_a_song_has_the_loss_of_khosla_et_al():
    z, song, label = vectors(8), np.array([0, 1, 2, 3] * 2), np.array([0, 1, 1, 0] * 2)
    pairs = contrastive.tagged(jnp.asarray(song), jnp.asarray(np.eye(2, dtype=np.float32)[label]))
    np.testing.assert_allclose(softmax(z, pairs), sup_con(z, label), rtol=1e-5)


def test_songs_of_several_tags_belong_together_as_much_as_these_overlap():
    tags = [{0}, {0, 1}, {2}, {0}]
    rows = jnp.array([[float(v in own) for v in range(3)] for own in tags])
    together, counted = contrastive.tagged(jnp.array([0, 1, 2, 0]), rows)
    for i, one in enumerate(tags):
        for j, other in enumerate(tags):
            assert together[i, j] == pytest.approx(len(one & other) / len(one | other))
            assert counted[i, j] == (i != j)


# ---- sigmoid, texts


def test_the_sigmoid_loss_is_algorithm_1_of_zhai_et_al():
    a, b, scale, bias = vectors(4), vectors(4, 1), 10.0, -10.0
    total = 0.0
    for i in range(4):
        for j in range(4):
            sign = 1 if i == j else -1
            total -= np.log(expit(sign * (scale * a[i] @ b[j] + bias)))
    learned = {"log_scale": jnp.log(scale), "bias": jnp.float32(bias)}
    scores = embed_rules.scaled(jnp.asarray(a @ b.T), learned)
    place = jnp.arange(4)
    pairs = contrastive.told(place, place, jnp.ones(4, bool))
    np.testing.assert_allclose(contrastive.sigmoid_loss(scores, *pairs), total / 4, rtol=1e-5)


def test_a_text_a_song_has_the_loss_of_clip():
    a, b = vectors(4), vectors(4, 1)
    scores = a @ b.T / TEMPERATURE
    rows = -np.mean([scores[i, i] - np.log(np.exp(scores[i]).sum()) for i in range(4)])
    place = jnp.arange(4)
    pairs = contrastive.told(place, place, jnp.ones(4, bool))
    np.testing.assert_allclose(contrastive.softmax_loss(scores, *pairs), rows, rtol=1e-5)


def test_songs_without_a_text_change_nothing_and_equal_texts_are_no_negatives():
    song, text = jnp.array([0, 1, 2, 3]), jnp.array([0, 1, 1, 0])
    known = jnp.array([True, True, True, False])
    together, counted = contrastive.told(song, text, known)
    assert together[1, 2] == 1 and not counted[3].any() and not counted[:, 3].any()
    z, found = vectors(4), []
    for last in (0, 1):
        z[3] = vectors(4, 7)[last]
        found.append(softmax(z, (together, counted)))
    few = softmax(z[:3], (together[:3, :3], counted[:3, :3]))
    np.testing.assert_allclose(found, few, rtol=1e-6)


@pytest.mark.parametrize("loss", contrastive.LOSSES.values(), ids=contrastive.LOSSES)
def test_a_batch_without_any_text_costs_nothing_and_has_no_gradient(loss):
    song = jnp.arange(4)
    pairs = contrastive.told(song, song, jnp.zeros(4, bool))
    value, pull = jax.value_and_grad(lambda s: loss(s, *pairs))(jnp.asarray(vectors(4)[:, :4]))
    assert value == 0 and (np.asarray(pull) == 0).all()
