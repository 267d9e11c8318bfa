"""The page of a run shows a sample's sidecar as the sampler writes it."""

import types

import numpy as np
import pytest

from configs import base
from specdiff_jax.conditioning.prompts import Prompt
from specdiff_jax.reports.run_report import write_run_report
from specdiff_jax.sampling import sidecars
from tests.helpers.html_page import Page

PROMPT = Prompt("slow organ", "flute, church organ", "tempo=120", "drums", 3.5)
INFERRED = {"slow organ": ["organ", "slow"], "drums": ["snare"]}
EDIT = {"kind": "inpaint", "file": "song.wav", "seconds": [0.5, 1.0]}


@pytest.fixture
def workdir(tmp_path):
    """Return the workdir of one edited sample with a prompt of every field."""
    config = base.get_config()
    config.sample.update(seed=17, sampler="unipc", nfe=23, ema=False)
    model = types.SimpleNamespace(
        config=config, workdir=tmp_path, step=1234, sha256="1a2b3c4d5e" * 6
    )
    model.rep = types.SimpleNamespace(sample_rate=8000)
    generator = types.SimpleNamespace(branches=3, inferred_labels=INFERRED)
    edit = types.SimpleNamespace(name="inpaint-song", settings=EDIT)
    wave = np.random.default_rng(0).normal(size=(1, 8000)).astype(np.float32) / 10
    sidecars.write_clips(model, edit, [(PROMPT, 5)], wave, generator)
    return tmp_path


def test_sample_card_shows_every_fact_of_a_sidecar(workdir):
    text = Page(write_run_report(workdir)).text()
    assert "After step 1,234" in text and "Sample inpaint-song-slow_organ-005" in text
    for name, value in PROMPT.set_fields().items():
        assert f"{name}: {value}" in text
    for prompt, labels in INFERRED.items():
        assert f"labels inferred from '{prompt}': {', '.join(labels)}" in text
    for name, value in EDIT.items():
        assert f"edit.{name}: {value}" in text
    assert "seed 17 · unipc sampler · 23 NFE · no EMA · checkpoint 1a2b3c4d5e" in text


@pytest.mark.parametrize("field", ["seed", "sampler", "nfe", "ema", "checkpoint_sha256", "request"])
def test_sidecar_without_a_shown_field_is_refused(workdir, field):
    (path,) = workdir.glob("samples/*/*.json")
    path.write_text(path.read_text().replace(f'"{field}":', '"other":'))
    with pytest.raises(ValueError, match=rf"{path.name}: field '{field}' is missing"):
        write_run_report(workdir)
