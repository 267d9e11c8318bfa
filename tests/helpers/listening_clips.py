"""Sound files for a listening test, and names that a page must escape."""

import numpy as np

from specdiff_jax.audio import files
from tests.helpers import synth

RATE = 16000


HOSTILE = ["<script>alert(1)</script>\"'&", "two\nlines $title", "plain words"]


def write_clips(folder, names, count=3, seconds=1.0):
    """{name: paths}: chords with more noise and another level in each set."""
    result = {}
    for number, name in enumerate(names):
        result[name] = [folder / f"{number}_{place}.wav" for place in range(count)]
        for place, path in enumerate(result[name]):
            rng = np.random.default_rng(10 * number + place)
            wave = synth.chords(110 * 2 ** (2 * rng.random(2)), seconds / 2, RATE)
            wave = wave + 0.03 * number * rng.standard_normal(wave.size)
            files.write(path, 0.5 ** rng.integers(5) * wave, RATE)
    return result
