"""Words of a user -> branches and weights; what cannot be asked is said."""

import dataclasses

import numpy as np
import pytest

from configs import base
from specdiff_jax.conditioning import label_reader, prompts, vocabulary
from specdiff_jax.conditioning.prompts import Prompt

LABELS = ("instrument:flute", "instrument:church organ", "tempo:fast", "ensemble:choir")
LABELS += ("instrument:choir", "drums")
PLAIN = vocabulary.Vocabulary(LABELS, ("tempo", "start"))


def branches(guidance_scale=1.0, with_plain=False, **wish):
    return prompts.PromptEncoder(PLAIN, with_plain).branches(
        Prompt(**wish, guidance_scale=guidance_scale)
    )


def asked_labels(condition):
    return {label for label, on in zip(LABELS, condition.labels, strict=True) if on}


def test_labels_without_a_sign_are_asked_for_together():
    ((condition, weight, _),) = branches(labels="flute, church organ; tempo:fast")
    assert weight == 1
    assert asked_labels(condition) == {"instrument:flute", "instrument:church organ", "tempo:fast"}


def test_labels_with_a_sign_or_a_factor_are_terms_of_one_sum():
    made = branches(2.0, labels="+church organ -drums 1.5*fast")
    told = [(asked_labels(condition), weight) for condition, weight, _ in made]
    assert told[0] == (set(), 1 - 2.0 * (1 - 1 + 1.5))
    assert told[1:] == [({"instrument:church organ"}, 2.0), ({"drums"}, -2.0), ({"tempo:fast"}, 3)]


