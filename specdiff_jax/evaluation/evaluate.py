"""--mode=evaluate: scores of a checkpoint, or a folder of sounds, with intervals and controls.

Real held-out music is halved by artist: one half is the reference of every score, the other a row
of the table. Further rows are controls that are nearly real or clearly not music.
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

FALSE_POSITIVE_RATE = 0.01  # share of new music that may be flagged as memorized
CROPS_PER_BOUND = 8  # held-out crops for each whose bound is measured: it takes many evaluations
NUM_CLOSEST = 20  # pairs of a clip and training music to listen to
BAR = "{desc} |{bar:20}| {n_fmt} of {total_fmt} done, {elapsed}"
SAMPLING_FIELDS = ("sampler", "time_grid", "nfe", "eta", "churn", "guidance_scale", "seed", "ema")


def run(config):
    """Write evaluation.json, scores.csv, evaluation.html and the clips, and log the table."""
    inputs = gather_inputs(config)
    folder, sets, results = output_folder(inputs), [], {"about": describe_setup(inputs)}
    with tqdm.tqdm(total=len(STAGES), bar_format=BAR) as bar:  # each stage has its own time left
        for name, stage in STAGES.items():
            bar.set_description_str(f"evaluate: {name}")
            stage(inputs, sets, results)
            bar.update()
    evaluation_clips.write_clips(folder, inputs, sets, results)
    scores.add_flags(results["sets"])
    write_json(folder / "evaluation.json", results)
    scores.write_scores(folder / "scores.csv", results["sets"])
    for line in scores.format_table(results["sets"]):
        log(line)
    log(f"evaluation: {evaluation_report.write_evaluation_report(folder)}")


def output_folder(inputs):
    """Return where the results go: beside a checkpoint's samples, or into the folder of sounds."""
    if inputs.models:
        own = inputs.model
        return own.workdir / "evaluation" / f"step_{own.step:08d}"
    return pathlib.Path(inputs.config.evaluate.folder) / "evaluation"


def describe_setup(inputs):
    """Return what every score depends on, for JSON."""
    e = inputs.config.evaluate
    about = {
        "split": e.split,
        "clips": e.clips,
        "seconds": inputs.rep.samples / inputs.rep.sample_rate,
        "sample_rate": inputs.rep.sample_rate,
        "conditioning": inputs.conditioning,
        "missing": inputs.missing,
        "environment": sidecars.describe_environment(),
    }
    for name, model in inputs.models.items():
        s = model.config.sample.to_dict()
        about.setdefault("checkpoints", {})[name] = {
            "workdir": str(model.workdir),
            "step": model.step,
            "sha256": model.sha256,
            **{key: s[key] for key in SAMPLING_FIELDS},
        }
    return about


# ---- the stages: each adds to the sets of clips or to their results


def add_generated(inputs, sets, results):
    """Add clips of every model from the same noise and prompts, or those of the folder."""
    if inputs.sounds is not None:
        sets.append(inputs.sounds)
    for name, model in inputs.models.items():
        sets.append(controls.generate_clips(model, inputs.rep, inputs.requests, name))


def add_controls(inputs, sets, results):
    """Add real music, the controls, and the untrained network; begin the rows of all sets."""
    count, other_artists = inputs.config.evaluate.clips, inputs.other_artists
    sets.append(other_artists)
    sets += controls.build_controls(
        inputs.rep, inputs.reference, other_artists, inputs.train, count
    )
    if inputs.models:
        untrained = controls.reinitialize(inputs.model)
        # Without guidance: an untrained network ignores the prompt, at twice the cost.
        unconditional = [(UNCONDITIONAL, k) for _, k in inputs.requests]
        name = controls.UNTRAINED
        sets.append(controls.generate_clips(untrained, inputs.rep, unconditional, name, "control"))
    results["sets"] = [
        {"name": clips.name, "kind": clips.kind, "clips": len(clips.waves)} for clips in sets
    ]


def measure_distances(inputs, sets, results):
    """Add the distances between distributions of embeddings, for every embedder."""
    about = results["about"]["embedders"] = {}
    for embedder in map(embedders.load_embedder, inputs.config.evaluate.embedders):
        kept = "name", "sha256", "width", "sample_rate", "seconds"
        about[embedder.name] = {name: getattr(embedder, name) for name in kept}
        real = embed_set(embedder, inputs.reference, inputs.rep)
        vectors = {
            clips.name: embed_set(embedder, clips, inputs.rep)
            for clips in tqdm.tqdm(sets, embedder.name, unit=" sets", leave=False)
        }
        for row in results["sets"]:
            score = scores.score_embeddings(vectors[row["name"]], real)
            row.setdefault("scores", {})[embedder.name] = score
        rows = measure_text_similarity(embedder, inputs, sets, vectors)
        results.setdefault("text_similarity", []).extend(rows)


def measure_text_similarity(embedder, inputs, sets, vectors):
    """Return a row for each prompted set and for the real music that has the same captions.

    Args:
      vectors: {set name: (vectors [M, W, d], groups [M])}.

    Returns:
      [] where the embedder reads no text or not every prompt is a caption.
    """
    entries, music = inputs.prompt_entries, inputs.prompt_music
    captions = [entry["captions"][0] for entry in entries if entry["captions"]]
    if not embedder.embed_text or not captions or len(captions) < len(entries):
        return []
    vectors = vectors | {music.name: embed_set(embedder, music, inputs.rep)}
    names = [clips.name for clips in sets if is_prompted(clips)] + [music.name]
    texts = embedder.embed_text(captions)
    return [
        {"set": name, "embedder": embedder.name}
        | prompt_adherence.text_similarity(vectors[name][0], texts)
        for name in names
    ]


