"""What a user asks for, as Conditions and the weights that mix them.

Labels without a sign are asked for together, as the songs have them: "flute, church organ". A label
with a sign or a factor is a term of its own, whose score is added: "+flute -drums 1.5*fast".
"""

import dataclasses
import re

import numpy as np

from specdiff_jax.conditioning import label_reader, text_encoders
from specdiff_jax.conditioning import vocabulary as conditions
from specdiff_jax.conditioning.label_names import find_label
from specdiff_jax.conditioning.text_encoders import encoder as features
from specdiff_jax.config import jsonl
from specdiff_jax.config.fields import choose
from specdiff_jax.diffusion import guidance
from specdiff_jax.models.conditioning import Condition
from specdiff_jax.runtime.logs import log

TERM = re.compile(r"(?P<sign>[+-])?\s*(?:(?P<factor>\d+(?:\.\d+)?)\s*\*)?\s*(?P<label>.+)")
BETWEEN = re.compile(r"[,;]|\s+(?=[+-]|\d+(?:\.\d+)?\s*\*)")


@dataclasses.dataclass(frozen=True)
class Prompt:
    """One thing asked for, in the user's words; all unset asks for nothing."""

    prompt: str | None = None
    labels: str | None = None
    scalars: str | None = None
    negative_prompt: str | None = None
    guidance_scale: float | None = None  # how far to exaggerate it, 1 where unset

    def set_fields(self):
        """Return the fields that are set."""
        return {k: v for k, v in dataclasses.asdict(self).items() if v is not None}


UNCONDITIONAL = Prompt()
FIELDS = ("prompt", "labels", "scalars", "negative_prompt")


def read_prompts(sample):
    """The Wishes of a config's sample section: one, or those of the lines of sample.prompts."""
    alone = Prompt(**{name: sample[name] for name in FIELDS}, guidance_scale=sample.guidance_scale)
    asked = [name for name in FIELDS if sample[name] is not None]
    if sample.prompts is not None:
        if asked:
            raise ValueError(f"sample.prompts and sample.{asked[0]} exclude each other; set one")
        return read_prompt_file(sample.prompts, sample.guidance_scale)
    guided = [n for n in ("guidance_scale", "guidance_rescale", "guidance_interval") if sample[n]]
    if guided and not asked:
        raise ValueError(f"sample.{guided[0]} is not used without a prompt, labels or numbers")
    return [alone]


def read_prompt_file(path, guidance_scale=None):
    """The Wishes of a .jsonl file, a line each; `guidance_scale` where a line names none."""

    def wish(number, fields):
        strength = fields.pop("guidance_scale", guidance_scale)
        for name in fields:
            choose(dict.fromkeys((*FIELDS, "guidance_scale")), "field", name)
        told = {name: str(value) for name, value in fields.items()}
        return Prompt(**told, guidance_scale=None if strength is None else float(strength))

    return jsonl.read_objects("sample.prompts", path, wish, "prompt")


