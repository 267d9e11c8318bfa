"""--mode=train, and the one loop of every training: `fit` a job, from its data to checkpoints."""

import pathlib
import signal
import time

import jax
import numpy as np

from specdiff_jax.runtime import distributed, mesh
from specdiff_jax.runtime.files import write_json
from specdiff_jax.runtime.logs import log, open_logs
from specdiff_jax.runtime.profiler import Profile
from specdiff_jax.training import checkpoints, optimizers
from specdiff_jax.training.diffusion_job import DiffusionJob

INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


def run(config):
    """Train from the newest good checkpoint, or from the start, to the last step."""
    with mesh.enter(config):
        fit(DiffusionJob(config))


def fit(job):
    """Train a job until its last step, or until its validation has seen enough.

    Args:
      job: has config, rep and num_steps; start() and restore(step) -> TrainState; feed(dispatches),
        train_step() and validation(step), whose result is called as (state, step, logs) and returns
        whether to stop, and whose stopped() says that it has; and to_dict().
    """
    config = job.config
    step = checkpoints.newest_good(config.workdir)
    if step is None:
        state, step = job.start(), 0
    else:
        state = job.restore(step)
        log(f"resumed from the checkpoint of step {step}")
    write_json(pathlib.Path(config.workdir) / "config.json", config.to_dict())
    if step >= job.num_steps:
        log(f"all {job.num_steps} steps are done already")
        return
    validate = job.validation(step)
    if validate.stopped():
        return
    with open_logs(config.workdir, step, job.num_steps) as logs, Interrupts() as interrupts:
        loop(job, state, step, logs, validate, interrupts)


def loop(job, state, step, logs, validate, interrupts):
    """Dispatch steps, read their metrics one dispatch late, validate and save in between."""
    t = job.config.train
    writer = checkpoints.Writer(job.config.workdir, t.max_to_keep)
    every = t.steps_per_dispatch
    dispatches = [(i, min(every, job.num_steps - i)) for i in range(step, job.num_steps, every)]
    resident, batches = job.feed(dispatches)
    rates = optimizers.learning_rates(job.config, job.num_steps)
    train_step, profile = job.train_step(), Profile(job.config, len(dispatches))
    waiting, clock = None, time.perf_counter()
    for (first, count), batch in zip(dispatches, batches, strict=True):
        steps = np.arange(first, first + count, dtype=np.int32)
        profile.before(first, count, state)
        state, metrics = train_step(state, resident, steps, batch)
        if waiting:
            clock = record(job, logs, *waiting, clock)
        metrics |= {"learning_rate": rates[first : first + count]}
        waiting, step = (first, count, metrics), first + count
        # Read once: a signal may come at any line.
        caught = interrupts.at(step, t.eval_every, metrics)
        last, stop = step == job.num_steps or caught, False
        if last or step % t.eval_every == 0 or step % t.checkpoint_every == 0:
            clock = record(job, logs, *waiting, clock)
            waiting = None
            if step == job.num_steps or step % t.eval_every == 0:
                stop = validate(state, step, logs)
            if last or stop or step % t.checkpoint_every == 0:
                writer.save(state, job.to_dict())
            clock = time.perf_counter()
        if caught:
            writer.finish()
            log(f"stopped at step {step}, saved; the same command resumes from here")
            raise SystemExit(128 + caught)
        if stop:
            break
    profile.close()
    writer.finish()


def record(job, logs, first, count, metrics, clock):
    """Log one dispatch as one line and return the time now; stop the run if it broke.

    Raises:
      ValueError: a loss or a gradient is not finite.
    """
    metrics = jax.device_get(metrics)  # waits for the dispatch
    now = time.perf_counter()
    finite = metrics.pop("finite") > 0
    if not finite.all():
        bad = int(np.argmin(finite))
        raise ValueError(
            f"non-finite loss or gradient at step {first + bad + 1} (loss {metrics['loss'][bad]}, "
            f"grad_norm {metrics['grad_norm'][bad]}); parameters untouched, earlier checkpoints "
            "kept; lower optimizer.learning_rate or set optimizer.clip_norm"
        )
    rate = count / (now - clock)
    seconds = job.config.train.batch_size * job.rep.samples / job.rep.sample_rate
    values = {name: float(np.mean(value)) for name, value in metrics.items()}
    values |= {"steps_per_second": rate, "audio_per_second": rate * seconds}
    logs.write("train", first + count, values)
    logs.advance(first + count, values["loss"], rate * seconds)
    return now


class Interrupts:
    """Turns the first Ctrl-C or SIGTERM into `caught`, the signal's number; a second one kills."""

    caught = 0

    def __enter__(self):
        self.previous = {number: signal.signal(number, self.catch) for number in INTERRUPTS}
        return self

    def at(self, step, every, dispatched):
        """Return the signal to act on after a step. All processes agree, every so many steps.

        They wait for what is dispatched: two programs that both call collectives can deadlock.
        """
        if distributed.is_single_process():
            return self.caught
        if step % every:
            return 0
        jax.block_until_ready(dispatched)
        return distributed.max_over_processes(self.caught)

    def catch(self, number, frame):
        self.caught = number
        signal.signal(number, self.previous[number])
        log(f"caught signal {number}: saving at the end of this dispatch")

    def __exit__(self, *_):
        for number, handler in self.previous.items():
            signal.signal(number, handler)
