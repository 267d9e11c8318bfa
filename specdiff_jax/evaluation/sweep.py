"""--mode=sweep: sampler x evaluations x guidance, chosen on validation, reported once on test."""

import dataclasses
import itertools

import tqdm
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from specdiff_jax.config import build
from specdiff_jax.diffusion.samplers import count_nfe
from specdiff_jax.evaluation import controls, embedders, scores
from specdiff_jax.evaluation.evaluate import embed_set
from specdiff_jax.evaluation.inputs import gather_inputs
from specdiff_jax.runtime.files import write_json
from specdiff_jax.runtime.logs import log
from specdiff_jax.sampling import options

SCORE = "kad"  # the least is best; without bias for any number of clips


def run(config):
    """Writes sweep.json, sweep.csv and sweep.png beside the evaluations of the checkpoint."""
    arms, embedder = list_arms(config), embedders.load_embedder(config.evaluate.embedders[0])
    valid = prepare_split(config, "valid", embedder)
    rows = [
        arm | score_arm(valid, arm, embedder) for arm in tqdm.tqdm(arms, desc="sweep", unit="arm")
    ]
    best = min(rows, key=lambda row: row[SCORE]["value"])
    arm = {name: best[name] for name in arms[0]}
    final = arm | score_arm(prepare_split(config, "test", embedder), arm, embedder)
    folder = next(iter(valid[0].trained.values())).workdir / "evaluation"
    found = {"embedder": embedder.name, "valid": rows, "chosen": arm, "test": final}
    write_json(folder / "sweep.json", found)
    table = [{"split": "valid"} | row for row in rows] + [{"split": "test"} | final]
    scores.write_scores(folder / "sweep.csv", table)
    draw_curves(folder / "sweep.png", rows, best, embedder.name)
    words = ", ".join(f"{name} {value}" for name, value in arm.items())
    valid_score, test_score = (scores.format_interval(row[SCORE], 4) for row in (best, final))
    log(f"sweep: of {len(rows)}, chosen on valid: {words}: {valid_score}")
    log(f"sweep: the same on test, once: {test_score}; {folder / 'sweep.png'}")


def list_arms(config):
    """[{"sampler", "time_grid", "nfe", "guidance_scale"}] of all combinations.

    Raises:
      ValueError: one of them cannot be sampled with.
    """
    s, schedule = config.sweep, build.schedule(config)
    if config.evaluate.folder is not None or config.evaluate.compare_to:
        raise ValueError(
            "sweep is of one checkpoint: unset evaluate.folder and evaluate.compare_to"
        )
    arms = []
    for pair, steps, guidance in itertools.product(s.samplers, s.nfe, s.guidance_scale):
        sampler, _, grid = pair.partition("/")
        arms.append(
            {"sampler": sampler, "time_grid": grid, "nfe": steps, "guidance_scale": guidance}
        )
        config.sample.update(arms[-1])
        options.check(config, schedule)
    if not arms:
        raise ValueError("sweep.samplers, sweep.nfe, sweep.guidance_scale: each must hold some")
    config.sample.guidance_scale = None  # the wishes carry it
    return arms


def prepare_split(config, split, embedder):
    """(Material, embedded reference) of one split."""
    config.evaluate.split = split
    m = gather_inputs(config)
    return m, embed_set(embedder, m.reference, m.rep)


def score_arm(prepared, arm, embedder):
    """`scores.of_vectors` of clips sampled so, and the network evaluations of each."""
    m, real = prepared
    trained = next(iter(m.trained.values()))
    plan = {name: arm[name] for name in ("sampler", "time_grid", "nfe")}
    trained.config.sample.update(plan)
    if m.asking != "unconditional":
        wishes = [
            (dataclasses.replace(w, guidance_scale=arm["guidance_scale"]), k) for w, k in m.wishes
        ]
    elif arm["guidance_scale"] != 1:
        raise ValueError("sweep.guidance_scale: nothing is asked for, so only 1 makes sense")
    else:
        wishes = m.wishes
    clips = controls.generate_clips(trained, m.rep, wishes, "generated")
    found = scores.score_embeddings(embed_set(embedder, clips, m.rep), real)
    return found | {"asked": count_nfe(arm["sampler"], arm["nfe"])}


def draw_curves(path, rows, best, embedder):
    """The score against network evaluations, a curve for each sampler, grid and guidance."""
    figure = Figure(figsize=(8, 4.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for key in dict.fromkeys((r["sampler"], r["time_grid"], r["guidance_scale"]) for r in rows):
        mine = [r for r in rows if (r["sampler"], r["time_grid"], r["guidance_scale"]) == key]
        mine.sort(key=lambda row: row["asked"])
        y = [row[SCORE]["value"] for row in mine]
        ends = [[abs(row[SCORE][end] - v) for row, v in zip(mine, y, strict=True)]
                for end in ("low", "high")]  # fmt: skip
        label = f"{key[0]}, {key[1]}, guidance {key[2]:g}"
        axes.errorbar([r["asked"] for r in mine], y, ends, marker="o", capsize=2, label=label)
    axes.plot(best["asked"], best[SCORE]["value"], "*", markersize=14, color="#c43", label="chosen")
    axes.set(xscale="log", xlabel="network evaluations a clip")
    axes.set_ylabel(f"kernel distance ({embedder})")
    ticks = sorted({row["asked"] for row in rows})
    axes.set_xticks(ticks, map(str, ticks))
    axes.minorticks_off()
    axes.legend(fontsize=7)
    figure.savefig(path)
