"""Measure the value of a pretrained backbone for search, against scratch, random and features.

    python -m experiments.downstream.retrieval --backbone runs/tiny [--steps 200] [--songs 60]
        [--seeds 0 1 2 3 4] [--source songs.jsonl --kind game] [--t 0.4]

Trains configs/embedding.py:tiny for each way and seed, by two crops of a song alone, beside log-mel
statistics and the embedding of musicnn. Queries are the windows of test songs, the gallery all
others that do not overlap. Relevant are the same song, or songs with the same label of --kind
without the song itself. --t: the noise level of the input of all networks, the config's where
unset. Writes results/downstream/NAME.csv (a row for each way and seed) and NAME_gains.csv: mAP@10
of the pretrained backbone minus that of each other way, mean over seeds, with a paired bootstrap
over test songs.
"""

import pathlib

import jax
import numpy as np

from configs import embedding
from experiments.downstream.tagging import PLAIN, WAYS, features, parser_of, small
from experiments.lib.tables import RESULTS, write_csv
from specdiff_jax.conditioning.text_encoders.encoder import l2_normalize
from specdiff_jax.data import crops
from specdiff_jax.downstream import backbone, embed, embed_job, embedders
from specdiff_jax.evaluation.metrics import retrieval
from specdiff_jax.evaluation.metrics.bootstrap import bootstrap_interval

RUNS = pathlib.Path(__file__).parents[2] / "runs" / "retrieval"
GOALS = ("song", "label")


def config_of(way, backbone, seed, args):
    """Return the config of one embedding."""
    config = small(embedding.get_config(f"tiny,{WAYS[way]}"), backbone, seed, args)
    if way == "random frozen":
        config.head.trainable = "head"
    if args.t is not None:
        config.head.noise_level = args.t
    config.workdir = str(RUNS / args.name / f"{way.replace(' ', '_')}_{seed}_{args.steps}")
    config.train.update(num_steps=args.steps, eval_every=40, checkpoint_every=40, batch_size=16)
    return config


def trained(config):
    """The Scores of the test songs, and the best embedding's vectors.  # [S, W, E]"""
    embed.run(config)
    best = embedders.load_best(config.workdir)
    scores = embed_job.RetrievalMetrics(best.job, best.job.load_songs("test"))
    size = config.train.batch_size
    return scores, backbone.map_windows(scores.embed, best.params, scores.waves, size)


def plain(kind, scores):
    """The same windows in features that nobody trained here.  # [S, W, D]"""
    waves = crops.pcm_to_wave(scores.waves)  # [S, W, N], one channel
    flat = features(kind, waves.reshape(-1, waves.shape[-1]), scores.job.rep.sample_rate)
    return l2_normalize(flat - flat.mean(axis=0)).reshape(*waves.shape[:2], -1)


def measure_precision(scores, vectors, kind):
    """Return {goal: mean (recall@1, average precision) of the windows of each song}.

    Args:
      vectors: [S, W, E] of length one; kind: of the labels that make songs relevant.

    Returns:
      Arrays [S, 2], NaN where nothing is relevant.
    """
    count = vectors.shape[1]
    flat = vectors.reshape(-1, vectors.shape[-1])
    near = flat @ flat.T
    tags = [
        {label for label in entry["labels"] if label.startswith(f"{kind}:")}
        for entry in scores.songs.entries
    ]
    alike = np.array([[bool(a & b) for b in tags] for a in tags])
    alike = np.repeat(np.repeat(alike, count, axis=0), count, axis=1)
    same = scores.relevant
    goals = {"song": (same, scores.excluded), "label": (alike & ~same, same)}
    return {goal: by_song(near, *goals[goal], count) for goal in GOALS}


def by_song(near, relevant, excluded, count):
    """Return mean (recall@1, average precision) over the windows of each song.  # [S, 2]"""
    results = np.full((len(near), 2), np.nan)
    for query, (scores, hits, out) in enumerate(zip(near, relevant, excluded, strict=True)):
        if (hits & ~out).any():
            recalls, _, average, _ = retrieval.score_query(scores[~out], hits[~out])
            results[query] = recalls[0], average
    return results.reshape(-1, count, 2).mean(axis=1)


def gain(ours, theirs):
    """Return the mean difference in average precision, with its paired interval over songs."""
    difference = np.mean(ours, axis=0)[:, 1] - np.mean(theirs, axis=0)[:, 1]
    return bootstrap_interval(difference[~np.isnan(difference)])


def row_of(way, seed, metrics):
    """Return the row of one way and seed."""
    row = {"way": way, "seed": seed}
    for goal, values in metrics.items():
        recall, average = np.nanmean(values, axis=0)
        row |= {f"{goal}_recall_1": recall, f"{goal}_map_10": average}
    return {name: round(v, 4) if isinstance(v, float) else v for name, v in row.items()}


def compared(args):
    """Train all ways and seeds, and write both tables."""
    rows, results, scores = [], {}, None
    for way in args.ways:
        for seed in args.seeds:
            scores, vectors = trained(config_of(way, args.backbone, seed, args))
            results.setdefault(way, []).append(measure_precision(scores, vectors, args.kind))
            rows.append(row_of(way, seed, results[way][-1]))
            print(rows[-1], flush=True)
            write_csv(RESULTS / "downstream" / f"{args.name}.csv", rows)
    for kind in PLAIN if args.musicnn else PLAIN[:1]:
        results[kind] = [measure_precision(scores, plain(kind, scores), args.kind)]
        rows.append(row_of(kind, "", results[kind][0]))
        write_csv(RESULTS / "downstream" / f"{args.name}.csv", rows)
    gains = []
    for way in list(results)[1:]:
        for goal in GOALS:
            ours, theirs = ([one[goal] for one in results[name]] for name in ("pretrained", way))
            estimate = gain(ours, theirs)
            songs = len(scores.songs.entries)
            gains.append({"pretrained_minus": way, "goal": goal, "songs": songs} | vars(estimate))
            print(gains[-1])
    write_csv(RESULTS / "downstream" / f"{args.name}_gains.csv", gains)


def main():
    parser = parser_of(__doc__, "retrieval", 200)
    parser.add_argument("--kind", default="composer")
    args = parser.parse_args()
    jax.config.update("jax_compilation_cache_dir", str(RUNS / "xla"))
    compared(args)


if __name__ == "__main__":
    main()
