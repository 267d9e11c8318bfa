"""What preflight holds a step against, and the trace of some steps."""

import gzip
import json

import jax
import jax.numpy as jnp
import pytest

from specdiff_jax.runtime import roofline
from specdiff_jax.runtime.profiler import WARM, Profile


def test_bytes_of_a_sum_are_its_inputs_and_output():
    a = jnp.ones((256, 128))
    compiled = jax.jit(lambda a, b: a + b).lower(a, a).compile()
    assert roofline.count_bytes(compiled) == 3 * 4 * 256 * 128


def test_a_product_takes_the_time_that_the_rate_says(monkeypatch):
    """Half the matrix, an eighth of the work, the same rate: within what a busy machine allows."""
    rates = []
    for size in (512, 1024):
        monkeypatch.setitem(roofline.SIZES, jax.default_backend(), size)
        rates.append(roofline.measure_matmul_rate("float32"))
    assert 0.2 < rates[0] / rates[1] < 5


def test_profile_holds_the_requested_steps(nano):
    nano.profile_steps = 2
    step = jax.jit(lambda x: jnp.sin(x) @ x)
    profile, x = Profile(nano, WARM + 4), jnp.ones((64, 64))
    for number in range(WARM + 4):
        profile.before(number, 1, x)
        x = step(x)
    profile.close()
    (trace,) = profile.folder.rglob("perfetto_trace.json.gz")
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    sines = [event for event in events if event.get("name") == "wrapped_sine"]  # XLA's own
    assert len(sines) == 2
    marks = [event["args"]["step_num"] for event in events if event.get("name") == "train"]
    assert [int(mark) for mark in marks] == [WARM, WARM + 1]
    assert list(profile.folder.rglob("*.xplane.pb"))  # for TensorBoard


def test_a_profile_of_no_step_is_refused(nano):
    nano.profile_steps = 2
    with pytest.raises(ValueError, match="profile_steps=2: only 2 dispatches are left"):
        Profile(nano, WARM)
