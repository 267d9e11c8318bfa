"""Prompts -> branches and weights; what a model does not take is refused in one line."""

import numpy as np
import pytest

from configs import base
from specdiff_jax.conditioning import label_reader, prompts, vocabulary
from specdiff_jax.conditioning.labels import Labels
from specdiff_jax.conditioning.prompts import Prompt
from specdiff_jax.conditioning.scalars import Scalars
from specdiff_jax.conditioning.text import Text, TextValue

LABELS = ("instrument:flute", "instrument:church organ", "tempo:fast", "ensemble:choir")
LABELS += ("instrument:choir", "drums")
PLAIN = vocabulary.Vocabulary((Labels(LABELS), Scalars(("tempo", "start"))))


def with_text(pooled_width, reader=None):
    text = Text("", "", "", width=1, pooled_width=pooled_width, max_tokens=3)
    return vocabulary.Vocabulary((Labels(LABELS), text), reader)


def branches(guidance_scale=1.0, with_plain=False, **fields):
    prompt = Prompt(**fields, guidance_scale=guidance_scale)
    return prompts.PromptEncoder(PLAIN, with_plain).branches(prompt)


def labels_of(condition):
    return {label for label, on in zip(LABELS, condition["labels"], strict=True) if on}


def test_labels_without_a_sign_are_one_condition():
    ((condition, weight, _),) = branches(labels="flute, church organ; tempo:fast")
    assert weight == 1
    assert labels_of(condition) == {"instrument:flute", "instrument:church organ", "tempo:fast"}


def test_labels_with_a_sign_or_a_factor_are_terms_of_one_sum():
    branched = branches(2.0, labels="+church organ -drums 1.5*fast")
    weights = [(labels_of(condition), weight) for condition, weight, _ in branched]
    assert weights[0] == (set(), 1 - 2.0 * (1 - 1 + 1.5))
    assert weights[1:] == [
        ({"instrument:church organ"}, 2.0),
        ({"drums"}, -2.0),
        ({"tempo:fast"}, 3),
    ]


@pytest.mark.parametrize("guidance", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("labels", ["flute", "+flute -drums", "flute, +drums"])
def test_weights_sum_to_one_with_and_without_guidance(guidance, labels):
    branched = branches(guidance, with_plain=True, labels=labels)
    np.testing.assert_allclose(sum(weight for _, weight, _ in branched), 1)
    np.testing.assert_allclose(sum(plain for _, _, plain in branched), 1)


def test_guidance_of_one_has_one_branch_and_of_zero_is_unconditional():
    ((condition, weight, _),) = branches(1.0, labels="flute")
    assert weight == 1 and labels_of(condition) == {"instrument:flute"}
    ((condition, weight, _),) = branches(0.0, labels="flute")
    assert weight == 1 and labels_of(condition) == set()


def test_negative_prompt_takes_the_place_of_the_null_condition():
    encoder = prompts.PromptEncoder(with_text(pooled_width=1))
    value = (np.ones((3, 1), np.float16), np.ones(3, bool), np.ones(1, np.float32))
    encoder.texts["drums"] = TextValue(*value)
    for labels in ("flute", None):
        prompt = Prompt(labels=labels, negative_prompt="drums", guidance_scale=3.0)
        (negative, weight, _), (positive, other, _) = encoder.branches(prompt)
        assert (weight, other) == (-2.0, 3.0)
        assert negative["text"].mask.all() and not positive["text"].mask.any()
    with pytest.raises(
        ValueError, match="negative_prompt 'drums' does nothing at guidance_scale=1"
    ):
        encoder.branches(Prompt(labels="flute", negative_prompt="drums"))


def test_labels_are_inferred_from_a_text_unless_the_user_names_some():
    flutes = np.arange(30)[:, None] % 2 == 0
    vectors = np.where(flutes, [1.0, 0.0], [0.0, 1.0])
    reader = label_reader.fit(LABELS[:1], flutes, vectors, np.arange(30))
    vocab, lines = with_text(pooled_width=2, reader=reader), []
    for infer_labels in (True, False):
        encoder = prompts.PromptEncoder(vocab, infer_labels=infer_labels, log=lines.append)
        tokens = np.zeros((3, 1), np.float16), np.ones(3, bool)
        encoder.texts["a flute"] = TextValue(*tokens, np.array([3.0, 0.0]))
        encoder.texts["a piano"] = TextValue(*tokens, np.array([0.0, 3.0]))
        requested = lambda encoder=encoder, **fields: [
            labels_of(condition) for condition, *_ in encoder.branches(Prompt(**fields))
        ]
        own = {"instrument:flute"} if infer_labels else set()
        assert requested(prompt="a flute") == [own]
        assert requested(prompt="a piano") == [set()]
        assert requested(prompt="a flute", labels="drums") == [{"drums"}]
        assert requested(prompt="a flute", labels="+drums") == [set(), own, {"drums"}]
        negative = {"negative_prompt": "a flute", "guidance_scale": 2.0}
        assert requested(prompt="a piano", **negative) == [own, set()]
        assert requested(labels="drums") == [{"drums"}]
    assert lines == ["prompt 'a flute' names instrument:flute"]  # once, and by one encoder


def test_scalars_are_converted_to_units_and_nan_where_unset():
    ((condition, *_),) = branches(scalars="tempo=200")
    np.testing.assert_array_equal(condition["scalars"], [1.0, np.nan])


def test_batch_has_room_for_the_prompt_with_the_most_branches():
    encoder = prompts.PromptEncoder(PLAIN)
    requests = [
        Prompt(labels="flute", guidance_scale=2.0),
        Prompt(labels="+flute -drums", guidance_scale=2.0),
        Prompt(),
    ]
    assert encoder.room(requests) == 3
    conditions, weights, _ = encoder(requests)
    assert conditions["labels"].shape == (3, 3, len(LABELS))
    np.testing.assert_array_equal(weights, [[-1, 1, 1], [2, 2, 0], [0, -2, 0]])
    np.testing.assert_array_equal(conditions["labels"][2].sum(axis=1), [0, 1, 0])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"labels": "flut"}, "label 'flut' is not one of the 6 .*did you mean instrument:flute"),
        ({"labels": "choir"}, "label 'choir' is one of ensemble:choir, instrument:choir"),
        ({"labels": " , "}, "labels: the text is empty"),
        ({"labels": "+"}, "label '\\+' is not one of"),
        ({"scalars": "tempi=3"}, "scalar='tempi' is not one of tempo, start; did you mean 'tempo'"),
        ({"scalars": "tempo=fast"}, "scalars: 'tempo=fast' is not a name and a value"),
        ({"scalars": "tempo=0"}, "scalars: 'tempo=0' is not a name and a value"),
        ({"scalars": ""}, "scalars: the text is empty"),
        ({"prompt": "a flute"}, "trained without condition.text; it takes labels, scalars"),
        (
            {"labels": "flute", "negative_prompt": "drums"},
            "negative_prompt 'drums': .*without condition.text",
        ),
    ],
)
def test_malformed_prompt_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        branches(2.0, **fields)


