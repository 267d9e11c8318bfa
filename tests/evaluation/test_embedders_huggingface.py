"""Embedders from a folder: tiny audio models of `transformers` with random weights, built here."""

import json

import numpy as np
import pytest

from specdiff_jax.evaluation import embedders
from specdiff_jax.evaluation.embedders.embedder import embed_clips

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SOUND = dict(
    hidden_size=16, patch_embeds_hidden_size=8, depths=[1, 1], num_attention_heads=[2, 2],
    window_size=4, spec_size=64, num_mel_bins=16, patch_size=4, patch_stride=[4, 4],
)  # fmt: skip
TEXT = dict(vocab_size=9, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
LAYERS = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)


def clap(fusion):
    t = transformers
    sound = SOUND | {"enable_fusion": fusion}
    model = t.ClapModel(t.ClapConfig(text_config=TEXT, audio_config=sound, projection_dim=8))
    extractor = t.ClapFeatureExtractor(
        feature_size=16, sampling_rate=8000, hop_length=125, max_length_s=1, fft_window_size=256,
        frequency_max=4000, truncation="fusion" if fusion else "rand_trunc",
    )  # fmt: skip
    return model, extractor


def ast():
    t = transformers
    config = t.ASTConfig(**LAYERS, max_length=64, num_mel_bins=32, patch_size=8, time_stride=8)
    extractor = t.ASTFeatureExtractor(num_mel_bins=32, max_length=64)
    return t.ASTModel(config), extractor


def hubert():
    t = transformers
    shape = dict(conv_dim=(8, 8), conv_stride=(20, 16), conv_kernel=(20, 16))
    config = t.HubertConfig(**LAYERS, **shape, num_feat_extract_layers=2, feat_extract_norm="layer",
                            num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2)  # fmt: skip
    return t.HubertModel(config), t.Wav2Vec2FeatureExtractor()


KINDS = {
    "clap": lambda: clap(False),
    "fused clap": lambda: clap(True),
    "ast": ast,
    "hubert": hubert,
}


def save(kind, folder):
    torch.manual_seed(0)
    model, extractor = KINDS[kind]()
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return model.eval(), extractor


@pytest.mark.parametrize("kind", KINDS)
def test_embedder_equals_the_model(kind, tmp_path):
    model, extractor = save(kind, tmp_path)
    embedder = embedders.load_embedder(f"path:{tmp_path}")
    waves = np.random.default_rng(0).normal(size=(5, embedder.window)).astype(np.float32) / 10
    ours = embed_clips(embedder, waves, embedder.sample_rate)
    assert ours.shape == (5, 1, embedder.width) and embedder.width == (8 if "clap" in kind else 16)
    np.testing.assert_array_equal(ours, embed_clips(embedder, waves, embedder.sample_rate))
    for wave, got in zip(waves, ours[:, 0], strict=True):  # alone
        given = extractor(wave, sampling_rate=embedder.sample_rate, return_tensors="pt")
        given.pop("is_longer", None)
        with torch.no_grad():
            if "clap" in kind:
                longer = torch.zeros(1, 1, dtype=torch.bool)
                pooled = model.audio_model(**given, is_longer=longer).pooler_output
                plain = model.audio_projection(pooled)
            else:
                plain = model(**given).last_hidden_state.mean(1)
        np.testing.assert_allclose(got, plain[0], atol=1e-4)


def test_clap_embeds_texts_only_with_its_tokenizer(tmp_path):
    from tests.helpers.transformers_models import save as save_text_model

    save_text_model("clap", tmp_path)
    clap(False)[1].save_pretrained(tmp_path)
    embedder, texts = embedders.load_embedder(f"path:{tmp_path}"), ["a slow organ", "fast flute"]
    vectors = embedder.embed_text(texts)
    assert vectors.shape == (2, embedder.width)
    model = transformers.ClapModel.from_pretrained(tmp_path).eval()
    tokens = transformers.AutoTokenizer.from_pretrained(tmp_path)(
        texts, return_tensors="pt", padding=True
    )
    with torch.no_grad():
        half = model.text_model(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        )
        plain = model.text_projection(half.pooler_output)
    plain = plain / plain.norm(dim=1, keepdim=True)
    np.testing.assert_allclose(vectors, plain, atol=1e-5)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).unlink()
    assert embedders.load_embedder(f"path:{tmp_path}").embed_text is None


def test_sha256_depends_on_every_weight_and_setting(tmp_path):
    model, extractor = save("ast", tmp_path)
    before, again = (embedders.load_embedder(f"path:{tmp_path}").sha256 for _ in range(2))
    with torch.no_grad():
        next(model.parameters()).flatten()[0] += 1
    model.save_pretrained(tmp_path)
    after = embedders.load_embedder(f"path:{tmp_path}").sha256
    extractor.mean = -5.0
    extractor.save_pretrained(tmp_path)
    assert len({before, after, embedders.load_embedder(f"path:{tmp_path}").sha256}) == 3
    assert before == again


def lose_a_weight(folder):
    import safetensors.torch

    path = folder / "model.safetensors"
    weights = safetensors.torch.load_file(path)
    weights.pop(next(name for name in weights if name.endswith("dense.weight")))
    safetensors.torch.save_file(weights, path, {"format": "pt"})


def bring_code(folder):
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text("raise SystemExit('this code ran')")


def keep_a_pickle_alone(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    "damage, message",
    [
        (lose_a_weight, "1 weights are missing"),
        (bring_code, "cannot be loaded"),
        (keep_a_pickle_alone, r"lacks \*.safetensors: save model"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "lacks preprocessor_con"),
    ],
)
def test_untrusted_model_is_refused(damage, message, tmp_path):
    save("ast", tmp_path)
    damage(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        embedders.load_embedder(f"path:{tmp_path}")
    assert "\n" not in str(caught.value)


def test_hub_name_is_refused():
    with pytest.raises(ValueError, match="path:owner/name lacks config.json"):
        embedders.load_embedder("path:owner/name")
