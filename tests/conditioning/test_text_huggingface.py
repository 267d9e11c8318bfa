"""Text encoders of `transformers`: tiny ones with random weights, built here."""

import json

import numpy as np
import pytest

from specdiff_jax.conditioning import text_encoders

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tests.helpers.transformers_models import WORDS, save  # noqa: E402

TEXTS = ["a slow organ chorale", "fast flute " * 30, "violin"]
TEXT_HALF = {"t5": "encoder", "clap": "text_model", "clap text": "text_model"}


@pytest.mark.parametrize("kind", ["bert", "t5", "t5 encoder", "clap", "clap text"])
def test_encoder_equals_the_model(kind, tmp_path):
    model = save(kind, tmp_path)
    encoder = text_encoders.load(f"hf:{tmp_path}")
    features = encoder.encode(TEXTS, 8)
    assert features.truncated == (None, len("fast flute " * 3) - 1, None)
    for text, tokens, mask, pooled in zip(TEXTS, *features[:3], strict=True):
        ids = [2, *(WORDS.index(word) for word in text.split()[:6]), 3]
        text_half = getattr(model, TEXT_HALF[kind]) if kind in TEXT_HALF else model
        with torch.no_grad():  # alone, without padding
            plain = text_half(input_ids=torch.tensor([ids]))
            mean = plain.last_hidden_state.mean(1)
            if kind == "clap":
                mean = model.text_projection(plain.pooler_output)
            if kind == "clap text":
                mean = model(input_ids=torch.tensor([ids])).text_embeds
        assert mask.sum() == len(ids)
        np.testing.assert_allclose(tokens[mask], plain.last_hidden_state[0], atol=3e-3)  # float16
        np.testing.assert_allclose(pooled, mean[0] / mean[0].norm(), atol=1e-5)
        assert not tokens[~mask].any()
    assert (encoder.width, encoder.pooled_width) == (16, 8 if "clap" in kind else 16)


def test_sha256_depends_on_every_weight(tmp_path):
    model = save("bert", tmp_path)
    before, again = (text_encoders.load(f"hf:{tmp_path}").sha256 for _ in range(2))
    with torch.no_grad():
        next(model.parameters())[0, 0] += 1
    model.save_pretrained(tmp_path)
    after = text_encoders.load(f"hf:{tmp_path}").sha256
    assert before == again != after


def test_safetensors_are_preferred_to_a_pickle(tmp_path):
    save("bert", tmp_path)
    expected = text_encoders.load(f"hf:{tmp_path}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"no pickle at all")
    assert text_encoders.load(f"hf:{tmp_path}").sha256 == expected.sha256


def test_pickle_is_read_without_safetensors(tmp_path):
    model = save("bert", tmp_path)
    expected = text_encoders.load(f"hf:{tmp_path}").encode(TEXTS, 8)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    got = text_encoders.load(f"hf:{tmp_path}").encode(TEXTS, 8)
    np.testing.assert_array_equal(got.tokens, expected.tokens)


def lose(folder, end):
    """Remove the weight whose name ends with `end` from a model's file."""
    import safetensors.torch

    path = folder / "model.safetensors"
    weights = safetensors.torch.load_file(path)
    (lost,) = [name for name in weights if name.endswith(end)]
    del weights[lost]
    safetensors.torch.save_file(weights, path, {"format": "pt"})


def lose_a_weight(folder):
    lose(folder, "encoder.layer.1.output.dense.weight")


def lose_the_pooler(folder):
    lose(folder, "pooler.dense.weight")


def bring_code(folder):
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text("raise SystemExit('this code ran')")


def lose_all_weights(folder):
    (folder / "model.safetensors").unlink()


def lose_the_tokenizer(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()


@pytest.mark.parametrize(
    "kind, harm, message",
    [
        ("bert", lose_a_weight, "1 weights are missing, encoder.layer.1.output.dense.weight"),
        ("clap text", lose_the_pooler, "1 weights are missing, text_model.pooler.dense.weight"),
        ("bert", bring_code, "cannot be loaded"),
        ("bert", lose_all_weights, "neither .safetensors nor .bin"),
        ("bert", lose_the_tokenizer, "holds no tokenizer"),
        ("bart", lambda folder: None, "bart has a decoder"),
    ],
)
def test_incomplete_model_is_refused(kind, harm, message, tmp_path):
    save(kind, tmp_path)
    harm(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        text_encoders.load(f"hf:{tmp_path}")
    assert "\n" not in str(caught.value)


def test_plain_encoder_needs_no_pooler(tmp_path):
    save("bert", tmp_path)
    expected = text_encoders.load(f"hf:{tmp_path}").encode(TEXTS, 8)
    lose_the_pooler(tmp_path)
    got = text_encoders.load(f"hf:{tmp_path}").encode(TEXTS, 8)
    np.testing.assert_array_equal(got.pooled, expected.pooled)


def test_name_that_the_hub_lacks_is_refused(monkeypatch):
    import huggingface_hub

    def offline(*args, **kwargs):
        raise ConnectionError("no network\nand a long story")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(ValueError, match="the Hub has no such model .no network.$"):
        text_encoders.load("hf:owner/name")


def test_hub_name_resolves_to_its_commit(tmp_path, monkeypatch):
    import huggingface_hub

    commit = "0123456789abcdef0123456789abcdef01234567"
    save("bert", tmp_path / commit)
    requests = []

    def hub(name, revision, ignore_patterns, allow_patterns):
        requests.append((name, revision))
        return str(tmp_path / commit)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    first = text_encoders.load("hf:owner/name")
    again = text_encoders.load(first.name, first.revision)
    assert first.revision == again.revision == commit
    assert requests == [("owner/name", None), ("owner/name", commit)]
    with pytest.raises(ValueError, match="folder, which has no revision 'abc'"):
        text_encoders.load(f"hf:{tmp_path / commit}", "abc")
