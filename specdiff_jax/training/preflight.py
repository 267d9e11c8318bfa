"""--mode=preflight: what a run will cost, measured before it starts. Training prints it first."""

import dataclasses
import pathlib
import shutil
import time

import jax
import numpy as np

from specdiff_jax.models.dit import count_flops, count_tokens
from specdiff_jax.runtime import distributed, mesh, provenance, roofline, xla_options
from specdiff_jax.runtime.files import write_json
from specdiff_jax.runtime.logs import log
from specdiff_jax.training.diffusion_job import DiffusionJob

MAX_TIMED_SECONDS = 20.0  # a longer dispatch is timed once
SLOW_HOURS = 0.5  # of a CPU run: a longer one gets advice


def run(config, json_path=None):
    """Log the facts, write them to workdir/preflight.json, and refuse a disk that is too small.

    Args:
      json_path: also write the facts there.
    """
    with mesh.enter(config):
        facts = measure(DiffusionJob(config))
    lines = describe(facts, config)
    for line in lines:
        log(line)
    workdir = pathlib.Path(config.workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    for path in filter(None, (workdir / "preflight.json", json_path)):
        write_json(path, facts | {"lines": lines})
    if facts["disk_needed_bytes"] > facts["disk_free_bytes"]:
        raise ValueError(
            f"workdir={workdir} needs {facts['disk_needed_bytes'] / 1e9:.2f} GB for checkpoints, "
            f"{facts['disk_free_bytes'] / 1e9:.2f} GB are free; free some or lower "
            "train.max_to_keep"
        )


def measure(job):
    """Return all facts as a flat dict of numbers and strings."""
    config, model = job.config, job.model
    linear, attention = count_flops(model)
    state = jax.eval_shape(job.init)
    state_bytes = size_of(state)
    clip_bytes = 2 * job.rep.samples + 500_000  # WAV, PNG and sidecar
    facts = {
        "code": provenance.code_version(),
        "device": f"{len(jax.devices())} x {jax.devices()[0].device_kind}",
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "tokens": count_tokens(job.rep.shape, model.patch),
        "forward_flops_linear": linear,
        "forward_flops_attention": attention,
        "training_flops_an_example": 3 * (linear + attention),
        "songs": len(job.songs.starts),
        "crop_seconds": job.rep.samples / job.rep.sample_rate,
        "num_steps": job.num_steps,
        "state_bytes": state_bytes,
        "disk_needed_bytes": (config.train.max_to_keep + 1) * state_bytes
        + config.sample.num_samples * clip_bytes,
        "disk_free_bytes": shutil.disk_usage(existing_parent(config.workdir)).free,
        **timing(job),
    }
    work = facts["training_flops_an_example"] * config.train.batch_size / len(jax.devices())
    rate = facts["matmul_flops_per_s"]
    return facts | {"matmul_fraction": work / facts["seconds_a_step"] / rate}


def timing(job):
    """Measure peak memory, compile seconds and seconds a step on one dispatch."""
    count = min(job.config.train.steps_per_dispatch, job.num_steps)
    state, resident, steps, batch = first_dispatch(job, count)
    log("preflight: compiling and measuring one dispatch of the training step")
    start = time.perf_counter()
    lowered = job.train_step().lower(state, resident, steps, batch)
    trace_seconds = time.perf_counter() - start  # in Python, at every start
    start = time.perf_counter()
    compiled = lowered.compile()  # by XLA, or read from the cache on disk
    compile_seconds = time.perf_counter() - start
    xla_options.release_memory()
    seconds = float("inf")
    for _ in range(2):  # the second is the warm one; a slow first is near enough
        start = time.perf_counter()
        state, metrics = compiled(state, resident, steps, batch)
        jax.block_until_ready(metrics)
        seconds = min(seconds, time.perf_counter() - start)
        steps = steps + count
        if distributed.max_over_processes(seconds > MAX_TIMED_SECONDS):  # all processes run as many
            break
    rate = roofline.measure_matmul_rate(job.model.dtype)
    return {
        "peak_bytes": roofline.peak_bytes(compiled),
        "moved_bytes": roofline.count_bytes(compiled),
        "matmul_flops_per_s": rate,
        "dtype": job.model.dtype,
        "trace_seconds": trace_seconds,
        "compile_seconds": compile_seconds,
        "seconds_a_step": seconds / count,
        "training_seconds": seconds / count * job.num_steps,
    }


def first_dispatch(job, count):
    """Return the arguments of `job.train_step()` for the first `count` steps.

    They are (state, resident, steps, batch). `job.rep` gets placeholder statistics, which are
    constants of the program.
    """
    job.rep = dataclasses.replace(job.rep, mean=np.float32(0), std=np.float32(1))
    resident, batches = job.feed([(0, count)])
    return job.init(), resident, np.arange(count, dtype=np.int32), next(batches)


def describe(facts, config):
    """Return the facts as lines for the user."""
    rate = facts["matmul_flops_per_s"]
    lines = [
        f"device: {facts['device']}; specdiff_jax {facts['code']}",
        f"parameters: {facts['parameters']:,}; tokens: {facts['tokens']:,} an example",
        f"work: {facts['training_flops_an_example'] / 1e9:,.1f} GFLOP a training example "
        f"(forward: linear layers {facts['forward_flops_linear'] / 1e9:,.1f}, attention "
        f"{facts['forward_flops_attention'] / 1e9:,.1f})",
        f"memory: state {facts['state_bytes'] / 1e9:.2f} GB, peak of the step "
        f"{facts['peak_bytes'] / 1e9:.2f} GB with the songs on the device",
        f"data: {facts['songs']} training songs, crops of {facts['crop_seconds']:.1f} s",
        f"speed: {facts['seconds_a_step']:.3f} s a step, traced in "
        f"{facts['trace_seconds']:.1f} s, compiled in {facts['compile_seconds']:.1f} s",
        f"roofline: {100 * facts['matmul_fraction']:.0f} % of the {rate / 1e9:,.0f} GFLOP/s at "
        f"which this device multiplies {facts['dtype']} matrices, measured now; a step moves "
        f"{facts['moved_bytes'] / 1e9:.2f} GB as XLA counts",
        f"time: {facts['num_steps']:,} steps, {duration(facts['training_seconds'])} in total",
        f"disk: {facts['disk_needed_bytes'] / 1e9:.2f} GB needed, "
        f"{facts['disk_free_bytes'] / 1e9:.1f} GB free",
    ]
    slow = facts["training_seconds"] > SLOW_HOURS * 3600
    if jax.default_backend() == "cpu" and slow and config.name != "tiny":
        lines.append(
            f"this is a CPU: {config.name} takes {duration(facts['training_seconds'])}; for a "
            "shorter run stop it and run\n"
            "  python -m specdiff_jax.main --config=configs/base.py:tiny"
        )
    return lines


def duration(seconds):
    """Return seconds in words: 90 s, 12 min, 3.4 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def size_of(tree):
    """Return the bytes of all arrays of a tree."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def existing_parent(path):
    """Return the nearest folder above `path`, or itself, that exists."""
    path = pathlib.Path(path).absolute()
    return path if path.exists() else existing_parent(path.parent)
