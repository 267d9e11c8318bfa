"""Experiments: intervals, Fréchet distances, claims, plans and tables of finished runs."""

import concurrent.futures
import json
import os
import threading
import types

import jax
import numpy as np
import pytest
from scipy import linalg, stats

from configs import ablations, modern
from experiments.ablations import __main__ as runner
from experiments.ablations import claims, compare
from experiments.ablations import page as ablation_page
from experiments.downstream import retrieval
from experiments.generation import samplers, seams
from experiments.scaling import collectives, compile_for_gpu, plan
from specdiff_jax.config import build
from specdiff_jax.models import matmul
from specdiff_jax.runtime import xla_options
from specdiff_jax.sampling import check_config


@pytest.mark.parametrize("size", ["tiny", "base"])
@pytest.mark.parametrize("name", ablations.names())
def test_every_ablation_builds_and_has_a_question(name, size):
    config = ablations.get_config(f"{name}:{size}")
    check_config.check(config)
    assert ablations.names()[name].__doc__.endswith("?")
    fields = ("schedule", "diffusion", "model", "optimizer", "representation")
    control = ablations.get_config(f"control:{size}")
    same = all(config[field] == control[field] for field in fields)
    assert not same or (name, size) in {
        ("control", "tiny"),
        ("control", "base"),
        ("cosine", "tiny"),
        ("ddpm_linear", "base"),
        ("adaln_zero", "tiny"),
        ("swiglu", "tiny"),
        ("qk_norm", "tiny"),
        ("v_loss", "tiny"),
        ("x0_loss", "base"),
        ("gelu", "base"),
        ("free_scores", "base"),
        ("learned_positions", "base"),
        ("plain_x0", "base"),
        ("pre_ln", "base"),
        ("adam", "base"),
    }


def test_ablations_combine_and_refuse_unknown_names():
    config = ablations.get_config("v_prediction,muon:tiny")
    assert config.diffusion.prediction == "v" and config.optimizer.kind == "muon"
    with pytest.raises(ValueError, match="has no 'moun'; it has control"):
        ablations.get_config("moun:tiny")


def test_modern_has_the_parameters_of_base_and_fewer_flops():
    import jax
    import jax.numpy as jnp

    from configs import base
    from specdiff_jax.models.dit import count_flops

    work = []
    for config in (modern.get_config(), base.get_config()):
        check_config.check(config)
        model = build.model(config, build.representation(config).shape)
        x_t = jnp.zeros((1, *model.shape))
        params = jax.eval_shape(model.init, jax.random.key(0), x_t, jnp.zeros(1))["params"]
        work.append((sum(p.size for p in jax.tree.leaves(params)), sum(count_flops(model))))
    assert work[0][0] == pytest.approx(work[1][0], rel=0.02) and work[0][1] <= work[1][1]
    with pytest.raises(ValueError, match="has XS, S, B, L, XL, not 'huge'"):
        modern.get_config("huge")


def test_interval_equals_students():
    values = np.random.default_rng(0).normal(size=5)
    mean, half = runner.interval(values)
    low, high = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high))
    assert np.isnan(runner.interval([1.0])[1])


def row(name, seed, error):
    common = {"steps": 10, "seconds": 1.0, "parameters": 5, "bound_nats": 0.1}
    return {"name": name, "seed": seed, "over_linear_frame": error, "x0_error": error} | common


def test_summary_compares_equal_seeds_and_sorts_best_first():
    rows = [
        row("control", 0, 1.0),
        row("control", 1, 2.0),
        row("muon", 0, 0.9),
        row("muon", 1, 1.8),
    ]
    best, second = runner.summarize(rows)
    assert best["name"] == "muon" and second["name"] == "control"
    assert best["change"] == pytest.approx(-0.1) and best["change_half"] == pytest.approx(
        0, abs=1e-9
    )


