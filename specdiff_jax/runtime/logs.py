"""Where a run's numbers go: metrics.jsonl, TensorBoard and a progress bar."""

import json
import pathlib
import sys

import numpy as np
import tensorboardX
import tqdm

muted = False  # in every process of a job but the first


def mute():
    """From here on nothing is said or logged: another process of the job does."""
    global muted
    muted = True


def log(line):
    """One line for the reader, on standard error, above any progress bar."""
    if not muted:
        tqdm.tqdm.write(line, file=sys.stderr)


class SilentLogs:
    """What `Logs` is in the other processes of a job."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def write(self, kind, step, values):
        pass

    def advance(self, step, loss, audio_per_second):
        pass


def open_logs(workdir, step, total):
    """The Logs of a run that goes on from `step` to `total`; a Mute where another process logs."""
    return SilentLogs() if muted else Logs(workdir, step, total)


class Logs:
    """Writes one run's records; a context manager."""

    def __init__(self, workdir, step, total):
        self.workdir = pathlib.Path(workdir)
        self.workdir.mkdir(parents=True, exist_ok=True)
        drop_later_lines(self.workdir / "metrics.jsonl", step)
        self.file = (self.workdir / "metrics.jsonl").open("a")
        self.board = tensorboardX.SummaryWriter(str(self.workdir / "tensorboard"), purge_step=step)
        self.bar = tqdm.tqdm(
            total=total, initial=step, unit="step", desc="train", smoothing=0.2, dynamic_ncols=True
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.bar.close()
        self.file.close()
        self.board.close()

    def write(self, kind, step, values):
        """One line of metrics.jsonl; its numbers also as TensorBoard scalars."""
        self.file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        self.file.flush()
        for name, value in values.items():
            if np.isscalar(value):
                self.board.add_scalar(f"{kind}/{name}", value, step)

    def advance(self, step, loss, audio_per_second):
        """Moves the progress bar, which shows steps/s and time left itself."""
        self.bar.set_postfix_str(f"loss {loss:.4f}, {audio_per_second:.0f} s audio/s", False)
        self.bar.update(step - self.bar.n)


def drop_later_lines(path, step):
    """Drops the lines a resumed run will write again: later steps, and a torn last line."""
    if not path.exists():
        return
    kept = []
    for line in path.read_bytes().splitlines():
        try:
            record = json.loads(line)
        except ValueError:  # torn, perhaps inside a character
            break
        if record["step"] <= step:
            kept.append(line + b"\n")
    path.write_bytes(b"".join(kept))


def add_clip(workdir, step, name, wave, sample_rate, picture):
    """A clip's sound and spectrogram picture ([H, W, 3] uint8) to TensorBoard."""
    with tensorboardX.SummaryWriter(str(pathlib.Path(workdir) / "tensorboard")) as board:
        mono = np.clip(np.atleast_2d(wave).mean(axis=0), -1, 1)
        board.add_audio(name, mono, step, sample_rate)
        board.add_image(name, picture, step, dataformats="HWC")
