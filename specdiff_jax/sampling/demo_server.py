"""Clips to order: what a page needs of a checkpoint, without the page.

One order at a time, a batch at a time; the word to stop is heard at every evaluation of the
network.
"""

import dataclasses
import pathlib
import shutil
import tempfile
import threading
import time
import traceback

from specdiff_jax.audio import files
from specdiff_jax.conditioning import prompts
from specdiff_jax.config.fields import choose, set_fields
from specdiff_jax.diffusion.samplers import count_nfe
from specdiff_jax.sampling import check_config, edits, generator, sample, sidecars

LIMITS = {"num_samples": "max_clips", "nfe": "max_nfe", "seconds": "max_seconds"}
NUM_SEEDS = 2**31
MAX_PROGRAMS = 8  # compiled ones to keep
DATA_FIELDS = (
    *prompts.FIELDS,
    "guidance_scale",
    "seed",
    "num_samples",
)  # of config.sample: a program takes any
SHAPE_FIELDS = (
    "nfe",
    "time_grid",
    "batch_size",
    "seconds",
)  # what jit compiles again for by itself


class Stopped(Exception):
    """The order was given up, as its owner said."""


@dataclasses.dataclass
class Request:
    """An order under way: how far it is, what came of it, and the word to stop."""

    total: int = 0  # evaluations of the network; 0 until they are known
    done: int = 0
    clips: list = dataclasses.field(default_factory=list)  # WAVs; .png and .json lie beside
    notes: list = dataclasses.field(default_factory=list)  # what was not done quite as asked
    error: str | None = None  # why there are not all clips, in one line
    began: float | None = None  # time.monotonic() of the first evaluation
    stopped: threading.Event = dataclasses.field(default_factory=threading.Event)
    thread: threading.Thread | None = None

    def tick(self):
        """Another evaluation; returns whether to go on."""
        self.began = self.began or time.monotonic()
        self.done += 1
        return not self.stopped.is_set()

    def seconds_left(self):
        """At the pace so far; None before that is known."""
        if self.done < 2 or not self.total:
            return None
        pace = (time.monotonic() - self.began) / (self.done - 1)
        return pace * (self.total - self.done)

    def check(self):
        """Raises Stopped where that was said."""
        if self.stopped.is_set():
            raise Stopped("Stopped.")


