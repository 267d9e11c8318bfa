"""The arms of benchmark.py, each run in a process of its own.

An arm is `f(setting, rounds, device)` -> a row or a list of rows. A setting is one of SETTINGS, or
NAME@BATCH; rounds is None for the number in SETTINGS.
"""

import dataclasses
import importlib.util
import sys
import time

import jax
import numpy as np

from configs import base, modern
from experiments.lib.stopwatch import cpu_name, peak_rss, time_steps
from specdiff_jax.conditioning import prompts
from specdiff_jax.conditioning.vocabulary import Vocabulary
from specdiff_jax.config import build
from specdiff_jax.diffusion.losses import diffusion_loss
from specdiff_jax.diffusion.samplers import SAMPLERS
from specdiff_jax.models.dit import count_tokens
from specdiff_jax.runtime import xla_options
from specdiff_jax.sampling import generator
from specdiff_jax.training import optimizers
from specdiff_jax.training.train_state import init_params, init_state, make_train_step
from specdiff_jax.training.trained_model import TrainedModel

# name: (config, frames or None for the config's, batch, timed steps)
SETTINGS = {
    "base": (base.get_config, None, 1, 3),  # 5,388,802 parameters, 8192 tokens
    "modern": (modern.get_config, None, 4, 5),  # as many parameters, 1024 tokens of 64 x 8
    "short": (base.get_config, 128, 4, 7),  # 1024 tokens
    "tiny": (lambda: base.get_config("tiny"), None, 16, 30),  # 64 tokens of 128 x 4
}
TOLERANCE = 2e-5  # of the largest output: float32 rounding through four blocks

# Changes of the model; long skips and scans need more than the two blocks of tiny.
DEEP = {"depth": 4}
OPTIONS = {
    "none": {},
    "block=pre_ln": {"block": "pre_ln"},
    "block=adaln_zero": {"block": "adaln_zero"},
    "positions=learned": {"positions": "learned"},
    "positions=sincos": {"positions": "sincos"},
    "positions=rotary": {"positions": "rotary"},
    "time_embedding=dense": {"time_embedding": "dense"},
    "time_embedding=fourier": {"time_embedding": "fourier"},
    "mlp=gelu": {"mlp": "gelu"},
    "mlp=swiglu": {"mlp": "swiglu"},
    "norm=rms": {"norm": "rms"},
    "qk_norm=False": {"qk_norm": False},
    "qk_norm=True": {"qk_norm": True},
    "bottleneck=128": {"bottleneck": 128},
    "registers=8": {"registers": 8},
    "attention=blockwise": {"attention": "blockwise"},
    "heads=2": {"heads": 2},
    "remat=dots": {"remat": "dots"},
    "remat=attention": {"remat": "attention"},
    "remat=block": {"remat": "block"},
    "depth=4": DEEP,
    "depth=4, long_skips": DEEP | {"long_skips": True},
    "depth=4, scan": DEEP | {"scan": True},
}
CLIPS, NFE, ROUNDS = 8, 20, 5


def make_job(setting, device):
    """Return (config, x_0 shape): the model of a setting, noise and optimizer of base."""
    make, frames, batch, _ = read_setting(setting)
    config, common = make(), base.get_config()
    for section in ("schedule", "diffusion", "optimizer"):
        config[section] = common[section]
    config.representation.frames = frames or config.representation.frames
    config.model.dtype = "bfloat16" if device == "cuda" else "float32"
    return config, (batch, *build.representation(config).shape)


def read_setting(setting):
    """Return (config maker, frames, batch, steps) of a setting."""
    name, _, size = setting.partition("@")
    make, frames, batch, steps = SETTINGS[name]
    return make, frames, int(size or batch), steps


def count_steps(setting, rounds):
    """Return the number of timed steps."""
    return rounds or read_setting(setting)[3]


def probe(setting, rounds, device):
    """Return the device that both frameworks use, and versions."""
    import flax
    import torch

    both = jax.default_backend() == "gpu" and torch.cuda.is_available()
    if device == "cuda" and not both:
        sys.exit("error: --device cuda needs a GPU that both JAX and PyTorch see")
    device = device or ("cuda" if both else "cpu")
    name = torch.cuda.get_device_name() if device == "cuda" else cpu_name()
    versions = {"jax": jax.__version__, "flax": flax.__version__, "torch": torch.__version__}
    return {"device": device, "device_name": name} | versions


