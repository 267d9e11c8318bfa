"""The sounds that an evaluation writes: clips, their closest training music, a blind test."""

from specdiff_jax.audio import files
from specdiff_jax.data import crops
from specdiff_jax.evaluation import controls
from specdiff_jax.evaluation.listening import page
from specdiff_jax.reports import spectrogram_image
from specdiff_jax.reports.evaluation_report import GALLERY, folder_name
from specdiff_jax.runtime.logs import log


def write_clips(folder, inputs, sets, results):
    """Write clips/SET/000.wav ..., closest/SET/00_clip.wav, 00_song.wav ..., listening.html."""
    rate, generated = inputs.rep.sample_rate, [c for c in sets if c.kind == "generated"]
    set_folder = lambda name: folder / "clips" / folder_name(name)
    paths = {c.name: write_set(set_folder(c.name), c.waves, rate) for c in generated}
    for clips in generated:
        target = folder / "closest" / folder_name(clips.name)
        for number, pair in enumerate(results["closest"][clips.name]):
            write_clip(target / f"{number:02d}_clip", clips.waves[pair["clip"]], rate)
            write_clip(target / f"{number:02d}_song", read_excerpt(inputs, pair), rate)
    shown = inputs.requests[:GALLERY] if inputs.models else []
    results["prompts"] = {str(k): prompt.prompt or prompt.labels or "" for prompt, k in shown}
    if count := inputs.config.evaluate.listening_clips:
        real = write_set(set_folder("real"), inputs.other_artists.waves[:count], rate)
        compared = {name: own[:count] for name, own in paths.items()}
        if len(compared) < 2:  # a test needs two: the loss of the representation alone
            decoded = next(clips for clips in sets if clips.name == controls.ROUND_TRIP)
            waves = decoded.waves[-count:]
            compared[decoded.name] = write_set(set_folder(decoded.name), waves, rate)
        written = page.write_listening_page(folder / "listening.html", compared, real)
        log(f"blind listening test: {written['path']}")


def write_set(folder, waves, rate):
    """Write a set of clips, with pictures of those that the page shows, and return the paths."""
    paths = []
    for number, wave in enumerate(waves):
        path = folder / f"{number:03d}"
        if number < GALLERY:
            write_clip(path, wave, rate)
        else:
            files.write(path.with_suffix(".wav"), wave, rate)
        paths.append(path.with_suffix(".wav"))
    return paths


def write_clip(path, wave, rate):
    """Write a clip and its picture."""
    files.write(path.with_suffix(".wav"), wave, rate)
    spectrogram_image.save_spectrogram(path.with_suffix(".png"), wave, rate)


def read_excerpt(inputs, pair):
    """Return the training music that a clip is closest to.  # [N] or [A, N]"""
    train, rep = inputs.train, inputs.rep
    start = train.starts[pair["place"]] + round(pair["offset"] * rep.sample_rate)
    return crops.pcm_to_wave(train.read(start, rep.samples)[None])[0]
