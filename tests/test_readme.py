"""The Python of README.md and docs/sampling.md runs as it is written."""

import pathlib
import re

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize("page", ["README.md", "docs/sampling.md"])
def test_python_examples_run(page, trained_nano):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert '"runs/tiny"' in code
    short = code.replace("seconds=10.0", "seconds=0.4")  # clips of this model last 0.25 s
    names = {}
    exec(short.replace('"runs/tiny"', repr(trained_nano)), names)
    model, waves = names["model"], names["waves"]
    assert waves.shape == (4, 1, model.trained.rep.samples) and np.isfinite(waves).all()