def check(setting, rounds, device):
    """Check equal parameter counts and outputs of the two models, in float32 on the CPU."""
    import torch

    from experiments.performance import torch_dit

    config, shape = make_job(setting, "cpu")
    model = build.model(config, shape[1:])
    rng = np.random.default_rng(0)
    x_t, t = rng.standard_normal((1, *shape[1:]), np.float32), np.float32([0.3])
    params = jax.jit(model.init)(jax.random.key(0), x_t, t)["params"]
    noisy = lambda p: np.asarray(p) + 0.02 * rng.standard_normal(p.shape, np.float32)
    params = jax.tree.map(noisy, params)  # so that no parameter is zero or one
    torch_dit.copy_from_flax(twin := torch_dit.DiT(model), params)
    count = sum(p.size for p in jax.tree.leaves(params))
    assert count == sum(p.numel() for p in twin.parameters())
    assert count == 5_388_802 or not setting.startswith("base")

    ours = np.asarray(jax.jit(model.apply)({"params": params}, x_t, t)[0])
    with torch.inference_mode():
        theirs = twin(torch.from_numpy(x_t).permute(0, 3, 1, 2), torch.from_numpy(t))
    difference = np.abs(ours - theirs.permute(0, 2, 3, 1).numpy()).max() / np.abs(ours).max()
    if difference > TOLERANCE:
        sys.exit(f"error: JAX and PyTorch differ by {difference:.1e} of the largest output")
    return {"relative_error": float(difference)}


def train_step(config, shape, count=1):
    """Return (f(index), facts for its row): the train step of the package on random x_0.

    Args:
      count: steps in one program, as train.steps_per_dispatch; f's index counts programs.
    """
    model, tx = build.model(config, shape[1:]), optimizers.optimizer(config, steps=1)
    schedule = build.schedule(config)
    objective = build.objective(config, build.representation(config), schedule)

    def loss(params, x_0, key):
        predict = build.denoiser(config, model, params, schedule).predict
        return diffusion_loss(predict, x_0, key, schedule, objective)

    state = init_state(init_params(model, config.seed), tx)
    facts = {"parameters": sum(p.size for p in jax.tree.leaves(state.params))}
    x_0, key = jax.random.normal(jax.random.key(1), shape), jax.random.key(2)
    step = make_train_step(loss, tx, optimizers.ema_update(config))

    def run_steps(state, steps, x_0, key):
        return jax.lax.scan(lambda state, index: step(state, index, x_0, key), state, steps)

    start = time.perf_counter()
    jitted = jax.jit(run_steps, donate_argnums=0, compiler_options=xla_options.compiler_options())
    program = jitted.lower(state, np.arange(count), x_0, key).compile()
    facts |= {"compile_s": time.perf_counter() - start}
    xla_options.release_memory()

    def run(index):
        nonlocal state
        state, metrics = program(state, count * index + np.arange(count), x_0, key)
        assert jax.block_until_ready((state, metrics))[1]["finite"].all()

    return run, facts | describe(model, shape)


def describe(model, shape):
    """Return the columns of a row that describe the step."""
    tokens = count_tokens(model.shape, model.patch)
    return {"tokens": tokens, "batch": shape[0], "dtype": model.dtype}


