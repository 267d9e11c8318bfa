"""Count the collectives of a compiled training step, by mesh.

    python -m experiments.scaling.collectives [--sizes tiny base] [--devices 8]

Compiles a step for each mesh over virtual CPU devices, and counts its collectives and the bytes
that each device receives, beside the formulas of scaling.md. Nothing is timed. Writes
results/scaling/collectives.csv.
"""

import argparse
import os
import re

FLAG = "--xla_force_host_platform_device_count"
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
CALL = re.compile(rf"= (\(.*?\)|\S+) ({'|'.join(KINDS)})(?:-start)?\(")
ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")
BYTES = {"pred": 1, "s32": 4, "u32": 4, "f32": 4, "bf16": 2, "f16": 2, "s8": 1, "u8": 1}


def count_collectives(text):
    """Return {kind: (calls, bytes of their results)} of the text of a compiled program."""
    totals = {kind: [0, 0] for kind in KINDS}
    for shapes, kind in CALL.findall(text):
        totals[kind][0] += 1
        for dtype, sizes in ARRAY.findall(shapes):
            elements = 1
            for size in filter(None, sizes.split(",")):
                elements *= int(size)
            totals[kind][1] += elements * BYTES[dtype]
    return {kind: tuple(counts) for kind, counts in totals.items() if counts[0]}


def compile_step(config):
    """Return one training step compiled on the configured mesh, and its arguments."""
    from specdiff_jax.runtime import mesh as meshes
    from specdiff_jax.training import preflight
    from specdiff_jax.training.diffusion_job import DiffusionJob

    with meshes.enter(config):
        job = DiffusionJob(config)
        arguments = preflight.first_dispatch(job, 1)
        return job.train_step().lower(*arguments).compile(), arguments


def predict_bytes(size, data, fsdp):
    """Return bytes by formula: gradients summed over copies, split parameters gathered twice."""
    summed = size // fsdp if data > 1 else 0
    gathered = 2 * size if fsdp > 1 else 0
    scattered = size if fsdp > 1 else 0
    return {"formula_mb": round((summed + gathered + scattered) / 1e6, 2)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["tiny", "base"])
    parser.add_argument("--devices", type=int, default=8)
    args = parser.parse_args()
    os.environ["XLA_FLAGS"] = f"{FLAG}={args.devices}"  # read when JAX starts
    os.environ["JAX_PLATFORMS"] = "cpu"

    from configs import base
    from experiments.lib.tables import RESULTS, write_csv
    from specdiff_jax.data import prepare
    from specdiff_jax.training import preflight

    rows = []
    for size in args.sizes:
        for fsdp in (1, 2, args.devices):
            config = base.get_config(size)
            config.data.source = "songbook:60"
            config.mesh.fsdp = fsdp
            config.train.update(batch_size=args.devices, steps_per_dispatch=1)
            prepare.run(config)
            step, (state, *_) = compile_step(config)
            parameters = preflight.size_of(state.params)
            mesh = {"data": args.devices // fsdp, "fsdp": fsdp}
            row = {"size": size, **mesh, "parameters_mb": round(parameters / 1e6, 2)}
            for kind, (count, size_bytes) in count_collectives(step.as_text()).items():
                row |= {f"{kind}s": count, f"{kind}_mb": round(size_bytes / 1e6, 2)}
            row |= predict_bytes(parameters, **mesh)
            print(row, flush=True)
            rows.append(row)
    write_csv(RESULTS / "scaling" / "collectives.csv", rows)


if __name__ == "__main__":
    main()
