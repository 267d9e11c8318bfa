"""--mode=evaluate: a checkpoint, or a folder of sounds, in numbers with intervals and controls.

Real held-out music is halved by artist: one half is the reference of every score, the other a row
of the table; beside them stand rows of what is nearly real and of what is nothing like it.
"""

import pathlib

import numpy as np
import tqdm

from specdiff_jax.conditioning.prompts import UNCONDITIONAL
from specdiff_jax.data.crops import pcm_to_float
from specdiff_jax.evaluation import clips as evaluation_clips
from specdiff_jax.evaluation import (
    controls,
    denoising,
    embedders,
    label_classifier,
    prompt_adherence,
    scores,
)
from specdiff_jax.evaluation.embedders.embedder import embed_clips
from specdiff_jax.evaluation.inputs import gather_inputs
from specdiff_jax.evaluation.metrics import memorization, signal_statistics
from specdiff_jax.reports import evaluation_report
from specdiff_jax.runtime.files import write_json
from specdiff_jax.runtime.logs import log
from specdiff_jax.sampling import sidecars
from specdiff_jax.training.diffusion_job import DiffusionJob

FALSE_POSITIVE_RATE = 0.01  # share of new music that may be taken for a copy
CROPS_PER_BOUND = 8  # of so many held-out crops one is bounded: it takes many evaluations
NUM_CLOSEST = 20  # closest to training music, to listen to
BAR = "{desc} |{bar:20}| {n_fmt} of {total_fmt} done, {elapsed}"


def run(config):
    """Writes evaluation.json, scores.csv, evaluation.html and the clips, and says the table."""
    m = gather_inputs(config)
    folder, sets, found = output_folder(m), [], {"about": describe_setup(m)}
    with tqdm.tqdm(total=len(STAGES), bar_format=BAR) as bar:  # each stage tells its time left
        for name, stage in STAGES.items():
            bar.set_description_str(f"evaluate: {name}")
            stage(m, sets, found)
            bar.update()
    evaluation_clips.write_clips(folder, m, sets, found)
    scores.add_flags(found["sets"])
    write_json(folder / "evaluation.json", found)
    scores.write_scores(folder / "scores.csv", found["sets"])
    for line in scores.format_table(found["sets"]):
        log(line)
    log(f"evaluation: {evaluation_report.write_evaluation_report(folder)}")


def output_folder(m):
    """Where the results lie: beside the samples of a checkpoint, or in the folder of sounds."""
    if m.trained:
        own = next(iter(m.trained.values()))
        return own.workdir / "evaluation" / f"step_{own.step:08d}"
    return pathlib.Path(m.config.evaluate.folder) / "evaluation"


def describe_setup(m):
    """What every number depends on."""
    e = m.config.evaluate
    found = {
        "split": e.split,
        "clips": e.clips,
        "seconds": m.rep.samples / m.rep.sample_rate,
        "sample_rate": m.rep.sample_rate,
        "conditioning": m.asking,
        "missing": m.missing,
        "made_by": sidecars.describe_environment(),
    }
    for name, trained in m.trained.items():
        s = trained.config.sample.to_dict()
        kept = ("sampler", "time_grid", "nfe", "eta", "churn", "guidance_scale", "seed", "ema")
        found.setdefault("checkpoints", {})[name] = {
            "workdir": str(trained.workdir),
            "step": trained.step,
            "sha256": trained.sha256,
            **{key: s[key] for key in kept},
        }
    return found


# ---- the stages: each adds sets of clips, or something to what was found of them


def add_generated(m, sets, found):
    """Clips of every checkpoint from the same noises and wishes, or those of the folder."""
    if m.sounds is not None:
        sets.append(m.sounds)
    for name, trained in m.trained.items():
        sets.append(controls.generate_clips(trained, m.rep, m.wishes, name))


def add_controls(m, sets, found):
    """Rows that show what the numbers mean."""
    e = m.config.evaluate
    sets.append(m.other)
    sets += controls.build_controls(m.rep, m.reference, m.other, m.train, e.clips)
    if m.trained:
        fresh = controls.reinitialize(next(iter(m.trained.values())))
        unasked = [
            (UNCONDITIONAL, k) for _, k in m.wishes
        ]  # it would hear nothing, at twice the cost
        sets.append(controls.generate_clips(fresh, m.rep, unasked, controls.UNTRAINED, "control"))
    found["sets"] = [
        {"name": clips.name, "kind": clips.kind, "clips": len(clips.waves)} for clips in sets
    ]


def measure_distances(m, sets, found):
    """Distances between distributions of embeddings, for every embedder."""
    about = found["about"]["embedders"] = {}
    for embedder in map(embedders.load_embedder, m.config.evaluate.embedders):
        kept = "name", "sha256", "width", "sample_rate", "seconds"
        about[embedder.name] = {name: getattr(embedder, name) for name in kept}
        real = embed_set(embedder, m.reference, m.rep)
        heard = {
            clips.name: embed_set(embedder, clips, m.rep)
            for clips in tqdm.tqdm(sets, embedder.name, unit=" sets", leave=False)
        }
        for row in found["sets"]:
            score = scores.score_embeddings(heard[row["name"]], real)
            row.setdefault("scores", {})[embedder.name] = score
        found.setdefault("likeness", []).extend(measure_text_similarity(embedder, m, sets, heard))


