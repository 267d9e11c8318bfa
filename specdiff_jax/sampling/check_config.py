"""A config checked as a whole, before any work."""

from specdiff_jax.audio.stft import check_framing
from specdiff_jax.conditioning import vocabulary
from specdiff_jax.config import bounds, build
from specdiff_jax.config.fields import must_divide
from specdiff_jax.data import collection
from specdiff_jax.sampling import options
from specdiff_jax.training import finetuning, optimizers


def check(config):
    """Refuse wrong values and impossible combinations.

    Raises:
      ValueError: names the field and the remedy.
    """
    bounds.check(config)
    collection.check_data(config)
    rep, schedule = build.representation(config), build.schedule(config)
    check_framing(rep.n_fft, rep.hop)
    build.model(config, rep.shape)
    optimizers.optimizer(config, build.num_steps(config, crops=1))
    optimizers.ema_update(config)
    options.check(config, schedule)
    vocabulary.check(config)
    finetuning.check(config)
    build.augmentation(config)
    build.objective(config, rep, schedule)
    t, o = config.train, config.optimizer
    must_divide("optimizer.grad_accum_steps", o.grad_accum_steps, "train.batch_size", t.batch_size)
    for name in ("eval_every", "checkpoint_every"):
        must_divide("train.steps_per_dispatch", t.steps_per_dispatch, f"train.{name}", t[name])
