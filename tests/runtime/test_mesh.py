"""Meshes: the same numbers on any, whatever is split, and no collective that is not needed."""

import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from specdiff_jax.runtime import mesh as meshes

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def report(music, caches, tmp_path_factory):
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "tests.helpers.on_meshes", tmp_path_factory.mktemp("meshes")]
    options = {"env": os.environ | flags, "cwd": ROOT, "capture_output": True, "text": True}
    done = subprocess.run([*command, music, caches], **options)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["8x1", "4x2", "1x8"])
def test_meshes_have_the_losses_of_one_device(report, mesh):
    for kind in ("losses", "valid"):
        assert len(report["1x1"][kind])
        np.testing.assert_allclose(report[mesh][kind], report["1x1"][kind], rtol=2e-5)


@pytest.mark.slow
def test_sharded_checkpoint_equals_that_of_one_device(report):
    assert report["split"] > 0
    assert report["same"]


@pytest.mark.slow
def test_clips_are_equal_on_every_device(report):
    assert report["sampled"] == {"same": True, "makers": 4, "devices": 4}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["data", "blockwise"])
def test_data_parallel_replicas_only_sum_gradients(report, name):
    """Nothing is gathered: not the sound for its FFT, not the songs, not the draws, no queries."""
    names = re.findall(r" (all-gather|all-to-all|collective-permute)\S*\(", report["program"][name])
    assert not names
    assert "all-reduce" in report["program"][name]


@pytest.mark.slow
def test_blockwise_attention_is_the_same_on_eight_devices(report):
    for kind in ("losses", "valid"):
        np.testing.assert_allclose(report["blockwise"][kind], report["1x1"][kind], rtol=2e-5)


@pytest.mark.slow
def test_fsdp_gathers_parameters_and_no_audio(report):
    """No gathered array is as long as the batch's sound."""
    gathered = re.findall(r"= (\w+)\[([\d,]*)\]\S* all-gather", report["program"]["fsdp"])
    assert gathered
    most = max(np.prod([int(n) for n in shape.split(",") if n]) for _, shape in gathered)
    assert most < 8 * 31 * 64


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("kernel", (32, 96), PartitionSpec(None, "fsdp")),
        ("kernel", (96, 33), PartitionSpec("fsdp", None)),
        ("kernel", (33, 35), PartitionSpec()),  # nothing that 4 divides
        ("embedding", (8, 4), PartitionSpec("fsdp", None)),
        ("bias", (96,), PartitionSpec()),
        ("scale", (96, 96), PartitionSpec()),
    ],
)
def test_the_rules_split_the_longest_axis_that_fits(name, shape, expected):
    path = (jax.tree_util.DictKey("block"), jax.tree_util.DictKey(name))
    assert meshes.spec(path, np.zeros(shape), 4) == expected


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("mesh.data", 2, "mesh.data=2 x mesh.fsdp=1 does not fit the 1 devices"),
        ("mesh.fsdp", 3, "mesh.data=1 x mesh.fsdp=3 does not fit"),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused(nano, field, value, message):
    nano.update_from_flattened_dict({field: value})
    with pytest.raises(ValueError, match=message):
        meshes.make_mesh(nano)
