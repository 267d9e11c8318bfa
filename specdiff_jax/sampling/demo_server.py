"""Clips on request: what the page of --mode=demo needs of a checkpoint, without the page.

One request runs at a time, a batch at a time. A request can be stopped at every evaluation of the
network.
"""

import dataclasses
import pathlib
import tempfile
import threading
import time
import traceback

from specdiff_jax.conditioning import prompts
from specdiff_jax.config.fields import set_fields
from specdiff_jax.diffusion.samplers import count_nfe
from specdiff_jax.sampling import generator, sample, sidecars
from specdiff_jax.sampling.demo_fields import parse_request, read_upload

LIMITS = {"num_samples": "max_clips", "nfe": "max_nfe", "seconds": "max_seconds"}
NUM_SEEDS = 2**31


class Stopped(Exception):
    """Raised where a request was stopped from the page."""


@dataclasses.dataclass
class Request:
    """A request in progress: network evaluations so far, its clips, and the event to stop it."""

    total: int = 0  # evaluations of the network; 0 until it is computed
    done: int = 0
    clips: list = dataclasses.field(default_factory=list)  # WAVs; .png and .json lie beside
    notes: list = dataclasses.field(default_factory=list)  # lines on how prompts were read
    error: str | None = None  # why clips are missing, in one line
    start_time: float | None = None  # time.monotonic() of the first evaluation
    stopped: threading.Event = dataclasses.field(default_factory=threading.Event)
    thread: threading.Thread | None = None

    def count_evaluation(self):
        """Count an evaluation of the network and return whether to go on."""
        self.start_time = self.start_time or time.monotonic()
        self.done += 1
        return not self.stopped.is_set()

    def seconds_left(self):
        """Return the remaining seconds at the rate so far, None before two evaluations."""
        if self.done < 2 or not self.total:
            return None
        seconds_each = (time.monotonic() - self.start_time) / (self.done - 1)
        return seconds_each * (self.total - self.done)

    def raise_if_stopped(self):
        """Raise Stopped where the request was stopped."""
        if self.stopped.is_set():
            raise Stopped("Stopped.")


class DemoServer:
    """A trained model that runs the requests of a page, one at a time."""

    def __init__(self, config):
        """Load the checkpoint.

        Raises:
          ValueError: there is none, or a field of the config would not be used.
        """
        refuse_unused(config)
        self.limits, self.initial = config.demo, config.sample
        self.model, _ = sample.load_for_sampling(config)
        self.folder = self.model.workdir.absolute() / "demo"
        self.lock, self.request = threading.Lock(), None
        self.programs, self.encoder = generator.ProgramCache(self.count_evaluation), None

    def count_evaluation(self):
        """Count a network evaluation of the running request; return whether to continue."""
        return self.request.count_evaluation()

    def start(self, fields):
        """Return the Request of a page's fields (see `parse_request`), started in a thread."""
        request = Request()
        request.thread = threading.Thread(target=self.run, args=(request, fields), daemon=True)
        request.thread.start()
        return request

    def run(self, request, fields):
        """Run a request; an error becomes a line in `request.error`."""
        try:
            self.generate(request, *parse_request(fields))
        except (ValueError, OSError, Stopped) as error:
            request.error = " ".join(str(error).split())
        except Exception as error:  # a bug, not a mistake of the visitor
            traceback.print_exc()
            request.error = f"this failed ({type(error).__name__}); see the terminal"

    def generate(self, request, settings, edit_fields=None):
        """Write the clips of a request into a new folder and add them to `request.clips`.

        Args:
          settings: {field of config.sample: value} that replace the initial ones.
          edit_fields: {field of config.edit: value} with the upload as its file.

        Raises:
          ValueError: a field is wrong or beyond a limit; in one line.
          Stopped: `request.stopped` was set.
        """
        model, rep_out = self.with_settings(settings)
        s = model.config.sample
        (prompt,) = prompts.read_prompts(s)
        with self.lock:
            request.raise_if_stopped()
            self.request, folder = request, self.make_folder()
            edit = edit_fields and read_upload(edit_fields, rep_out, folder, self.limits)
            encode_prompts = generator.prompt_encoder(
                model, encoder=self.encoder, log=request.notes.append
            )
            parts = {"program": self.programs.get(model, rep_out), "encode_prompts": encode_prompts}
            generate = generator.Generator(model, rep_out, [prompt], **parts)
            self.encoder = encode_prompts.encoder
            batches = generator.list_clips([prompt], s)
            request.total = len(batches) * count_nfe(s.sampler, s.nfe)
            for batch in batches:
                waves = generate(batch, edit)
                request.raise_if_stopped()
                request.clips += sidecars.write_clips(model, edit, batch, waves, generate, folder)

    def with_settings(self, settings):
        """Return (TrainedModel, Representation of its clips) with checked sample settings."""
        s = self.initial.copy_and_resolve_references()
        s.update(settings)
        for name, limit in LIMITS.items():
            if s[name] is not None and not 0 < s[name] <= self.limits[limit]:
                raise ValueError(
                    f"{name}={s[name]} is not above 0 and at most demo.{limit}={self.limits[limit]}"
                )
        if not 0 <= s.seed < NUM_SEEDS:
            raise ValueError(f"seed={s.seed} is not at least 0 and below {NUM_SEEDS}")
        model = generator.with_settings(self.model, settings)
        return model, generator.lengthen(model.config, model.rep)

    def make_folder(self):
        """Create and return the folder of one request's clips."""
        self.folder.mkdir(parents=True, exist_ok=True)
        prefix = time.strftime("%Y%m%d-%H%M%S-")
        return pathlib.Path(tempfile.mkdtemp(prefix=prefix, dir=self.folder))


def refuse_unused(config):
    """Raise ValueError where the page would ignore a field of the config."""
    for name in set_fields(config.edit):
        raise ValueError(f"edit.{name} is not used by --mode=demo; choose on the page")
    if config.sample.prompts is not None:
        raise ValueError("sample.prompts is not used by --mode=demo; set sample.prompt")
    for name, value in config.demo.items():
        if name != "host" and not value > 0:
            raise ValueError(f"demo.{name}={value} is not above 0")