def test_unconditional_model_refuses_prompts():
    encoder = prompts.PromptEncoder(vocabulary.Vocabulary())
    for prompt, message in (
        (Prompt(prompt="x"), "condition.text; it takes no condition"),
        (Prompt(labels="x"), "without condition.labels"),
        (Prompt(scalars="tempo=1"), "without condition.scalars"),
    ):
        with pytest.raises(ValueError, match=message):
            encoder.branches(prompt)


def test_prompt_file_has_a_prompt_a_line(tmp_path):
    path = tmp_path / "prompts.jsonl"
    lines = (
        '{"prompt": "a\u2028line\u0085of its own"}\r',
        "",
        '{"labels": "flute", "negative_prompt": "b", "guidance_scale": 3}',
    )
    path.write_text("\n".join(lines), "utf-8")
    sample = base.get_config().sample
    sample.prompts = str(path)
    sample.guidance_scale = 2.0
    prompt = "a\u2028line\u0085of its own"  # JSON lines end at a line feed and nowhere else
    expected = [
        Prompt(prompt=prompt, guidance_scale=2.0),
        Prompt(labels="flute", negative_prompt="b", guidance_scale=3.0),
    ]
    assert prompts.read_prompts(sample) == expected
    sample.prompt = "c"
    with pytest.raises(ValueError, match="sample.prompts and sample.prompt exclude each other"):
        prompts.read_prompts(sample)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"promt": "a"}', "line 1: field='promt' is not one of .*did you mean 'prompt'"),
        ("[1]", "line 1: is not a JSON object"),
        ("{", "line 1: "),
        ("", "holds no prompt"),
    ],
)
def test_malformed_prompt_file_is_refused_with_its_line(tmp_path, line, message):
    path = tmp_path / "prompts.jsonl"
    path.write_text(line)
    with pytest.raises(ValueError, match=message):
        prompts.read_prompt_file(path)


def test_guidance_without_a_prompt_is_refused():
    sample = base.get_config().sample
    sample.guidance_scale = 3.0
    with pytest.raises(ValueError, match="sample.guidance_scale is not used without a prompt"):
        prompts.read_prompts(sample)