class DemoServer:
    """A checkpoint that takes orders."""

    def __init__(self, config):
        """Loads it.

        Raises:
          ValueError: there is none, or a field of the config would not be used.
        """
        refuse_unused(config)
        self.limits, self.begin = config.demo, config.sample
        self.trained, _ = sample.load_for_sampling(config)
        self.folder = self.trained.workdir.absolute() / "demo"
        self.one_at_a_time, self.job = threading.Lock(), None
        self.programs, self.encoder = {}, None

    def start(self, told):
        """The Job of a page's fields (see `ordered`), under way in a thread of its own."""
        job = Request()
        job.thread = threading.Thread(target=self.attempt, args=(job, told), daemon=True)
        job.thread.start()
        return job

    def attempt(self, job, told):
        """Makes an order; what goes wrong is a line in `job.error`."""
        try:
            self.make(job, *parse_request(told))
        except (ValueError, OSError, Stopped) as error:
            job.error = " ".join(str(error).split())
        except Exception as error:  # ours, not the visitor's
            traceback.print_exc()
            job.error = f"this failed ({type(error).__name__}); the terminal says where"

    def make(self, job, wanted, edit=None):
        """Writes the clips of an order into a folder of its own and names them in `job.clips`.

        Args:
          wanted: {field of config.sample: value}, what is not as it begins.
          edit: {field of config.edit: value} with the upload as its file.

        Raises:
          ValueError: it cannot be made, or lies beyond a limit; in one line.
          Stopped: `job.stopped` was set.
        """
        trained, rep_out = self.told(wanted)
        s = trained.config.sample
        (wish,) = prompts.read_prompts(s)
        with self.one_at_a_time:
            job.check()
            self.job, folder = job, self.new_folder()
            change = edit and read_upload(edit, rep_out, folder, self.limits)
            ask = generator.prompt_encoder(trained, encoder=self.encoder, log=job.notes.append)
            program = self.program(trained, rep_out)
            generate = generator.Generator(
                trained, rep_out, [wish], program=program, encode_prompts=ask
            )
            self.encoder = ask.encoder
            batches = generator.list_clips([wish], s)
            job.total = len(batches) * count_nfe(s.sampler, s.nfe)
            for batch in batches:
                waves = generate(batch, change)
                job.check()
                job.clips += sidecars.write_clips(trained, change, batch, waves, generate, folder)

    def told(self, wanted):
        """(Trained, Representation of its clips) with the wishes of an order, checked."""
        config = self.trained.config.copy_and_resolve_references()
        config.sample.update(wanted)
        s = config.sample
        for name, limit in LIMITS.items():
            if s[name] is not None and not 0 < s[name] <= self.limits[limit]:
                raise ValueError(
                    f"{name}={s[name]} is not above 0 and at most demo.{limit}={self.limits[limit]}"
                )
        if not 0 <= s.seed < NUM_SEEDS:
            raise ValueError(f"seed={s.seed} is not at least 0 and below {NUM_SEEDS}")
        s.batch_size = min(s.batch_size, s.num_samples)
        check_config.check(config)
        trained = dataclasses.replace(self.trained, config=config)
        return trained, generator.lengthen(config, trained.rep)

    def program(self, trained, rep_out):
        """What XLA runs for an order; the same one for orders that differ in data alone."""
        settings = set_fields(trained.config.sample, *DATA_FIELDS, *SHAPE_FIELDS)
        key = (rep_out.frames, *map(str, settings.items()))
        if key not in self.programs:
            while len(self.programs) >= MAX_PROGRAMS:
                del self.programs[next(iter(self.programs))]
            tick = lambda: self.job.tick()
            self.programs[key] = generator.sampling_program(trained, rep_out, tick)
        return self.programs[key]

    def new_folder(self):
        """Where one order's clips go."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return pathlib.Path(
            tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=self.folder)
        )


def refuse_unused(config):
    """Raises ValueError where the page would ignore a field of the config."""
    for name in set_fields(config.edit):
        raise ValueError(f"edit.{name} is not used by --mode=demo; choose on the page")
    if config.sample.prompts is not None:
        raise ValueError("sample.prompts is not used by --mode=demo; it begins with sample.prompt")
    for name, value in config.demo.items():
        if name != "host" and not value > 0:
            raise ValueError(f"demo.{name}={value} is not above 0")


def read_upload(fields, rep_out, folder, limits):
    """The edits.Edit of an upload, of which a copy is kept beside the clips: replay needs it.

    Raises:
      ValueError: no upload, one beyond a limit or no sound, or a change that cannot be.
    """
    if "file" not in fields:
        raise ValueError(f"{fields['kind']} needs a sound file; upload one")
    upload = pathlib.Path(fields["file"])
    check_upload(upload, limits)
    kept = folder / f"upload{upload.suffix.lower()}"
    shutil.copyfile(upload, kept)
    try:
        return edits.make_edit(fields | {"file": str(kept)}, rep_out, "")
    except ValueError as error:
        raise ValueError(str(error).replace(str(kept), upload.name)) from error


def check_upload(path, limits):
    """Raises ValueError naming a file that is no sound, or larger or longer than allowed."""
    if path.suffix.lower() not in files.SUFFIXES:
        raise ValueError(
            f"{path.name} is not one of {', '.join(files.SUFFIXES)}; send a sound file"
        )
    megabytes = path.stat().st_size / 1e6
    if megabytes > limits.max_upload_mb:
        raise ValueError(
            f"{path.name} has {megabytes:.1f} MB, demo.max_upload_mb allows {limits.max_upload_mb}"
        )
    try:
        sound = files.Sound(str(path))
    except ValueError as error:
        raise ValueError(f"{path.name} is {error}") from error
    sound.file.close()
    seconds = sound.claimed / sound.sample_rate
    if seconds > limits.max_upload_seconds:
        raise ValueError(
            f"{path.name} lasts {seconds:.0f} s, demo.max_upload_seconds allows "
            f"{limits.max_upload_seconds:.0f}"
        )


def parse_request(told):
    """(fields of config.sample, fields of config.edit or None) of what a page holds.

    Blanks are unset. `labels` is a list, `algebra` a text of more of them, `numbers` a dict.

    Raises:
      ValueError: fields that need each other.
    """
    written = lambda name: told.get(name) or None
    labels = ", ".join([*told.get("labels", ()), *filter(None, [written("algebra")])])
    said = {k: parse_number(k, v) for k, v in told.get("scalars", {}).items()}
    numbers = ", ".join(f"{name}={value}" for name, value in said.items() if value is not None)
    asked = {"prompt": written("prompt"), "labels": labels or None, "scalars": numbers or None}
    if written("negative_prompt") and not any(asked.values()):
        raise ValueError("a negative prompt needs something that is asked for beside it")
    wanted = asked | {
        "negative_prompt": written("negative_prompt"),
        "seconds": parse_number("length", told.get("seconds")),
    }
    wanted |= {name: int(told[name]) for name in ("nfe", "seed", "num_samples")}
    wanted |= {name: told[name] for name in ("sampler", "time_grid")}
    if any(asked.values()):
        interval = told["interval_low"], told["interval_high"]
        wanted |= {"guidance_scale": told["guidance_scale"], "guidance_rescale": written("rescale")}
        wanted |= {"guidance_interval": None if interval == (0, 1) else interval}
    else:
        wanted |= dict.fromkeys(("guidance_scale", "guidance_rescale", "guidance_interval"))
    return wanted, parse_edit(told)


def parse_edit(told):
    """Fields of config.edit, or None for a clip that is new."""
    pair = lambda name, *ends: parse_range(name, *(parse_number(name, end) for end in ends))
    own = {
        "new": lambda: {},
        "variation": lambda: {"strength": told["strength"]},
        "inpaint": lambda: {
            "seconds": pair("seconds", told["first"], told["last"]),
            "hertz": pair("hertz", told["low"], told["high"]),
        },
        "continuation": lambda: {"prefix_seconds": told["prefix"]},
    }
    kind = told["kind"]
    fields = choose(own, "kind", kind)()
    if kind == "new":
        return None
    whole = {"kind": kind, "file": told["upload"], "offset": told["offset"] or 0.0} | fields
    return {name: value for name, value in whole.items() if value is not None}


def parse_range(name, low, high):
    """A range, None of two blanks, ValueError of one."""
    if low is None and high is None:
        return None
    if low is None or high is None:
        raise ValueError(f"{name}: fill in both ends, or none")
    return low, high


def parse_number(name, text):
    """A float of what was typed, None of a blank."""
    if text is None or not str(text).strip():
        return None
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"{name}: {text!r} is not a number") from error
