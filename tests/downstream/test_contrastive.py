"""Contrastive losses against their papers' sums, written as loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from specdiff_jax.downstream import contrastive

TEMPERATURE = 0.2


def l2_normalize(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def vectors(count, seed=0):
    return l2_normalize(np.random.default_rng(seed).standard_normal((count, 5)))


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
def test_softmax_loss_of_crop_pairs_is_nt_xent(songs):
    z, song = vectors(8), np.array(songs * 2)
    np.testing.assert_allclose(
        softmax(z, contrastive.crop_pairs(jnp.asarray(song))), nt_xent(z, song), rtol=1e-5
    )


def test_softmax_loss_of_a_single_song_is_zero():
    pairs = contrastive.crop_pairs(jnp.zeros(6, jnp.int32))
    assert abs(softmax(vectors(6), pairs)) < 1e-6


def test_softmax_loss_is_invariant_to_the_order_of_the_batch():
    z, song, order = vectors(8), np.array([0, 1, 0, 2] * 2), np.array([2, 0, 3, 1])
    both = np.concatenate([order, 4 + order])
    for turned in (both, np.roll(both, 4)):
        np.testing.assert_allclose(
            softmax(z, contrastive.crop_pairs(jnp.asarray(song))),
            softmax(z[turned], contrastive.crop_pairs(jnp.asarray(song[turned]))),
            rtol=1e-6,
        )


def test_softmax_loss_is_least_at_a_simplex():
    """A simplex: cosine 1 in a song, -1 / (N - 1) between any two."""
    songs = 4
    corners = l2_normalize(np.eye(songs) - 1 / songs)
    z, song = np.tile(corners, (2, 1)), jnp.tile(jnp.arange(songs), 2)
    apart = (-1 / (songs - 1) - 1) / TEMPERATURE
    least = np.log(1 + (2 * songs - 2) * np.exp(apart))
    pairs = contrastive.crop_pairs(song)
    np.testing.assert_allclose(softmax(z, pairs), least, rtol=1e-3)
    for seed in range(20):
        near = l2_normalize(z + 0.1 * np.random.default_rng(seed).standard_normal(z.shape))
        assert softmax(near, pairs) > least


def test_crop_pairs_mask_further_crops_of_a_song():
    """A crop has no gradient from the row of another crop of its song."""
    song = jnp.array([0, 0, 1, 0, 0, 1])
    weights, mask = contrastive.crop_pairs(song)
    assert not mask[0, 1] and not mask[0, 4] and not mask[0, 0]
    scores = lambda z: z @ z.T / TEMPERATURE
    of_first = lambda z: contrastive.softmax_loss(scores(z)[:1], weights[:1], mask[:1])
    gradient = jax.grad(of_first)(jnp.asarray(vectors(6)))
    np.testing.assert_array_equal(gradient[jnp.array([1, 4])], 0)
    assert float(jnp.abs(gradient[jnp.array([2, 3, 5])]).min()) > 0


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_loss_attracts_positives_and_repels_negatives(loss):
    song, z = jnp.array([0, 1, 2, 0, 1, 2]), jnp.asarray(vectors(6))
    pairs = contrastive.crop_pairs(song)
    gradient = jax.grad(lambda cosines: contrastive.LOSSES[loss](cosines, *pairs))(z @ z.T)
    weights, mask = (np.asarray(x) for x in pairs)
    assert (gradient[weights > 0] < 0).all() and (gradient[mask & (weights == 0)] > 0).all()
    np.testing.assert_array_equal(gradient[~mask], 0)


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


def test_tag_pairs_of_one_tag_a_song_give_supcon():
    z, song, label = vectors(8), np.array([0, 1, 2, 3] * 2), np.array([0, 1, 1, 0] * 2)
    pairs = contrastive.tag_pairs(
        jnp.asarray(song), jnp.asarray(np.eye(2, dtype=np.float32)[label])
    )
    np.testing.assert_allclose(softmax(z, pairs), sup_con(z, label), rtol=1e-5)


def test_tag_pairs_weigh_by_jaccard_index():
    tags = [{0}, {0, 1}, {2}, {0}]
    rows = jnp.array([[float(v in own) for v in range(3)] for own in tags])
    weights, mask = contrastive.tag_pairs(jnp.array([0, 1, 2, 0]), rows)
    for i, one in enumerate(tags):
        for j, other in enumerate(tags):
            assert weights[i, j] == pytest.approx(len(one & other) / len(one | other))
            assert mask[i, j] == (i != j)


# ---- sigmoid, texts


def test_sigmoid_loss_is_algorithm_1_of_siglip():
    a, b, scale, bias = vectors(4), vectors(4, 1), 10.0, -10.0
    total = 0.0
    for i in range(4):
        for j in range(4):
            sign = 1 if i == j else -1
            total -= np.log(expit(sign * (scale * a[i] @ b[j] + bias)))
    scale_and_bias = {"log_scale": jnp.log(scale), "bias": jnp.float32(bias)}
    scores = contrastive.scale_cosines(jnp.asarray(a @ b.T), scale_and_bias)
    place = jnp.arange(4)
    pairs = contrastive.text_pairs(place, place, jnp.ones(4, bool))
    np.testing.assert_allclose(contrastive.sigmoid_loss(scores, *pairs), total / 4, rtol=1e-5)


def test_text_pairs_of_one_text_a_song_give_clip():
    a, b = vectors(4), vectors(4, 1)
    scores = a @ b.T / TEMPERATURE
    rows = -np.mean([scores[i, i] - np.log(np.exp(scores[i]).sum()) for i in range(4)])
    place = jnp.arange(4)
    pairs = contrastive.text_pairs(place, place, jnp.ones(4, bool))
    np.testing.assert_allclose(contrastive.softmax_loss(scores, *pairs), rows, rtol=1e-5)


def test_text_pairs_mask_songs_without_text_and_keep_equal_texts_positive():
    song, text = jnp.array([0, 1, 2, 3]), jnp.array([0, 1, 1, 0])
    has_text = jnp.array([True, True, True, False])
    weights, mask = contrastive.text_pairs(song, text, has_text)
    assert weights[1, 2] == 1 and not mask[3].any() and not mask[:, 3].any()
    z, losses = vectors(4), []
    for last in (0, 1):
        z[3] = vectors(4, 7)[last]
        losses.append(softmax(z, (weights, mask)))
    few = softmax(z[:3], (weights[:3, :3], mask[:3, :3]))
    np.testing.assert_allclose(losses, few, rtol=1e-6)


@pytest.mark.parametrize("loss", contrastive.LOSSES.values(), ids=contrastive.LOSSES)
def test_loss_of_a_batch_without_text_is_zero_with_zero_gradient(loss):
    song = jnp.arange(4)
    pairs = contrastive.text_pairs(song, song, jnp.zeros(4, bool))
    value, gradient = jax.value_and_grad(lambda s: loss(s, *pairs))(jnp.asarray(vectors(4)[:, :4]))
    assert value == 0 and (np.asarray(gradient) == 0).all()