def is_prompted(clips):
    """Return whether a set is compared with the prompts: generated, or by the untrained network."""
    return clips.kind == "generated" or clips.name == controls.UNTRAINED


def measure_memorization(inputs, sets, results):
    """Add the share of each set that is closer to training music than new music is."""
    train = inputs.train
    songs = tqdm.tqdm(train.lengths, desc="memorization", unit=" songs", leave=False)
    waves = (
        pcm_to_float(train.read(start, length)).mean(axis=1)
        for start, length in zip(train.starts, songs, strict=True)
    )
    all_clips = mix_to_mono(np.concatenate([clips.waves for clips in sets]))
    held_out = mix_to_mono(inputs.reference.waves)
    rate = max(FALSE_POSITIVE_RATE, 1 / (1 + len(held_out)))  # few clips resolve no smaller rate
    nearest, held_out_nearest, ranking = memorization.find_memorized(
        all_clips, held_out, waves, inputs.rep.sample_rate, rate
    )
    first = 0
    for clips, row in zip(sets, results["sets"], strict=True):
        rows = slice(first, first + len(clips.waves))
        first = rows.stop
        row["memorized"] = scores.measure_memorized_fraction(ranking.flagged[rows], rate)
        row["silent"] = float(nearest.silent[rows].mean())
        row["nearest"] = float(np.median(nearest.similarity[rows]))
        if clips.kind == "generated":
            own = type(nearest)(*(field[rows] for field in nearest))
            closest = list_closest(own, ranking.rank[rows], train)
            results.setdefault("closest", {})[clips.name] = closest
    results["about"]["memorization"] = {
        "threshold": ranking.threshold,
        "false_positives": rate,
        "held_out_clips": len(held_out),
        "held_out_median": float(np.median(held_out_nearest.similarity)),
    }


def list_closest(nearest, rank, songs):
    """Return the NUM_CLOSEST clips that are most similar to training music, with the place."""
    return [
        {
            "clip": int(k),
            "song": songs.entries[nearest.song[k]]["name"],
            "place": int(nearest.song[k]),
            "offset": float(nearest.offset[k]),
            "similarity": float(nearest.similarity[k]),
            "rank": float(rank[k]),
        }
        for k in memorization.most_similar(nearest, NUM_CLOSEST)
    ]


def measure_signals(inputs, sets, results):
    """Add statistics of the signals, such as loudness and onsets, against the reference."""
    measure, rate = signal_statistics.measure_statistics, inputs.rep.sample_rate
    real = measure(inputs.reference.waves, rate)
    rows = tqdm.tqdm(results["sets"], "signals", unit=" sets", leave=False)
    for clips, row in zip(sets, rows, strict=True):
        row["signals"] = signal_statistics.compare_statistics(measure(clips.waves, rate), real)


def measure_adherence(inputs, sets, results):
    """Add how often a label classifier predicts the labels of the prompts."""
    entries, music, rate = inputs.prompt_entries, inputs.prompt_music, inputs.rep.sample_rate
    if not entries:
        return
    labels = [label for entry in entries for label in entry["labels"]]
    classifier = prompt_adherence.fit_classifier(inputs.train, inputs.rep.samples, labels)
    extract = lambda clips: label_classifier.extract_features(mix_to_mono(clips.waves), rate)
    real, rows = extract(music), []
    for clips in [music, *filter(is_prompted, sets)]:
        features = real if clips is music else extract(clips)
        rows += prompt_adherence.score_clips(classifier, clips, features, entries, real)
    results["prompt_adherence"] = rows


def measure_denoising(inputs, sets, results):
    """Add errors by noise level, the variational bound, and reconstruction from noise."""
    if not inputs.models:
        return
    model, e = inputs.model, inputs.config.evaluate
    job = DiffusionJob(model.config)
    job.rep = model.rep
    crops = denoising.HeldOutCrops(model, inputs.held_out, job.features, e.crops)
    train_x0 = job.encode_crops(job.songs, model.config.valid.baseline_crops)
    results["levels"] = denoising.measure_errors(model, crops, train_x0)
    few = crops.subset(max(2, e.crops // CROPS_PER_BOUND))
    results["bound"] = denoising.measure_bound(model, few)
    few = crops.subset(e.num_reconstructions)
    results["reconstruction"] = denoising.measure_reconstruction(model, few)


STAGES = {
    "clips": add_generated,
    "controls": add_controls,
    "distances": measure_distances,
    "memorization": measure_memorization,
    "signals": measure_signals,
    "labels": measure_adherence,
    "denoising": measure_denoising,
}


def embed_set(embedder, clips, rep):
    """Return (vectors [M, W, d], groups [M]) of Clips."""
    return embed_clips(embedder, mix_to_mono(clips.waves), rep.sample_rate), clips.groups


def mix_to_mono(waves):
    """Return the mean over channels of [M, N] or [M, A, N].  # [M, N]"""
    return waves if waves.ndim < 3 else waves.mean(axis=1)
