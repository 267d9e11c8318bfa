"""--mode=train: from prepared songs to checkpoints.

wave [B, N] -> stft -> encode: x_0 [B, F, T, C] -> q_sample: x_t -> DiT -> target -> mse -> loss
"""

import pathlib
import signal
import time

import jax
import numpy as np

from specdiff_jax.runtime import distributed, mesh
from specdiff_jax.runtime.logs import open_logs, say, write_json
from specdiff_jax.runtime.profiler import Profile
from specdiff_jax.training import checkpoints, optimizers, validation
from specdiff_jax.training.diffusion_job import Run

INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


def run(config):
    """Trains from the newest good checkpoint, or from the start, to the last step."""
    with mesh.entered(config):
        trained(Run(config))


def trained(job):
    config = job.config
    step = checkpoints.newest_good(config.workdir)
    if step is None:
        state, step = job.begin(), 0
    else:
        state = job.restore(step)
        say(f"resumed from the checkpoint of step {step}")
    write_json(pathlib.Path(config.workdir) / "config.json", config.to_dict())
    if step >= job.num_steps:
        say(f"all {job.num_steps} steps are done already")
        return
    say("health: fitting the linear denoisers that the model must beat")
    health_check = HealthCheck(job)
    with open_logs(config.workdir, step, job.num_steps) as logs, Interrupts() as interrupts:
        loop(job, state, step, logs, health_check, interrupts)


def loop(job, state, step, logs, validate, interrupts):
    """Dispatches steps, reads their metrics one dispatch late, validates and saves in between.

    Args:
      job: what has config, rep, num_steps, feed, train_step and to_dict, as a Run has.
      validate: (state, step, logs) -> whether to stop here.
    """
    t = job.config.train
    writer = checkpoints.Writer(job.config.workdir, t.keep)
    every = t.steps_per_dispatch
    dispatches = [(i, min(every, job.num_steps - i)) for i in range(step, job.num_steps, every)]
    held, batches = job.feed(dispatches)
    rates = optimizers.learning_rates(job.config, job.num_steps)
    train_step, profile = job.train_step(), Profile(job.config, len(dispatches))
    waiting, clock = None, time.perf_counter()
    for (first, count), batch in zip(dispatches, batches, strict=True):
        steps = np.arange(first, first + count, dtype=np.int32)
        profile.before(first, count, state)
        state, metrics = train_step(state, held, steps, batch)
        if waiting:
            clock = record(job, logs, *waiting, clock)
        metrics |= {"learning_rate": rates[first : first + count]}
        waiting, step = (first, count, metrics), first + count
        # Read once: a signal may come at any line.
        caught = interrupts.at(step, t.valid_every, metrics)
        last, enough = step == job.num_steps or caught, False
        if last or step % t.valid_every == 0 or step % t.checkpoint_every == 0:
            clock = record(job, logs, *waiting, clock)
            waiting = None
            if step == job.num_steps or step % t.valid_every == 0:
                enough = validate(state, step, logs)
            if last or enough or step % t.checkpoint_every == 0:
                writer.save(state, job.to_dict())
            clock = time.perf_counter()
        if caught:
            writer.finish()
            say(f"stopped at step {step}, saved; the same command goes on from here")
            raise SystemExit(128 + caught)
        if enough:
            break
    profile.close()
    writer.finish()


def record(job, logs, first, count, metrics, clock):
    """Logs one dispatch as one line and returns the time now; stops the run if it broke."""
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


class HealthCheck:
    """Validates the moving average on fixed (crop, t, noise) beside the linear baselines."""

    def __init__(self, job):
        self.job = job
        self.levels = validation.level_middles(job.config.valid.levels)
        self.x0_error = job.validation(self.levels)
        self.baselines = validation.baselines(
            job.train_batches(), job.valid_batches(), job.model.patch, job.schedule, self.levels
        )

    def __call__(self, state, step, logs):
        errors = [float(e) for e in self.x0_error(state.ema_params)]
        healthy, line = validation.verdict(errors, self.baselines, step, self.job.num_steps)
        levels = self.levels.tolist()
        record = {"x0_error": float(np.mean(errors)), "x0_error_by_level": errors}
        logs.write("valid", step, record | {"levels": levels})
        report = {"step": step, "healthy": healthy, "verdict": line, "levels": levels}
        report |= {"x0_error": errors, "baselines": self.baselines}
        write_json(pathlib.Path(self.job.config.workdir) / "health.json", report)
        say(line)


class Interrupts:
    """Turns the first Ctrl-C or SIGTERM into `caught`, the signal's number; a second one kills."""

    caught = 0

    def __enter__(self):
        self.previous = {number: signal.signal(number, self.catch) for number in INTERRUPTS}
        return self

    def at(self, step, every, under_way):
        """The signal to act on after a step. Processes of one job agree, every so many steps.

        They wait for what is under way: two programs that both ask others can deadlock.
        """
        if distributed.alone():
            return self.caught
        if step % every:
            return 0
        jax.block_until_ready(under_way)
        return distributed.agreed(self.caught)

    def catch(self, number, frame):
        self.caught = number
        signal.signal(number, self.previous[number])
        say(f"caught signal {number}: saving at the end of this dispatch")

    def __exit__(self, *_):
        for number, handler in self.previous.items():
            signal.signal(number, handler)
