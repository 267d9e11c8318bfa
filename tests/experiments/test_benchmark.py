"""The benchmark: every option has a row, and all arms are timed alike."""

import argparse
import time
import types

import jax
import jax.numpy as jnp
import pytest

from configs import base
from experiments.lib import stopwatch, tables
from experiments.performance import benchmark, benchmark_arms
from specdiff_jax.config import build

NOT_OPTIONS = {"dtype", "attention"}  # cudnn needs a GPU, and a dtype is the device's


def test_every_model_choice_is_timed():
    tiny, changes = base.get_config("tiny").model, benchmark_arms.OPTIONS.values()
    for field, choices in build.MODEL_CHOICES.items():
        timed = {tiny[field], *(change[field] for change in changes if field in change)}
        assert field in NOT_OPTIONS or set(choices) <= timed, field
    for field, value in tiny.items():
        if isinstance(value, bool):
            assert any(change.get(field, value) != value for change in changes), field


@pytest.mark.parametrize("setting", ["base", "tiny"])
def test_every_option_builds_a_model(setting):
    config, shape = benchmark_arms.make_job(setting, "cpu")
    names, plain = list(benchmark_arms.list_changes(config.model.to_dict())), config.model.to_dict()
    assert names[0] == "none" and {"norm=rms", "depth=4, scan"} <= set(names)
    for name in names:
        config.model.update(plain | benchmark_arms.OPTIONS[name])
        build.model(config, shape[1:])  # raises for an impossible combination


@pytest.fixture
def nano_job(nano, monkeypatch):
    shape = (2, *build.representation(nano).shape)
    monkeypatch.setattr(benchmark_arms, "make_job", lambda setting, device: (nano, shape))
    return nano


def test_options_have_rows_unless_they_change_nothing(nano_job, monkeypatch):
    few = {"none": {}, "registers=8": {"registers": 8}, "depth=2": {"depth": 2}}
    monkeypatch.setattr(benchmark_arms, "OPTIONS", few)
    fake_step = lambda config, shape: (lambda index: None, {"registers": config.model.registers})
    monkeypatch.setattr(benchmark_arms, "train_step", fake_step)
    none, registers = benchmark_arms.time_options("tiny", 4, "cpu")
    assert (none["change"], registers["change"]) == ("none", "registers=8")
    assert (none["registers"], registers["registers"]) == (0, 8)
    assert len(none["seconds"]) == len(registers["seconds"]) == 4


@pytest.mark.slow
def test_sampler_row_has_its_real_time_factor(nano_job, monkeypatch):
    monkeypatch.setattr(benchmark_arms, "SAMPLERS", ("ddim",))
    monkeypatch.setattr(benchmark_arms, "NFE", 3)
    (row,) = benchmark_arms.time_samplers("tiny", 1, "cpu")
    assert row["change"] == "sampler=ddim" and row["batch"] == benchmark_arms.CLIPS
    assert row["clip_seconds"] * 8000 == 31 * 64  # 32 frames with a hop of 64


def test_stopwatch_alternates_steps_and_drops_the_warm_up():
    turns = []
    steps = {name: lambda index, name=name: turns.append((name, index)) for name in "ab"}
    steps["slow"] = lambda index: time.sleep(0.02)
    seconds, others = stopwatch.time_steps(steps, 3)
    assert turns == [(name, index) for index in range(stopwatch.WARMUP + 3) for name in "ab"]
    assert [len(values) for values in seconds.values()] == [3, 3, 3]
    assert min(seconds["slow"]) >= 0.02 > max(seconds["a"]) and (others is None or others < 64)


def test_row_has_the_median_and_the_ratio_to_the_unchanged_model():
    row = {"batch": 4, "seconds": [1.0, 2.0, 8.0], "clip_seconds": 3.0}
    benchmark.summarize(row, plain=[1.0, 1.0, 5.0])
    expected = {"batch": 4, "steps": 3, "examples_per_s": 2.0, "slowest": 0.5, "fastest": 4.0}
    assert row == expected | {"time_over_unchanged": 2.0, "real_time": 6.0}


