"""A paper plan: what training larger models on 100,000 hours would take on 8, 64 and 512 GPUs.

    python -m experiments.scaling.plan

Counts FLOPs and parameters of configs/modern.py's own models, and takes traffic from the formulas
that experiments/collectives.py holds against compiled programs. Everything else is an assumption,
listed here and said in scaling.md. Nothing is measured. Writes results/scaling.csv.
"""

import jax

from configs import modern
from experiments.lib.tables import RESULTS, write_csv
from specdiff_jax.config import build
from specdiff_jax.models.dit import count_flops, count_tokens
from specdiff_jax.training import train_state

PEAK = 989e12  # bf16 FLOP/s of an H100 SXM, dense (NVIDIA's data sheet)
FRACTION = 0.4  # of it that a step reaches: an assumption, to be replaced by preflight's roofline
NVLINK = 450e9  # bytes/s and direction within a node of eight (data sheet)
NETWORK = 50e9  # bytes/s a GPU between nodes: one 400 Gbit/s port each
DISK = 2e9  # bytes/s and node to the shared disk
DOLLARS = 2.5  # a GPU-hour
HOURS = 100_000  # of music
EPOCHS = 20  # 600 million crops, a third of what DiT-XL saw of ImageNet
CROPS = 32  # a GPU and step
SIZES, GPUS = ("S", "B", "L", "XL"), (8, 64, 512)


def model_of(size):
    """(parameters, training FLOPs a crop, tokens, representation, network)."""
    config = modern.get_config(size)
    rep = build.representation(config)
    model = build.model(config, rep.shape)
    shapes = jax.eval_shape(lambda: train_state.init_params(config, model, rep.shape))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    flops = 3 * sum(count_flops(model))
    return parameters, flops, count_tokens(rep.shape, model.patch), rep, model


def plan(size, gpus):
    """One row: a step, a run, a checkpoint and a bill."""
    parameters, flops, tokens, rep, model = model_of(size)
    state = 16 * parameters  # parameters, average and two moments, float32
    compute = CROPS * flops / (FRACTION * PEAK)
    # Split within a node where a copy would take over a tenth of 80 GB, else whole everywhere.
    fsdp = 8 if state > 8e9 else 1
    data = gpus // fsdp
    within = 12 * parameters * (fsdp - 1) / fsdp / NVLINK  # gathered twice, scattered once
    link = NETWORK if gpus > 8 else NVLINK
    across = 2 * 4 * parameters / fsdp * (data - 1) / data / link  # gradients, a ring
    # Were each matrix split over the node instead (Shoeybi et al. 2019): two sums of bfloat16
    # activations a block forward and two backward, of all crops of the node, none of them hidden.
    tensor = 4 * model.depth * 2 * 7 / 8 * 8 * CROPS * tokens * model.width * 2 / NVLINK
    step = compute + max(0.0, within + across - compute / 2)  # half the step can hide it
    crops = HOURS * 3600 * rep.sample_rate / rep.samples
    steps = EPOCHS * crops / (CROPS * gpus)
    return {
        "size": size,
        "parameters_m": round(parameters / 1e6),
        "tokens": tokens,
        "gpus": gpus,
        "mesh": f"data {data} x fsdp {fsdp}",
        "state_gb_a_gpu": round(state / fsdp / 1e9, 2),
        "compute_s": round(compute, 3),
        "within_s": round(within, 4),
        "across_s": round(across, 4),
        "tensor_s": round(tensor, 3),
        "step_s": round(step, 3),
        "audio_mb_s_a_node": round(min(8, gpus) * CROPS * rep.samples * 2 / step / 1e6),
        "steps": round(steps),
        "days": round(steps * step / 86400, 2),
        "dollars": round(steps * step / 3600 * gpus * DOLLARS, -1),
        "checkpoint_gb": round(state / 1e9, 1),
        "checkpoint_s": round(state / (DISK * max(gpus / 8, 1)), 1),
    }


def main():
    rows = [plan(size, gpus) for size in SIZES for gpus in GPUS]
    for row in rows:
        print(row)
    samples = HOURS * 3600 * 22050
    print(f"{HOURS} hours of mono int16 at 22,050 Hz: {2 * samples / 1e12:.1f} TB")
    write_csv(RESULTS / "scaling" / "scaling.csv", rows)


if __name__ == "__main__":
    main()
