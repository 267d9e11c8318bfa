"""The prompts of a user, as Conditions and the weights that mix them.

Labels without a sign are one condition, as songs have them: "flute, church organ". A label with a
sign or a factor is a term of its own, whose score is added: "+flute -drums 1.5*fast".
"""

import dataclasses

import jax
import numpy as np

from specdiff_jax.conditioning import label_reader
from specdiff_jax.conditioning.conditioners import CONDITIONERS
from specdiff_jax.conditioning.text import TextValue
from specdiff_jax.conditioning.text_encoders.encoder import clean_text
from specdiff_jax.config import jsonl
from specdiff_jax.config.fields import choose
from specdiff_jax.diffusion import guidance
from specdiff_jax.runtime.logs import log


@dataclasses.dataclass(frozen=True)
class Prompt:
    """The conditions of one clip, in the user's words; all unset is unconditional."""

    prompt: str | None = None
    labels: str | None = None
    scalars: str | None = None
    negative_prompt: str | None = None
    guidance_scale: float | None = None  # 1 where unset
    more: tuple[tuple[str, str], ...] = ()  # (field, text) of other kinds of condition

    def set_fields(self):
        """Return the fields that are set, {name: value}."""
        fields = dataclasses.asdict(self) | dict(self.more)
        return {k: v for k, v in fields.items() if v is not None and k != "more"}


UNCONDITIONAL = Prompt()
FIELDS = ("prompt", "labels", "scalars", "negative_prompt")


def prompt_of(fields):
    """Return the Prompt of {name: value}, the inverse of `Prompt.set_fields`.

    Raises:
      ValueError: an unknown field.
    """
    for name in fields:
        choose(dict.fromkeys((*condition_fields(), "guidance_scale")), "field", name)
    own = {name: value for name, value in fields.items() if name in (*FIELDS, "guidance_scale")}
    return Prompt(**own, more=tuple((k, v) for k, v in fields.items() if k not in own))


def condition_fields():
    """Return the fields of config.sample that set a condition."""
    return tuple(dict.fromkeys((*FIELDS, *(c.field for c in CONDITIONERS.values()))))


def read_prompts(sample):
    """Return the Prompts of a config's sample section: one, or a line of sample.prompts each.

    Raises:
      ValueError: fields exclude each other, or a field of guidance has nothing to act on.
    """
    requested = {name: sample[name] for name in condition_fields() if sample.get(name) is not None}
    if sample.prompts is not None:
        if requested:
            raise ValueError(
                f"sample.prompts and sample.{next(iter(requested))} exclude each other; set one"
            )
        return read_prompt_file(sample.prompts, sample.guidance_scale)
    guided = [n for n in ("guidance_scale", "guidance_rescale", "guidance_interval") if sample[n]]
    if guided and not requested:
        raise ValueError(f"sample.{guided[0]} is not used without a prompt, labels or scalars")
    return [prompt_of(requested | {"guidance_scale": sample.guidance_scale})]


def read_prompt_file(path, guidance_scale=None):
    """Return the Prompts of a .jsonl file; `guidance_scale` where a line has none."""

    def parse_line(number, fields):
        scale = fields.pop("guidance_scale", guidance_scale)
        texts = {name: str(value) for name, value in fields.items()}
        return prompt_of(texts | {"guidance_scale": None if scale is None else float(scale)})

    return jsonl.read_objects("sample.prompts", path, parse_line, "prompt")