@pytest.mark.parametrize("guidance", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("labels", ["flute", "+flute -drums", "flute, +drums"])
def test_weights_sum_to_one_with_and_without_guidance(guidance, labels):
    made = branches(guidance, with_plain=True, labels=labels)
    np.testing.assert_allclose(sum(weight for _, weight, _ in made), 1)
    np.testing.assert_allclose(sum(plain for _, _, plain in made), 1)


def test_guidance_of_one_asks_the_model_once_and_of_zero_for_nothing():
    ((condition, weight, _),) = branches(1.0, labels="flute")
    assert weight == 1 and asked_labels(condition) == {"instrument:flute"}
    ((condition, weight, _),) = branches(0.0, labels="flute")
    assert weight == 1 and asked_labels(condition) == set()


def test_a_negative_prompt_is_led_away_from_and_alone_leads_away_from_it_too():
    text = {"name": "", "width": 1, "pooled_width": 1, "max_tokens": 3}
    asker = prompts.PromptEncoder(vocabulary.Vocabulary(LABELS, (), text))
    heard = (np.ones((3, 1), np.float16), np.ones(3, bool), np.ones(1, np.float32))
    asker.texts["drums"] = heard
    for wish in (Prompt(labels="flute", negative_prompt="drums"), Prompt(negative_prompt="drums")):
        wish = dataclasses.replace(wish, guidance_scale=3.0)
        (away, weight, _), (towards, other, _) = asker.branches(wish)
        assert (weight, other) == (-2.0, 3.0) and away.mask.all() and not towards.mask.any()
    with pytest.raises(
        ValueError, match="negative_prompt 'drums' does nothing at guidance_scale=1"
    ):
        asker.branches(Prompt(labels="flute", negative_prompt="drums"))


def test_a_text_asks_for_labels_it_names_unless_the_user_names_some():
    text = {"name": "", "width": 1, "pooled_width": 2, "max_tokens": 3}
    flutes = np.arange(30)[:, None] % 2 == 0
    vectors = np.where(flutes, [1.0, 0.0], [0.0, 1.0])
    reader = label_reader.fit(LABELS[:1], flutes, vectors, np.arange(30))
    known = vocabulary.Vocabulary(LABELS, (), text, reader)
    said = []
    for reads in (True, False):
        asker = prompts.PromptEncoder(known, reads=reads, tell=said.append)
        heard = np.zeros((3, 1), np.float16), np.ones(3, bool)
        asker.texts["a flute"] = (*heard, np.array([3.0, 0.0]))
        asker.texts["a piano"] = (*heard, np.array([0.0, 3.0]))
        asked = lambda asker=asker, **wish: [
            asked_labels(condition) for condition, *_ in asker.branches(Prompt(**wish))
        ]
        own = {"instrument:flute"} if reads else set()
        assert asked(prompt="a flute") == [own]
        assert asked(prompt="a piano") == [set()]
        assert asked(prompt="a flute", labels="drums") == [{"drums"}]
        assert asked(prompt="a flute", labels="+drums") == [set(), own, {"drums"}]
        assert asked(prompt="a piano", negative_prompt="a flute", guidance_scale=2.0) == [
            own,
            set(),
        ]
        assert asked(labels="drums") == [{"drums"}]
    assert said == ["prompt 'a flute' names instrument:flute"]  # once, and of one reader


def test_numbers_are_told_in_their_units_and_the_rest_is_unknown():
    ((condition, *_),) = branches(scalars="tempo=200")
    np.testing.assert_array_equal(condition.scalars, [1.0, np.nan])


def test_wishes_of_a_batch_get_room_for_the_one_with_the_most_branches():
    asker = prompts.PromptEncoder(PLAIN)
    wishes = [
        Prompt(labels="flute", guidance_scale=2.0),
        Prompt(labels="+flute -drums", guidance_scale=2.0),
        Prompt(),
    ]
    assert asker.room(wishes) == 3
    made, weights, _ = asker(wishes)
    assert made.labels.shape == (3, 3, len(LABELS))
    np.testing.assert_array_equal(weights, [[-1, 1, 1], [2, 2, 0], [0, -2, 0]])
    np.testing.assert_array_equal(made.labels[2].sum(axis=1), [0, 1, 0])


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"labels": "flut"}, "label 'flut' is not one of the 6 .*did you mean instrument:flute"),
        ({"labels": "choir"}, "label 'choir' is one of ensemble:choir, instrument:choir"),
        ({"labels": " , "}, "labels: the text is empty"),
        ({"labels": "+"}, "label '\\+' is not one of"),
        ({"scalars": "tempi=3"}, "number='tempi' is not one of tempo, start; did you mean 'tempo'"),
        ({"scalars": "tempo=fast"}, "numbers: 'tempo=fast' is not a name and a value"),
        ({"scalars": "tempo=0"}, "numbers: 'tempo=0' is not a name and a value"),
        ({"scalars": ""}, "numbers: the text is empty"),
        ({"prompt": "a flute"}, "trained without text .*ask by labels"),
        ({"labels": "flute", "negative_prompt": "drums"}, "prompt 'drums': .*without text"),
    ],
)
def test_what_cannot_be_asked_is_said(wish, message):
    with pytest.raises(ValueError, match=message):
        branches(2.0, **wish)


def test_a_model_that_knows_nothing_says_so():
    asker = prompts.PromptEncoder(vocabulary.Vocabulary())
    for wish, message in (
        (Prompt(prompt="x"), "takes no prompt"),
        (Prompt(labels="x"), "without condition.labels"),
        (Prompt(scalars="tempo=1"), "trained without any"),
    ):
        with pytest.raises(ValueError, match=message):
            asker.branches(wish)


def test_a_file_of_prompts_is_read_line_by_line(tmp_path):
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
    wanted = [
        Prompt(prompt=prompt, guidance_scale=2.0),
        Prompt(labels="flute", negative_prompt="b", guidance_scale=3.0),
    ]
    assert prompts.read_prompts(sample) == wanted
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
def test_a_broken_file_of_prompts_is_named_with_its_line(tmp_path, line, message):
    path = tmp_path / "prompts.jsonl"
    path.write_text(line)
    with pytest.raises(ValueError, match=message):
        prompts.read_prompt_file(path)


def test_guidance_of_nothing_is_refused():
    sample = base.get_config().sample
    sample.guidance_scale = 3.0
    with pytest.raises(ValueError, match="sample.guidance_scale is not used without a prompt"):
        prompts.read_prompts(sample)
