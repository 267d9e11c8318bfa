"""The sounds that an evaluation leaves: its clips, their nearest training music, a blind test."""

from specdiff_jax.audio import files
from specdiff_jax.data import crops
from specdiff_jax.evaluation import controls
from specdiff_jax.evaluation.listening import page
from specdiff_jax.reports import spectrogram_image
from specdiff_jax.reports.evaluation_report import GALLERY, folder_name
from specdiff_jax.runtime.logs import log


def write_clips(folder, m, sets, found):
    """Writes clips/SET/000.wav ..., closest/SET/00_clip.wav, 00_song.wav ..., listening.html."""
    rate, made = m.rep.sample_rate, [clips for clips in sets if clips.kind == "generated"]
    into = lambda name: folder / "clips" / folder_name(name)
    paths = {clips.name: write_set(into(clips.name), clips.waves, rate) for clips in made}
    for clips in made:
        place = folder / "closest" / folder_name(clips.name)
        for number, pair in enumerate(found["closest"][clips.name]):
            write_clip(place / f"{number:02d}_clip", clips.waves[pair["clip"]], rate)
            write_clip(place / f"{number:02d}_song", read_excerpt(m, pair), rate)
    said = {str(k): wish.prompt or wish.labels or "" for wish, k in m.wishes[:GALLERY]}
    found["wishes"] = said if m.trained else {}
    if count := m.config.evaluate.listening_clips:
        real = write_set(into("real"), m.other.waves[:count], rate)
        judged = {name: mine[:count] for name, mine in paths.items()}
        if len(judged) < 2:  # a test needs two: how much the spectrogram alone costs
            back = next(clips for clips in sets if clips.name == controls.ROUND_TRIP)
            judged[back.name] = write_set(into(back.name), back.waves[-count:], rate)
        made = page.write_listening_page(folder / "listening.html", judged, real)
        log(f"blind listening test: {made['path']}")


def write_set(folder, waves, rate):
    """Writes a set of clips, pictures of those that the page shows, and returns the paths."""
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
    """A clip and its picture."""
    files.write(path.with_suffix(".wav"), wave, rate)
    spectrogram_image.save_spectrogram(path.with_suffix(".png"), wave, rate)


def read_excerpt(m, pair):
    """The training music that a clip is nearest to.  # [N] or [A, N]"""
    start = m.train.starts[pair["place"]] + round(pair["offset"] * m.rep.sample_rate)
    return crops.pcm_to_wave(m.train.read(start, m.rep.samples)[None])[0]