class PromptEncoder:
    """Prompts -> (conditions, weights, plain) for `guidance.guide`, with one text encoder."""

    def __init__(self, vocabulary, with_plain=False, infer_labels=True, encoder=None, log=log):
        """Load nothing yet; the first text loads the encoder.

        Args:
          with_plain: whether the weights without guidance matter; where they do not, conditions
            that weigh nothing with guidance are left out.
          infer_labels: whether a text without labels also requests the labels that it names.
          encoder: the TextEncoder, where it is loaded already.
          log: called with a line about every text that is not encoded as it is written.
        """
        self.vocabulary, self.with_plain = vocabulary, with_plain
        self.reader = vocabulary.reader if infer_labels else None
        self.encoder, self.log, self.texts, self.names = encoder, log, {}, {}

    def branches(self, prompt):
        """Return [(Condition of one item, weight, weight without guidance)], weights 0 left out.

        Raises:
          ValueError: the model does not take such a condition, or the prompt is malformed.
        """
        together, terms = self.parse(prompt)
        guidance_scale = 1.0 if prompt.guidance_scale is None else prompt.guidance_scale
        if prompt.negative_prompt is not None and guidance_scale == 1 and not terms:
            raise ValueError(
                f"negative_prompt {prompt.negative_prompt[:40]!r} does nothing at guidance_scale=1;"
                " set sample.guidance_scale above it"
            )
        weighted = [(1.0, together)] if together or not terms else []
        weighted = [(weight, self.condition(requests)) for weight, requests in weighted + terms]
        weights, plain = guidance.cfg_weights([weight for weight, _ in weighted], guidance_scale)
        negative = {} if prompt.negative_prompt is None else {"text": prompt.negative_prompt}
        conditions = [self.condition(negative), *(condition for _, condition in weighted)]
        branches = list(zip(conditions, weights, plain, strict=True))
        if not self.with_plain:
            branches = [(condition, weight, weight) for condition, weight, _ in branches]
        return [branch for branch in branches if branch[1] or branch[2]]

    def parse(self, prompt):
        """Return ({kind: request}, [(weight, {kind: request}), ...]) of a Prompt."""
        fields, together, terms = prompt.set_fields(), {}, []
        for kind, conditioner in CONDITIONERS.items():
            if (text := fields.get(conditioner.field)) is None:
                continue
            request, own = self.conditioner(kind, conditioner.field, text).parse(text)
            if request not in (None, ()):
                together[kind] = request
            terms += [(weight, {kind: term}) for weight, term in own]
        if prompt.negative_prompt is not None:
            self.conditioner("text", "negative_prompt", prompt.negative_prompt)
        return together, terms

    def conditioner(self, kind, field, text):
        """Return the conditioner of a kind; ValueError where the model has none."""
        if conditioner := self.vocabulary.get(kind):
            return conditioner
        takes = ", ".join(c.field for c in self.vocabulary.conditioners) or "no condition"
        raise ValueError(
            f"{field} {text[:40]!r}: this checkpoint was trained without condition.{kind}; it "
            f"takes {takes}"
        )

    def condition(self, requests):
        """Return the Condition of one item, without a batch axis, from {kind: request}."""
        if self.reader and "text" in requests and "labels" not in requests:
            requests = requests | {"labels": self.infer_labels(requests["text"])}
        return {
            c.kind: c.encode(requests.get(c.kind), self.encode_text)
            for c in self.vocabulary.conditioners
        }

    def infer_labels(self, text):
        """Return the labels that a text names, logged once."""
        if text not in self.names:
            pooled = self.encode_text(text).pooled
            self.names[text] = label_reader.infer_labels(self.reader, pooled)
            if self.names[text]:
                self.log(f"prompt {text[:60]!r} names {', '.join(self.names[text])}")
        return self.names[text]

    def encode_text(self, text):
        """Return the TextValue of one text."""
        if text not in self.texts:
            self.encode_texts([text])
        return self.texts[text]

    def encode_texts(self, texts):
        """Encode new texts, all at once."""
        size = self.vocabulary.text.max_tokens
        new = {text: clean_text(text) for text in texts if text not in self.texts}
        if not new:
            return
        self.encoder = self.encoder or self.vocabulary.text.load_encoder()
        features = self.encoder.encode(list(new.values()), size)
        for row, (text, clean) in enumerate(new.items()):
            value = features.tokens[row], features.mask[row], features.pooled[row]
            self.texts[text] = TextValue(*value)
            if clean != " ".join(text.split()):
                self.log(f"prompt: control characters are left out of {clean[:60]!r}")
            if (end := features.truncated[row]) is not None:
                last = clean[max(0, end - 40) : end]
                self.log(f"prompt: only {size} tokens are read; cut after {last!r}")

    def room(self, prompts):
        """Return K, the most branches of any Prompt; encode all their texts at once."""
        if self.vocabulary.text:
            texts = [text for p in prompts for text in (p.prompt, p.negative_prompt)]
            self.encode_texts([text for text in texts if text is not None])
        return max(len(self.branches(prompt)) for prompt in prompts)

    def __call__(self, prompts, count=None):
        """Return (conditions [K, B, ...], weights [K, B], plain [K, B]) of B Prompts.

        Args:
          count: K; where unset, the most branches of any of the Prompts.
        """
        items = [self.branches(prompt) for prompt in prompts]
        count = count or max(map(len, items))
        padding = (self.condition({}), 0.0, 0.0)
        items = [branches + [padding] * (count - len(branches)) for branches in items]
        stack = lambda *parts: np.stack(parts)
        rows = [jax.tree.map(stack, *(item[k][0] for item in items)) for k in range(count)]
        weights, plain = (
            np.array([[item[k][part] for item in items] for k in range(count)], np.float32)
            for part in (1, 2)
        )
        return jax.tree.map(stack, *rows), weights, plain
