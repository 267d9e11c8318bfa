"""A config whose whole main job takes seconds."""

RATE = 8000


def small_config(music, caches, folder):
    from configs import base

    config = base.get_config("tiny")
    config.workdir = str(folder / "run")
    config.data.update(source=str(music), cache_dir=str(caches))
    config.representation.update(
        sample_rate=RATE, n_fft=256, hop=64, frames=32, n_mels=32, griffin_lim_iters=4
    )
    config.model.update(patch=(32, 4), width=32, depth=2, heads=2)
    config.optimizer.update(warmup_steps=2)
    config.train.update(
        batch_size=4, num_steps=6, steps_per_dispatch=1, eval_every=3, checkpoint_every=3
    )
    config.valid.update(crops=8, num_noise_levels=4, baseline_crops=32)
    config.sample.update(num_samples=2, batch_size=2, nfe=4, sampler="ddim")
    return config