def measure_text_similarity(embedder, m, sets, heard):
    """A row for each set that was asked for, and for the real music that has the same captions."""
    captions = [entry["captions"][0] for entry in m.asked if entry["captions"]]
    if not embedder.embed_text or not captions or len(captions) < len(m.asked):
        return []
    heard = heard | {m.like.name: embed_set(embedder, m.like, m.rep)}
    names = [clips.name for clips in sets if is_prompted(clips)] + [m.like.name]
    texts = embedder.embed_text(captions)
    return [
        {"set": name, "embedder": embedder.name}
        | prompt_adherence.text_similarity(heard[name][0], texts)
        for name in names
    ]


def is_prompted(clips):
    """Whether a set was made as the wishes ask."""
    return clips.kind == "generated" or clips.name == controls.UNTRAINED


def measure_memorization(m, sets, found):
    """How many clips of each set are nearer to training music than new music is."""
    songs = tqdm.tqdm(m.train.lengths, desc="copies", unit=" songs", leave=False)
    waves = (
        pcm_to_float(m.train.read(start, length)).mean(axis=1)
        for start, length in zip(m.train.starts, songs, strict=True)
    )
    everything = mix_to_mono(np.concatenate([clips.waves for clips in sets]))
    held_out = mix_to_mono(m.reference.waves)
    false = max(FALSE_POSITIVE_RATE, 1 / (1 + len(held_out)))  # few clips can tell no smaller share
    nearest, theirs, verdict = memorization.find_memorized(
        everything, held_out, waves, m.rep.sample_rate, false
    )
    first = 0
    for clips, row in zip(sets, found["sets"], strict=True):
        mine = slice(first, first + len(clips.waves))
        first = mine.stop
        row["copies"] = scores.measure_memorized_fraction(verdict.flagged[mine], false)
        row["silent"] = float(nearest.silent[mine].mean())
        row["nearest"] = float(np.median(nearest.similarity[mine]))
        if clips.kind == "generated":
            own = type(nearest)(*(field[mine] for field in nearest))
            found.setdefault("closest", {})[clips.name] = [
                {
                    "clip": int(k),
                    "song": m.train.entries[own.song[k]]["name"],
                    "place": int(own.song[k]),
                    "offset": float(own.offset[k]),
                    "similarity": float(own.similarity[k]),
                    "rank": float(verdict.rank[mine][k]),
                }
                for k in memorization.most_similar(own, NUM_CLOSEST)
            ]
    found["about"]["copies"] = {
        "threshold": verdict.threshold,
        "false_positives": false,
        "held_out_clips": len(held_out),
        "held_out_median": float(np.median(theirs.similarity)),
    }


def measure_signals(m, sets, found):
    """Loudness, bandwidth, onsets and the like, against the reference."""
    real = signal_statistics.measure_statistics(m.reference.waves, m.rep.sample_rate)
    rows = tqdm.tqdm(found["sets"], "signals", unit=" sets", leave=False)
    for clips, row in zip(sets, rows, strict=True):
        row["signals"] = signal_statistics.compare_statistics(
            signal_statistics.measure_statistics(clips.waves, m.rep.sample_rate), real
        )


def measure_adherence(m, sets, found):
    """Whether the clips have what was asked for."""
    if not m.asked:
        return
    rate, kinds = m.rep.sample_rate, [label for entry in m.asked for label in entry["labels"]]
    listener = prompt_adherence.fit_classifier(m.train, m.rep.samples, kinds)
    real = label_classifier.extract_features(mix_to_mono(m.like.waves), rate)
    found["fidelity"] = prompt_adherence.score_clips(listener, m.like, real, m.asked, real)
    for clips in sets:
        if is_prompted(clips):
            heard = label_classifier.extract_features(mix_to_mono(clips.waves), rate)
            found["fidelity"] += prompt_adherence.score_clips(listener, clips, heard, m.asked, real)


def measure_denoising(m, sets, found):
    """Errors by noise level, the variational bound, and what is rebuilt from noise."""
    if not m.trained:
        return
    trained, e = next(iter(m.trained.values())), m.config.evaluate
    job = DiffusionJob(trained.config)
    job.rep = trained.rep
    job.set_vocabulary(trained.vocabulary)
    crops = denoising.HeldOutCrops(trained, job, m.held_out, e.crops)
    found["levels"] = denoising.measure_errors(trained, job, crops)
    few = crops.spread(max(2, e.crops // CROPS_PER_BOUND))
    found["bound"] = denoising.measure_bound(trained, job, few)
    found["rebuilding"] = denoising.measure_reconstruction(
        trained, job, crops.spread(e.num_reconstructions)
    )


STAGES = {
    "clips": add_generated,
    "controls": add_controls,
    "distances": measure_distances,
    "copies": measure_memorization,
    "signals": measure_signals,
    "labels": measure_adherence,
    "denoising": measure_denoising,
}


def embed_set(embedder, clips, rep):
    """(vectors [M, W, d], groups [M]) of Clips."""
    return embed_clips(embedder, mix_to_mono(clips.waves), rep.sample_rate), clips.groups


def mix_to_mono(waves):
    """[M, N] or [M, A, N] -> [M, N]."""
    return waves if waves.ndim < 3 else waves.mean(axis=1)
