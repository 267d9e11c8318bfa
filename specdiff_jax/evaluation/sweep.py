"""--mode=sweep: sampler x NFE x guidance scale, chosen on valid, reported once on test."""

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

SCORE = "kad"  # lowest is best; unbiased for any number of clips


def run(config):
    """Write sweep.json, sweep.csv and sweep.png beside the evaluations of the checkpoint."""
    arms, embedder = list_arms(config), embedders.load_embedder(config.evaluate.embedders[0])
    valid = prepare_split(config, "valid", embedder)
    bar = tqdm.tqdm(arms, desc="sweep", unit="arm")
    rows = [arm | score_arm(*valid, arm, embedder) for arm in bar]
    best = min(rows, key=lambda row: row[SCORE]["value"])
    arm = {name: best[name] for name in arms[0]}
    final = arm | score_arm(*prepare_split(config, "test", embedder), arm, embedder)
    folder = valid[0].model.workdir / "evaluation"
    results = {"embedder": embedder.name, "valid": rows, "chosen": arm, "test": final}
    write_json(folder / "sweep.json", results)
    table = [{"split": "valid"} | row for row in rows] + [{"split": "test"} | final]
    scores.write_scores(folder / "sweep.csv", table)
    draw_curves(folder / "sweep.png", rows, best, embedder.name)
    words = ", ".join(f"{name} {value}" for name, value in arm.items())
    valid_score, test_score = (scores.format_interval(row[SCORE], 4) for row in (best, final))
    log(f"sweep: of {len(rows)} arms, chosen on valid: {words}: KAD {valid_score}")
    log(f"sweep: the same on test, once: KAD {test_score}; {folder / 'sweep.png'}")


def list_arms(config):
    """Return [{"sampler", "time_grid", "nfe", "guidance_scale"}] of all combinations.

    Raises:
      ValueError: one of them cannot be sampled with.
    """
    s, schedule = config.sweep, build.schedule(config)  # before a checkpoint is loaded
    if config.evaluate.folder is not None or config.evaluate.compare_to:
        raise ValueError(
            "sweep is of one checkpoint: unset evaluate.folder and evaluate.compare_to"
        )
    arms = []
    for pair, nfe, scale in itertools.product(s.samplers, s.nfe, s.guidance_scale):
        sampler, _, grid = pair.partition("/")
        arms.append({"sampler": sampler, "time_grid": grid, "nfe": nfe, "guidance_scale": scale})
        config.sample.update(arms[-1])
        options.check(config, schedule)
    if not arms:
        raise ValueError(
            "sweep.samplers, sweep.nfe, sweep.guidance_scale: each needs at least one value"
        )
    config.sample.guidance_scale = None  # the prompts carry it
    return arms


def prepare_split(config, split, embedder):
    """Return (EvaluationInputs, embedded reference) of one split."""
    config.evaluate.split = split
    inputs = gather_inputs(config)
    return inputs, embed_set(embedder, inputs.reference, inputs.rep)


def score_arm(inputs, real, arm, embedder):
    """Return `scores.score_embeddings` of clips sampled as an arm says, and their exact NFE."""
    model = inputs.model
    model.config.sample.update({name: arm[name] for name in ("sampler", "time_grid", "nfe")})
    requests, scale = inputs.requests, {"guidance_scale": arm["guidance_scale"]}
    if inputs.conditioning != "unconditional":
        requests = [(dataclasses.replace(prompt, **scale), k) for prompt, k in requests]
    elif arm["guidance_scale"] != 1:
        raise ValueError("sweep.guidance_scale: without a condition only 1 is possible")
    clips = controls.generate_clips(model, inputs.rep, requests)
    result = scores.score_embeddings(embed_set(embedder, clips, inputs.rep), real)
    return result | {"exact_nfe": count_nfe(arm["sampler"], arm["nfe"])}


def draw_curves(path, rows, best, embedder):
    """Draw the score against NFE, a curve for each sampler, time grid and guidance scale."""
    figure = Figure(figsize=(8, 4.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    key_of = lambda row: (row["sampler"], row["time_grid"], row["guidance_scale"])
    for key in dict.fromkeys(map(key_of, rows)):
        curve = sorted((row for row in rows if key_of(row) == key), key=lambda r: r["exact_nfe"])
        x, y = [row["exact_nfe"] for row in curve], [row[SCORE]["value"] for row in curve]
        ends = [[abs(row[SCORE][end] - v) for row, v in zip(curve, y, strict=True)]
                for end in ("low", "high")]  # fmt: skip
        label = f"{key[0]}, {key[1]}, guidance {key[2]:g}"
        axes.errorbar(x, y, ends, marker="o", capsize=2, label=label)
    star = {"markersize": 14, "color": "#c43", "label": "chosen"}
    axes.plot(best["exact_nfe"], best[SCORE]["value"], "*", **star)
    axes.set(xscale="log", xlabel="NFE per clip", ylabel=f"KAD ({embedder})")
    ticks = sorted({row["exact_nfe"] for row in rows})
    axes.set_xticks(ticks, map(str, ticks))
    axes.minorticks_off()
    axes.legend(fontsize=7)
    figure.savefig(path)