def test_cpu_framework_starts_twice_and_reports_compiling_of_both(monkeypatch):
    costs = iter([{"compile_s": 9.0, "peak_gb": 2.0}, {"compile_s": 1.0, "peak_gb": 1.0}])
    rounds_of_children = []

    def child(arm, settings, args, rounds=None):
        rounds_of_children.append(rounds)
        return [{"tokens": 64, "seconds": [1.0 * len(rounds_of_children)]} | next(costs)]

    monkeypatch.setattr(benchmark, "run_child", child)
    (row,) = benchmark.start("jax", ["tiny"], types.SimpleNamespace(device="cpu"))
    both = {"compile_s": 9.0, "warm_start_s": 1.0, "peak_gb": 2.0, "warm_start_gb": 1.0}
    assert row == {"tokens": 64, "seconds": [2.0]} | both
    assert rounds_of_children == [1, None]
    assert benchmark.merge_starts({"note": "no compiler"}, {"note": "no compiler"}) == {
        "note": "no compiler"
    }


def test_rows_of_other_measurements_are_kept(tmp_path):
    usual = {"framework": "jax", "device": "cpu", "examples_per_s": "1.0"}
    row = lambda setting, **more: {"setting": setting} | usual | more
    old = [
        row("base"),
        row("base", framework="torch eager"),
        row("base", device="cuda"),
        row("tiny", change="norm=rms"),
        row("tiny", change="sampler=ddim"),
    ]
    tables.write_csv(tmp_path / "b.csv", old)
    assert tables.read_csv(tmp_path / "b.csv") == old and tables.read_csv(tmp_path / "no.csv") == []
    assert benchmark.keep_rows(old, [row("base")]) == old[1:]
    assert benchmark.keep_rows(old, [row("tiny", change="none")]) == old[:3] + old[4:]
    assert benchmark.keep_rows(old, [row("tiny", change="sampler=heun")]) == old[:4]


def test_setting_may_name_its_batch():
    assert set(benchmark.NAMES) == set(benchmark_arms.SETTINGS)
    assert [benchmark.parse_setting(text) for text in ("base", "tiny@3")] == ["base", "tiny@3"]
    assert benchmark_arms.make_job("tiny@3", "cpu")[1] == (3, 128, 256, 1)
    assert (
        benchmark_arms.count_steps("tiny@3", None) == benchmark_arms.count_steps("tiny", None) == 30
    )
    for wrong in ("huge", "base@", "base@0", "base@x"):
        with pytest.raises(argparse.ArgumentTypeError, match="with @BATCH"):
            benchmark.parse_setting(wrong)


def test_out_of_memory_is_a_row_and_other_errors_raise():
    def arm(error):
        raise error

    for words in ("RESOURCE_EXHAUSTED: Out of memory", "CUDA out of memory. Tried to"):
        assert "does not fit" in benchmark.run_arm(arm, RuntimeError(words))["note"]
    with pytest.raises(RuntimeError, match="else"):
        benchmark.run_arm(arm, RuntimeError("something else"))


def test_every_option_keeps_bfloat16_between_blocks():
    """One float32 number would promote all that follows, and flash attention takes no float32."""
    config, shape = benchmark_arms.make_job("tiny", "cuda")
    plain = config.model.to_dict()
    for name, change in benchmark_arms.list_changes(plain).items():
        config.model.update(plain | change)
        model = build.model(config, shape[1:])
        x_t, t = jnp.zeros((1, *shape[1:])), jnp.zeros(1)
        init = lambda model=model, x_t=x_t, t=t: model.init_with_output(jax.random.key(0), x_t, t)
        (output, features), _ = jax.eval_shape(init)
        assert {tokens.dtype.name for tokens in features} == {"bfloat16"}, name
        assert output.dtype == jnp.float32, name
