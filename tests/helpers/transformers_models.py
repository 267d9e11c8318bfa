"""Text models of `transformers`, tiny and with random weights, saved as the Hub would hold them."""

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "slow", "fast", "organ", "chorale", "for"]
WORDS += ["flute", "and", "violin", "in", "minor"]


SIZES = dict(
    vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=32, max_position_embeddings=40,
)  # fmt: skip


T5 = dict(vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)


SOUND = dict(
    hidden_size=16, patch_embeds_hidden_size=8, depths=[1, 1], num_attention_heads=[2, 2],
    window_size=4, spec_size=64, num_mel_bins=16, patch_size=4, patch_stride=[4, 4],
)  # fmt: skip


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
