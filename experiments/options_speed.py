"""What each model option costs a training step, and each sampler a clip, on tiny.

    python -m experiments.options_speed [--steps 20]

Steps are of random x_0 at tiny's batch; a sampler makes eight clips with 20 evaluations, from noise
to waves, compiled before. Writes results/options_speed.csv.
"""

import argparse
import dataclasses
import time

import jax
import numpy as np

from configs import base
from experiments.tables import RESULTS, write_csv
from specdiff_jax import build, optimizers, sample
from specdiff_jax.diffusion.losses import diffusion_loss
from specdiff_jax.diffusion.samplers import SAMPLERS
from specdiff_jax.state import make_train_step

OPTIONS = {
    "tiny": {},
    "pre_ln": {"block": "pre_ln"},
    "learned positions": {"positions": "learned"},
    "sincos positions": {"positions": "sincos"},
    "swiglu": {"mlp": "swiglu"},
    "rms norm": {"norm": "rms"},
    "qk norm": {"qk_norm": True},
    "bottleneck 128": {"bottleneck": 128},
    "registers 8": {"registers": 8},
    "long skips": {"long_skips": True},
    "scan": {"scan": True},
    "remat dots": {"remat": "dots"},
    "remat block": {"remat": "block"},
    "attention blockwise": {"attention": "blockwise"},
}
CLIPS, EVALUATIONS = 8, 20


def step_of(change):
    """(a function that runs one training step, compile seconds) of tiny with a change."""
    config = base.get_config("tiny")
    config.model.update(change)
    rep, schedule = build.representation(config), build.schedule(config)
    model, tx = build.model(config, rep.shape), optimizers.optimizer(config, 1000)
    goal = build.objective(config, rep, schedule)

    def loss(params, x_0, key):
        ask = build.network(config, model, params, schedule)
        return diffusion_loss(ask, x_0, key, schedule, goal)

    state = build.init(config, model, tx, rep.shape)
    x_0 = jax.random.normal(jax.random.key(1), (config.train.batch_size, *rep.shape))
    step = make_train_step(loss, tx, optimizers.averaging(config))
    start = time.perf_counter()
    step = jax.jit(step, donate_argnums=0).lower(state, 0, x_0, jax.random.key(2)).compile()
    seconds, number = time.perf_counter() - start, iter(range(10**6))

    def run():
        nonlocal state
        state, metrics = step(state, next(number), x_0, jax.random.key(2))
        jax.block_until_ready(metrics)

    return run, seconds


def options(steps):
    """Rows of all options, timed in turns so that a slow minute of the machine is everyone's."""
    made = {name: step_of(change) for name, change in OPTIONS.items()}
    times = {name: [] for name in made}
    for index in range(steps + 2):
        for name, (run, _) in made.items():
            start = time.perf_counter()
            run()
            if index >= 2:
                times[name].append(time.perf_counter() - start)
    middle = {name: float(np.median(values)) for name, values in times.items()}
    return [
        {
            "what": name,
            "seconds_a_step": round(middle[name], 4),
            "over_tiny": round(middle[name] / middle["tiny"], 3),
            "compile_seconds": round(made[name][1], 1),
        }
        for name in OPTIONS
    ]


def clips():
    """Rows of all samplers: seconds for CLIPS clips, and how much faster than they sound."""
    config, rows = base.get_config("tiny"), []
    rep = build.representation(config)
    ones = np.ones((1, rep.shape[0], 1, 1), np.float32)
    rep = dataclasses.replace(rep, mean=0 * ones - 5, std=ones)
    params = build.init(
        config, build.model(config, rep.shape), optimizers.optimizer(config, 1), rep.shape
    )
    for name in SAMPLERS:
        config.sample.update(sampler=name, grid="log_snr", steps=EVALUATIONS, batch_size=CLIPS)
        generate = sample.generator(config, rep, rep, params.params)
        generate(range(CLIPS))
        times = []
        for _ in range(3):
            start = time.perf_counter()
            generate(range(CLIPS))
            times.append(time.perf_counter() - start)
        music = CLIPS * rep.samples / rep.sample_rate
        row = {"what": f"sampler {name}", "seconds_for_8_clips": round(min(times), 3)}
        rows.append(row | {"times_real_time": round(music / min(times), 1)})
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    rows = options(parser.parse_args().steps) + clips()
    write_csv(RESULTS / "options_speed.csv", rows)
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
