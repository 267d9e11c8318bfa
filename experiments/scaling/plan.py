"""Plan the training of larger models on 100,000 hours with 8, 64 and 512 GPUs, on paper.

    python -m experiments.scaling.plan

Counts FLOPs and parameters of the models of configs/modern.py, and takes traffic from the formulas
that collectives.py compares with compiled programs. The constants below are assumptions, listed in
scaling.md too. Nothing is measured. Writes results/scaling/scaling.csv.
"""

import jax

from configs import modern
from experiments.lib.tables import RESULTS, write_csv
from specdiff_jax.config import build
from specdiff_jax.models.dit import count_flops, count_tokens
from specdiff_jax.training import train_state

PEAK = 989e12  # bf16 FLOP/s of an H100 SXM, dense (NVIDIA's data sheet)
FRACTION = (
    0.4  # of PEAK that a step reaches: an assumption, to be replaced by the roofline of preflight
)
NVLINK = 450e9  # bytes/s per direction within a node of eight (data sheet)
NETWORK = 50e9  # bytes/s a GPU between nodes: one 400 Gbit/s port each
DISK = 2e9  # bytes/s and node to the shared disk
DOLLARS = 2.5  # a GPU-hour
HOURS = 100_000  # of music
EPOCHS = 20  # 600 million crops, a third of the examples of DiT-XL on ImageNet
CROPS = 32  # a GPU and step
SIZES, GPUS = ("S", "B", "L", "XL"), (8, 64, 512)


def count_model(size):
    """Return (parameters, training FLOPs a crop, tokens, representation, network)."""
    config = modern.get_config(size)
    rep = build.representation(config)
    model = build.model(config, rep.shape)
    shapes = jax.eval_shape(lambda: train_state.init_params(model, config.seed))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    flops = 3 * sum(count_flops(model))
    return parameters, flops, count_tokens(rep.shape, model.patch), rep, model


def plan(size, gpus):
    """Return a row: step, run, checkpoint and cost."""
    parameters, flops, tokens, rep, model = count_model(size)
    state = 16 * parameters  # parameters, average and two moments, float32
    compute = CROPS * flops / (FRACTION * PEAK)
    # Sharded within a node where the state is over a tenth of 80 GB, else replicated.
    fsdp = 8 if state > 8e9 else 1
    data = gpus // fsdp
    intra_node = 12 * parameters * (fsdp - 1) / fsdp / NVLINK  # gathered twice, scattered once
    link = NETWORK if gpus > 8 else NVLINK
    inter_node = 2 * 4 * parameters / fsdp * (data - 1) / data / link  # gradients, a ring
    # Tensor parallelism instead (Shoeybi et al. 2019): two all-reduces of bfloat16 activations a
    # block forward and two backward, of all crops of the node, none of them hidden.
    tensor = 4 * model.depth * 2 * 7 / 8 * 8 * CROPS * tokens * model.width * 2 / NVLINK
    step = compute + max(
        0.0, intra_node + inter_node - compute / 2
    )  # half of the step can hide traffic
    crops = HOURS * 3600 * rep.sample_rate / rep.samples
    steps = EPOCHS * crops / (CROPS * gpus)
    return {
        "size": size,
        "parameters_m": round(parameters / 1e6),
        "tokens": tokens,
        "gpus": gpus,
        "mesh": f"data {data} x fsdp {fsdp}",
        "state_gb_per_gpu": round(state / fsdp / 1e9, 2),
        "compute_s": round(compute, 3),
        "intra_node_s": round(intra_node, 4),
        "inter_node_s": round(inter_node, 4),
        "tensor_s": round(tensor, 3),
        "step_s": round(step, 3),
        "audio_mb_s_per_node": round(min(8, gpus) * CROPS * rep.samples * 2 / step / 1e6),
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