def jax_arm(setting, rounds, device):
    """Return the row of the step as training dispatches it, with its peak memory."""
    before, (config, shape) = peak_rss(), make_job(setting, device)
    count = config.train.steps_per_dispatch
    run, facts = train_step(config, shape, count)
    dispatches, others = time_steps({"": run}, max(3, count_steps(setting, rounds) // count))
    seconds = [dispatch / count for dispatch in dispatches[""]]
    memory = jax.devices()[0].memory_stats() if device == "cuda" else None
    peak = memory["peak_bytes_in_use"] if memory else peak_rss() - before
    return facts | {"seconds": seconds, "other_cores": others, "peak_gb": peak / 1e9}


def torch_arm(setting, rounds, device, compiled=False):
    """Return the row of the same step of the PyTorch twin."""
    from experiments.performance import torch_dit

    config, shape = make_job(setting, device)
    model = build.model(config, shape[1:])
    make, steps = lambda: torch_dit.DiT(model), count_steps(setting, rounds)
    return torch_row(make, config, shape, describe(model, shape), steps, device, compiled)


def diffusers_arm(setting, rounds, device, compiled=False):
    """Return the row of diffusers' DiT of equal depth and width with about as many tokens."""
    if importlib.util.find_spec("diffusers") is None:
        return {"note": "diffusers is not installed"}
    from experiments.performance import diffusers_dit

    config, shape = make_job(setting, device)
    model = build.model(config, shape[1:])
    if not diffusers_dit.fits(model):
        return {"note": f"diffusers has no patches of {model.patch}"}
    side, make = diffusers_dit.side(model), lambda: diffusers_dit.DiT(model)
    square = (shape[0], side * model.patch[0], side * model.patch[1], shape[3])
    facts, steps = describe(model, square) | {"tokens": side**2}, count_steps(setting, rounds)
    return torch_row(make, config, square, facts, steps, device, compiled)


def torch_row(make, config, shape, facts, steps, device, compiled):
    """Return `facts` and the seconds of a step of the PyTorch model that `make` builds."""
    import torch

    from experiments.performance import torch_dit

    before, model = peak_rss(), make()
    torch.compiler.reset()  # else a second setting is compiled for dynamic shapes
    step = torch_dit.train_step(model, config, shape, device, compiled)
    start = time.perf_counter()
    try:
        step(0)
    except Exception as error:  # no C++ compiler, an unsupported Python: a row with a note
        if not compiled:
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return {"note": f"torch.compile failed: {reason}"}
    first = time.perf_counter() - start  # compiling plus one step
    seconds, others = time_steps({"": step}, steps)
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else peak_rss() - before
    facts = facts | {"other_cores": others, "peak_gb": peak / 1e9}
    facts |= {"parameters": sum(p.numel() for p in model.parameters())}
    if compiled:
        facts |= {"compile_s": max(0.0, first - min(seconds[""]))}
    return facts | {"seconds": seconds[""]}


def list_changes(model, only=None):
    """Return {name: fields} of the OPTIONS that change this model, "none" first."""
    if only and (unknown := set(only) - set(OPTIONS)):
        sys.exit(f"error: --changes: {', '.join(sorted(unknown))} not among {', '.join(OPTIONS)}")
    chosen = {name: OPTIONS[name] for name in ("none", *only)} if only else OPTIONS
    own = model.items()
    return {name: new for name, new in chosen.items() if not new or new.items() - own}


def time_options(setting, rounds, device, only=None):
    """Return a row for each change of the model, or for `only` some; their steps alternate."""
    config, shape = make_job(setting, device)
    arms, plain = {}, config.model.to_dict()
    for name, change in list_changes(plain, only).items():
        config.model.update(plain | change)
        arms[name] = train_step(config, shape)
    steps = {name: step for name, (step, _) in arms.items()}
    seconds, others = time_steps(steps, count_steps(setting, rounds))
    row = lambda name: {"change": name, "seconds": seconds[name], "other_cores": others}
    return [arms[name][1] | row(name) for name in arms]


def time_samplers(setting, rounds, device):
    """Return a row a sampler: CLIPS clips with NFE evaluations each, from noise to waves."""
    config, shape = make_job(setting, device)
    rep = build.representation(config)
    ones = np.ones((1, rep.shape[0], 1, 1), np.float32)
    rep = dataclasses.replace(rep, mean=0 * ones - 5, std=ones)  # as quiet as music
    model, steps = build.model(config, rep.shape), {}
    params, schedule = init_params(model, config.seed), build.schedule(config)
    trained = TrainedModel(None, 0, "", config, rep, Vocabulary(), schedule, model, params)
    clips = [(prompts.UNCONDITIONAL, index) for index in range(CLIPS)]
    for name in SAMPLERS:
        config.sample.update(sampler=name, time_grid="log_snr", nfe=NFE, batch_size=CLIPS)
        generate = generator.Generator(trained, rep)
        steps[name] = lambda index, generate=generate: generate(clips)
    seconds, others = time_steps(steps, rounds or ROUNDS)
    facts = describe(model, (CLIPS, *shape[1:])) | {"other_cores": others}
    facts |= {"clip_seconds": rep.samples / rep.sample_rate}
    return [facts | {"change": f"sampler={name}", "seconds": seconds[name]} for name in steps]


ARMS = {
    "probe": probe,
    "check": check,
    "jax": jax_arm,
    "torch eager": torch_arm,
    "torch compile": lambda *args: torch_arm(*args, compiled=True),
    "diffusers eager": diffusers_arm,
    "diffusers compile": lambda *args: diffusers_arm(*args, compiled=True),
    "options": time_options,
    "samplers": time_samplers,
}
