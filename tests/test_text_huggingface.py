"""Text encoders of `transformers`: tiny ones with random weights, built here."""

import json

import numpy as np
import pytest

from specdiff_jax.text import encoders

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "slow", "fast", "organ", "chorale", "for"]
WORDS += ["flute", "and", "violin", "in", "minor"]
TEXTS = ["a slow organ chorale", "fast flute " * 30, "violin"]
SIZES = dict(
    vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=32, max_position_embeddings=40,
)  # fmt: skip
T5 = dict(vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
SOUND = dict(
    hidden_size=16, patch_embeds_hidden_size=8, depths=[1, 1], num_attention_heads=[2, 2],
    window_size=4, spec_size=64, num_mel_bins=16, patch_size=4, patch_stride=[4, 4],
)  # fmt: skip
TEXT_HALF = {"t5": "encoder", "clap": "text_model", "clap text": "text_model"}


def build(kind):
    t = transformers
    if kind == "bert":
        return t.BertModel(t.BertConfig(**SIZES))
    if kind == "t5":
        return t.T5ForConditionalGeneration(t.T5Config(**T5, decoder_start_token_id=0))
    if kind == "t5 encoder":
        return t.T5EncoderModel(t.T5Config(**T5))
    if kind == "clap":
        return t.ClapModel(t.ClapConfig(text_config=SIZES, audio_config=SOUND, projection_dim=8))
    if kind == "clap text":
        return t.ClapTextModelWithProjection(t.ClapTextConfig(**SIZES, projection_dim=8))
    sides = {f"{s}_{n}": 2 for s in ("encoder", "decoder") for n in ("layers", "attention_heads")}
    return t.BartModel(t.BartConfig(vocab_size=len(WORDS), d_model=16, **sides))


def save(kind, folder):
    """A model with random weights and its tokenizer, as the Hub would hold them."""
    import tokenizers

    torch.manual_seed(0)
    model = build(kind)
    for weight in model.parameters():  # at their usual start all tokens mean nearly the same
        torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(folder)
    words = tokenizers.models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]")
    tokenizer = tokenizers.Tokenizer(words)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=32, **names
    ).save_pretrained(folder)
    return model.eval()


@pytest.mark.parametrize("kind", ["bert", "t5", "t5 encoder", "clap", "clap text"])
def test_an_encoder_says_what_the_model_itself_says(kind, tmp_path):
    model = save(kind, tmp_path)
    encoder = encoders.load(f"hf:{tmp_path}")
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


def test_one_weight_changes_the_hash(tmp_path):
    model = save("bert", tmp_path)
    before, again = (encoders.load(f"hf:{tmp_path}").sha256 for _ in range(2))
    with torch.no_grad():
        next(model.parameters())[0, 0] += 1
    model.save_pretrained(tmp_path)
    after = encoders.load(f"hf:{tmp_path}").sha256
    assert before == again != after


def test_safetensors_are_taken_before_a_pickle(tmp_path):
    save("bert", tmp_path)
    expected = encoders.load(f"hf:{tmp_path}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"no pickle at all")
    assert encoders.load(f"hf:{tmp_path}").sha256 == expected.sha256


def test_a_pickle_of_weights_is_read_where_there_is_nothing_else(tmp_path):
    model = save("bert", tmp_path)
    expected = encoders.load(f"hf:{tmp_path}").encode(TEXTS, 8)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    got = encoders.load(f"hf:{tmp_path}").encode(TEXTS, 8)
    np.testing.assert_array_equal(got.tokens, expected.tokens)


def lose(folder, end):
    """Takes the weight whose name ends so out of a model's file."""
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
    "kind, harm, said",
    [
        ("bert", lose_a_weight, "1 weights are missing, encoder.layer.1.output.dense.weight"),
        ("clap text", lose_the_pooler, "1 weights are missing, text_model.pooler.dense.weight"),
        ("bert", bring_code, "cannot be loaded"),
        ("bert", lose_all_weights, "neither .safetensors nor .bin"),
        ("bert", lose_the_tokenizer, "holds no tokenizer"),
        ("bart", lambda folder: None, "bart has a decoder"),
    ],
)
def test_a_model_that_cannot_be_trusted_is_refused(kind, harm, said, tmp_path):
    save(kind, tmp_path)
    harm(tmp_path)
    with pytest.raises(ValueError, match=said) as caught:
        encoders.load(f"hf:{tmp_path}")
    assert "\n" not in str(caught.value)


def test_a_plain_encoder_needs_no_pooler(tmp_path):
    save("bert", tmp_path)
    expected = encoders.load(f"hf:{tmp_path}").encode(TEXTS, 8)
    lose_the_pooler(tmp_path)
    got = encoders.load(f"hf:{tmp_path}").encode(TEXTS, 8)
    np.testing.assert_array_equal(got.pooled, expected.pooled)


def test_a_name_that_the_hub_does_not_give_is_refused(monkeypatch):
    import huggingface_hub

    def offline(*args, **kwargs):
        raise ConnectionError("no network\nand a long story")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(ValueError, match="nor had from the Hub .no network.$"):
        encoders.load("hf:owner/name")


def test_a_hub_name_is_pinned_to_its_commit(tmp_path, monkeypatch):
    import huggingface_hub

    commit = "0123456789abcdef0123456789abcdef01234567"
    save("bert", tmp_path / commit)
    asked = []

    def hub(name, revision, ignore_patterns, allow_patterns):
        asked.append((name, revision))
        return str(tmp_path / commit)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    first = encoders.load("hf:owner/name")
    again = encoders.load(first.name, first.revision)
    assert first.revision == again.revision == commit
    assert asked == [("owner/name", None), ("owner/name", commit)]
    with pytest.raises(ValueError, match="folder, which has no revision 'abc'"):
        encoders.load(f"hf:{tmp_path / commit}", "abc")