class PromptEncoder:
    """Wishes -> (conditions, weights, plain) for `guidance.guided`, with one text encoder.

    Args:
      with_plain: whether the weights without guidance matter; where they do not, conditions that
        have no weight with it are left out.
      reads: whether a text without labels also asks for those that it names.
      encoder: of texts, where it is loaded already.
      tell: hears a line about every text that is not read as it is written.
    """

    def __init__(self, vocabulary, with_plain=False, reads=True, encoder=None, tell=log):
        self.vocabulary, self.with_plain = vocabulary, with_plain
        self.reader = vocabulary.reader if reads else None
        self.encoder, self.tell, self.texts, self.names = encoder, tell, {}, {}

    def branches(self, wish):
        """[(Condition of one item, weight, weight without guidance)], those of weight 0 left out.

        Raises:
          ValueError: the checkpoint cannot be asked for this.
        """
        v, asked = self.vocabulary, []
        together, terms = parse_labels(wish.labels, v) if wish.labels is not None else ((), ())
        told = parse_scalars(wish.scalars, v) if wish.scalars is not None else {}
        guide = 1.0 if wish.guidance_scale is None else wish.guidance_scale
        if wish.negative_prompt is not None and guide == 1 and not terms:
            raise ValueError(
                f"negative_prompt {wish.negative_prompt[:40]!r} does nothing at guidance_scale=1; "
                "set sample.guidance_scale above it"
            )
        if wish.prompt is not None or together or told or not terms:
            asked.append((1.0, self.condition(wish.prompt, together, told)))
        asked += [(strength, self.condition(None, (label,), {})) for strength, label in terms]
        weights, plain = guidance.cfg_weights([strength for strength, _ in asked], guide)
        each = [self.condition(wish.negative_prompt, (), {}), *(c for _, c in asked)]
        made = list(zip(each, weights, plain, strict=True))
        if not self.with_plain:
            made = [(condition, weight, weight) for condition, weight, _ in made]
        return [branch for branch in made if branch[1] or branch[2]]

    def condition(self, text, labels, told):
        """The Condition of one item, without a batch axis."""
        v = self.vocabulary
        made = Condition()
        if text is not None and not labels and self.reader:
            labels = self.named(text)
        if v.labels:
            asked = np.array([label in labels for label in v.labels], np.float32)
            made = made._replace(labels=asked)
        if v.scalars:
            made = made._replace(scalars=conditions.numbers(v, told))
        if text is not None and not v.text:
            raise ValueError(
                f"prompt {text[:40]!r}: this checkpoint was trained without text (condition.text);"
                + (" ask by labels" if v.labels else " it takes no prompt")
            )
        if v.text:
            tokens, mask, pooled = self.text(text)
            made = made._replace(tokens=tokens, mask=mask, pooled=pooled)
        return made

    def text(self, text):
        """Features of one text, or of none: (tokens [S, E], mask [S], pooled [P])."""
        about = self.vocabulary.text
        if text is None:
            size, width = about["max_tokens"], about["width"]
            empty = np.zeros((size, width), np.float16), np.zeros(size, bool)
            return *empty, np.zeros(about["pooled_width"], np.float32)
        if text not in self.texts:
            self.learn([text])
        return self.texts[text]

    def named(self, text):
        """The labels that a text names, told once."""
        if text not in self.names:
            self.names[text] = label_reader.infer_labels(self.reader, self.text(text)[2])
            if self.names[text]:
                self.tell(f"prompt {text[:60]!r} names {', '.join(self.names[text])}")
        return self.names[text]

    def learn(self, texts):
        """Encodes new texts, all at once."""
        about = self.vocabulary.text
        size = about["max_tokens"]
        new = {text: features.clean_text(text) for text in texts if text not in self.texts}
        if not new:
            return
        self.encoder = self.encoder or load_text_encoder(about)
        found = self.encoder.encode(list(new.values()), size)
        for row, (text, plain) in enumerate(new.items()):
            self.texts[text] = found.tokens[row], found.mask[row], found.pooled[row]
            if plain != " ".join(text.split()):
                self.tell(f"prompt: control characters are left out of {plain[:60]!r}")
            if (end := found.truncated[row]) is not None:
                last = plain[max(0, end - 40) : end]
                self.tell(f"prompt: only {size} tokens are read; cut after {last!r}")

    def room(self, wishes):
        """K, the branches of the Wish with the most of them; their texts are encoded at once."""
        if self.vocabulary.text:
            said = [text for wish in wishes for text in (wish.prompt, wish.negative_prompt)]
            self.learn([text for text in said if text is not None])
        return max(len(self.branches(wish)) for wish in wishes)

    def __call__(self, wishes, count=None):
        """(conditions [K, B, ...], weights [K, B], plain [K, B]) of B Wishes.

        Args:
          count: K; where unset as many as the Wish with the most branches has.
        """
        made = [self.branches(wish) for wish in wishes]
        count = count or max(map(len, made))
        nothing = (self.condition(None, (), {}), 0.0, 0.0)
        made = [branches + [nothing] * (count - len(branches)) for branches in made]
        stack = lambda parts: None if parts[0] is None else np.stack(parts)
        rows = [
            Condition(*map(stack, zip(*(item[k][0] for item in made), strict=True)))
            for k in range(count)
        ]
        weights, plain = (
            np.array([[item[k][part] for item in made] for k in range(count)], np.float32)
            for part in (1, 2)
        )
        return Condition(*map(stack, zip(*rows, strict=True))), weights, plain


def load_text_encoder(about):
    """The text encoder that a model was trained with.

    Raises:
      ValueError: it is not to be had, or its weights are others.
    """
    encoder = text_encoders.load(about["name"], about["revision"])
    if encoder.sha256 != about["sha256"]:
        raise ValueError(
            f"text encoder {about['name']!r} has weights {encoder.sha256[:12]}, the checkpoint was "
            f"trained with {about['sha256'][:12]} (revision {about['revision']}); install that one"
        )
    return encoder


def parse_labels(text, vocabulary):
    """(labels asked for together, ((strength, label), ...)) of a text as this file's head says."""
    if not vocabulary.labels:
        raise ValueError(f"labels {text!r}: this checkpoint was trained without condition.labels")
    together, terms = [], []
    for part in filter(None, map(str.strip, BETWEEN.split(text))):
        sign, factor, name = TERM.fullmatch(part).groups()
        label = find_label(name.strip(), vocabulary.labels)
        if sign or factor:
            terms.append((float(factor or 1) * (-1 if sign == "-" else 1), label))
        else:
            together.append(label)
    if not together and not terms:
        raise ValueError("labels: the text is empty; name some, or leave it out")
    return tuple(together), tuple(terms)


def parse_scalars(text, vocabulary):
    """{name: value} of "tempo=120, start=0"."""
    told = {}
    for part in filter(None, re.split(r"[,;\s]+", text.strip())):
        name, _, value = part.partition("=")
        if not vocabulary.scalars:
            raise ValueError(f"numbers {text!r}: this checkpoint was trained without any")
        choose(dict.fromkeys(vocabulary.scalars), "number", name)
        try:
            told[name] = float(value)
            conditions.UNITS[name](told[name])
        except ValueError as error:
            raise ValueError(
                f"numbers: {part!r} is not a name and a value; try tempo=120"
            ) from error
    if not told:
        raise ValueError("numbers: the text is empty; write tempo=120, or leave it out")
    return told