def test_summary_has_no_change_where_the_control_failed(tmp_path):
    rows = [row("control", 0, 1.0), row("muon", 0, 0.9), row("muon", 1, 5.0), row("adam", 1, 2.0)]
    summary = {line["name"]: line for line in runner.summarize(rows)}
    assert summary["muon"]["change"] == pytest.approx(-0.1) and summary["muon"]["seeds"] == 2
    assert np.isnan(summary["adam"]["change"])
    ablation_page.draw(tmp_path / "a.png", list(summary.values()))
    page = ablation_page.write_page(
        tmp_path / "a.html", list(summary.values()), dict.fromkeys(summary, tmp_path)
    )
    assert "nan" not in page.read_text()


def test_ablation_refuses_zero_steps(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["ablations", "--steps", "0"])
    with pytest.raises(SystemExit) as caught:
        runner.parse_arguments()
    assert caught.value.code == 2 and "--steps 0 is not at least 1" in capsys.readouterr().err


def test_finished_runs_are_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "RUNS", tmp_path)
    monkeypatch.setattr(runner.subprocess, "run", lambda *_, **__: pytest.fail("ran an arm"))
    args = types.SimpleNamespace(size="tiny", steps=10, names=["muon"], seeds=[0])
    for name in ("control", "muon"):
        folder = runner.workdir_of(args, name, 0)
        folder.mkdir(parents=True)
        (folder / "row.json").write_text(json.dumps(row(name, 0, 1.0)))
    free = types.SimpleNamespace(get=lambda: None, put=lambda _: None)
    assert runner.run_arm(args, "muon", 0, free) == row("muon", 0, 1.0)


def test_page_needs_no_clips(tmp_path):
    rows = [row("control", 0, 1.0), row("muon", 0, 0.9)]
    summary = runner.summarize(rows)
    path = ablation_page.write_page(
        tmp_path / "a.html", summary, {r["name"]: tmp_path for r in rows}
    )
    assert "muon" in path.read_text() and "Orthogonal updates" in path.read_text()
    ablation_page.draw(tmp_path / "a.png", summary)
    assert (tmp_path / "a.png").stat().st_size > 5000


def test_frechet_distance_equals_scipys_and_is_zero_for_equal_gaussians():
    rng = np.random.default_rng(0)
    gaussians = []
    for _ in range(2):
        mixing = rng.normal(size=(6, 6))
        gaussians.append((rng.normal(size=6), mixing @ mixing.T))
    (m, a), (n, b) = gaussians
    expected = np.sum((m - n) ** 2) + np.trace(a + b - 2 * linalg.sqrtm(a @ b).real)
    assert samplers.frechet(*gaussians) == pytest.approx(expected, rel=1e-9)
    assert samplers.frechet(gaussians[0], gaussians[0]) == pytest.approx(0, abs=1e-9)


def test_comparison_lists_only_differences():
    lines = compare.compare("config", {"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4})
    assert [line.split() for line in lines[1:]] == [["b", "2", "3"], ["c", "(none)", "4"]]
    assert compare.compare("config", {"a": 1}, {"a": 1}) == ["config: no difference"]
    assert compare.flatten({"x": {"y": 1}, "z": 2}) == {"x.y": 1, "z": 2}


def test_seam_ratio_is_one_without_a_change_at_boundaries():
    edges = seams.boundaries(40, 16, 8)
    assert edges.tolist() == [8, 16, 24, 32]  # windows at 0, 8, 16, 24
    by_frame = np.ones((2, 40))
    np.testing.assert_allclose(seams.ratios(by_frame, edges), 1)
    by_frame[1, edges] = 3
    np.testing.assert_allclose(seams.ratios(by_frame, edges), [1, 3])
    np.testing.assert_allclose(seams.ratios(by_frame, edges + 1), [1, 36 / (36 + 2 * 4)])
    assert seams.boundaries(16, 16, 8).size == 0


def test_claim_has_one_owner_at_a_time(tmp_path):
    barrier = threading.Barrier(8)

    def work(_):
        barrier.wait()
        with claims.claimed(tmp_path / "arm") as is_ours:
            barrier.wait()  # no claim ends before all have tried
            return is_ours

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(work, range(8))) == 1
    with claims.claimed(tmp_path / "arm") as is_ours:
        assert is_ours


def test_stale_claim_passes_to_one_process(tmp_path):
    (tmp_path / "claim.json").write_text("{}")
    os.utime(tmp_path / "claim.json", (0, 0))
    with claims.claimed(tmp_path) as first, claims.claimed(tmp_path) as second:
        assert first and not second
    (tmp_path / "claim.json").write_text("{}")
    with claims.claimed(tmp_path) as fresh:
        assert not fresh
    assert (tmp_path / "claim.json").exists()


def test_collectives_are_counted_with_their_bytes():
    text = """
      %a = f32[8,4]{1,0} all-reduce(f32[8,4]{1,0} %x), replica_groups={{0,1}}
      %b = (f32[2]{0}, bf16[4]{0}) all-reduce(f32[2]{0} %y, bf16[4]{0} %z)
      %c = f32[16]{0} all-gather-start(f32[2]{0} %w), dimensions={0}
      %d = f32[16]{0} add(f32[16]{0} %c, f32[16]{0} %c)
    """
    assert collectives.count_collectives(text) == {
        "all-reduce": (2, 4 * 32 + 4 * 2 + 2 * 4),
        "all-gather": (1, 64),
    }


@pytest.mark.slow
def test_plan_follows_its_formulas():
    """Eight times the GPUs take an eighth of the steps; a sharded state is an eighth on each."""
    few, many = plan.plan("S", 8), plan.plan("S", 64)
    assert many["steps"] == pytest.approx(few["steps"] / 8, abs=1)
    assert (
        few["inter_node_s"] < many["inter_node_s"]
    )  # the network is slower than the links of a node
    whole, split = plan.plan("L", 8), plan.plan("XL", 8)
    assert whole["mesh"].endswith("fsdp 1") and split["mesh"].endswith("fsdp 8")
    assert split["state_gb_per_gpu"] == pytest.approx(split["checkpoint_gb"] / 8, abs=0.01)


def test_retrieval_excludes_the_query_song():
    """Two windows a song. The first retrieves its song, the second its label, the third neither."""
    labels = (["game:a"], ["game:a"], ["game:b"])
    entries = tuple({"labels": [*own, "instrument:flute"]} for own in labels)
    song = np.repeat(np.arange(3), 2)
    same = song[:, None] == song[None]
    scores = types.SimpleNamespace(
        relevant=same, excluded=np.eye(6, dtype=bool), songs=types.SimpleNamespace(entries=entries)
    )
    angles = np.array([[0.0, 0.1], [0.3, 2.0], [1.9, 0.45]])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    results = retrieval.measure_precision(scores, vectors, "game")
    np.testing.assert_allclose(results["song"][0], [1.0, 1.0])
    # nearest of 0.3: 0.45, 0.1, 0.0, 1.9, 2.0; of 2.0: 1.9, 0.45, 0.3
    np.testing.assert_allclose(results["song"][1], [0.0, (1 / 5 + 1 / 3) / 2])
    # same label, other song: 0.1 and 0.0 are second and third for 0.3, third and fourth for 2.0
    np.testing.assert_allclose(
        results["label"][1], [0.0, ((1 / 2 + 2 / 3) / 2 + (1 / 3 + 2 / 4) / 2) / 2]
    )
    assert np.isnan(results["label"][2]).all()  # no other song has its label


def test_pretended_gpu_selects_bfloat16_and_ends():
    before = {"backend": jax.default_backend(), "dtype": matmul.resolve_dtype("auto")}
    with compile_for_gpu.pretend_gpu():
        assert matmul.resolve_dtype("auto") == "bfloat16" and xla_options.compiler_options() is None
    assert before == {"backend": jax.default_backend(), "dtype": matmul.resolve_dtype("auto")}
