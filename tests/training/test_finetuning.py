"""Fine-tuning: what is held stays to the bit, what begins begins where the other model stopped."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from configs import finetune
from specdiff_jax.conditioning.labels import Labels
from specdiff_jax.conditioning.prompts import UNCONDITIONAL
from specdiff_jax.conditioning.vocabulary import Vocabulary
from specdiff_jax.data import prepare
from specdiff_jax.models import lora
from specdiff_jax.sampling import check_config, generator, sample
from specdiff_jax.training import export, finetuning, init_from, train, trained_model
from specdiff_jax.training.diffusion_job import DiffusionJob
from tests.helpers.nano import small_config

LORA = {"lora_rank": 2, "lora_alpha": 4.0, "lora_layers": "qkv|out/kernel|Dense"}


@pytest.fixture(scope="module")
def first(music, caches, tmp_path_factory):
    """A run of a few steps, to begin from."""
    config = small_config(music, caches, tmp_path_factory.mktemp("first"))
    prepare.run(config)
    train.run(config)
    return config


@pytest.fixture
def config(first, tmp_path):
    """The same again elsewhere, from where that stopped."""
    result = first.copy_and_resolve_references()
    result.workdir = str(tmp_path / "second")
    result.finetune.init_from = first.workdir
    return result


def flat(params):
    return {"/".join(path): np.asarray(x) for path, x in flatten_dict(params).items()}


def after(config):
    train.run(config)
    return flat(trained_model.load(config.workdir, ema=False).params)


def test_init_from_starts_as_the_source_model(config, first):
    job, old = DiffusionJob(config), trained_model.load(first.workdir)
    state = job.start()
    for name, array in flat(old.params).items():
        np.testing.assert_array_equal(array, flat(state.params)[name])
    np.testing.assert_array_equal(job.rep.mean, old.rep.mean)
    errors = [run.x0_error([0.3, 0.7])(state.params) for run in (job, job)]
    np.testing.assert_array_equal(*errors)


@pytest.mark.parametrize(
    ("fields", "learns"),
    [
        ({"last_blocks": 1}, lambda name: name.startswith(("block_1", "final", "patch_out"))),
        pytest.param(
            {"trainable": "SelfAttention"},
            lambda name: "SelfAttention" in name,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"last_blocks": 0, "trainable": "^time"},
            lambda name: name.startswith(("time", "final", "patch_out")),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_frozen_parameters_are_unchanged_and_have_no_optimizer_state(config, first, fields, learns):
    config.finetune.update(fields)
    before, now = flat(trained_model.load(first.workdir).params), after(config)
    for name, array in before.items():
        assert np.array_equal(array, now[name]) == (not learns(name)), name
    job = DiffusionJob(config)
    sizes = [x.size for x in jax.tree.leaves(jax.eval_shape(job.init).opt_state) if x.ndim]
    assert sum(sizes) == 2 * sum(x.size for name, x in before.items() if learns(name))


@pytest.mark.slow
def test_lora_changes_nothing_at_first_and_at_scale_zero(config, first):
    config.finetune.update(LORA)
    job, old = DiffusionJob(config), trained_model.load(first.workdir)
    state = job.start()
    same = finetuning.merge_lora(config, state.params)
    for name, array in flat(old.params).items():
        np.testing.assert_array_equal(array, flat(same)[name])
    train.run(config)
    frozen, learned = (trained_model.load(config.workdir, lora_scale=s) for s in (0.0, None))
    for name, array in flat(old.params).items():
        np.testing.assert_array_equal(array, flat(frozen.params)[name])
        shifted = not np.array_equal(array, flat(learned.params)[name])
        assert shifted == bool(lora.re.search(LORA["lora_layers"], name) and array.ndim > 1), name
    updates = jax.tree.leaves(jax.eval_shape(job.init).params["lora"])
    sizes = [x.size for x in jax.tree.leaves(jax.eval_shape(job.init).opt_state) if x.ndim]
    assert sum(sizes) == 2 * sum(x.size for x in updates)


def test_merge_lora_adds_the_product_of_its_factors():
    rng = np.random.default_rng(0)
    params = {"a": {"kernel": rng.standard_normal((3, 4, 5))}, "b": {"kernel": np.ones((2, 2))}}
    updates = lora.init(jax.random.key(0), params, "a/kernel", 2)
    updates["a"]["kernel"]["b"] = jnp.asarray(rng.standard_normal((2, 5)))
    result = lora.merge(params, updates, 0.5)
    low = updates["a"]["kernel"]
    exact = params["a"]["kernel"] + 0.5 * np.einsum("ir,ro->io", low["a"], low["b"]).reshape(
        3, 4, 5
    )
    np.testing.assert_allclose(result["a"]["kernel"], exact, rtol=1e-6)
    assert result["b"]["kernel"] is params["b"]["kernel"]


def test_scale_by_depth_unfreezes_and_decays_by_block(config):
    config.finetune.update(layer_decay=0.5, unfreeze_every=2)
    tx, names = finetuning.scale_by_depth(config), ("patch_out", "block_1", "block_0", "patch_in")
    params = {name: {"kernel": jnp.ones(())} for name in names}
    state, seen = tx.init(params), []
    for _ in range(7):
        updates, state = tx.update(params, state)
        seen.append([float(updates[name]["kernel"]) for name in names])
    for step, values in enumerate(seen):
        assert values == [0.5**far * (step >= 2 * far) for far in range(4)]


@pytest.mark.slow
def test_finetuning_resumed_equals_uninterrupted(config, tmp_path):
    config.finetune.update(LORA | {"trainable": "patch_out"})
    config.optimizer.lr_schedule = "constant"
    whole = after(config)
    config.workdir = str(tmp_path / "again")
    config.train.num_steps = 3
    train.run(config)
    config.train.num_steps = 6
    halves = after(config)
    for name, array in whole.items():
        np.testing.assert_array_equal(array, halves[name])


def test_match_params_maps_labels_resizes_positions_and_reports(first):
    old = trained_model.load(first.workdir)
    there = {"condition": {"labels": np.arange(6.0).reshape(3, 2)}, "positions": np.ones((1, 8, 2))}
    there |= {"gone": np.ones(3), "same": np.full(2, 7.0)}
    old = trained_model.dataclasses.replace(
        old, params=there, vocabulary=Vocabulary((Labels(("a", "b", "c")),))
    )
    fresh = {"condition": {"labels": -np.ones((2, 2))}, "positions": np.zeros((1, 16, 2))}
    fresh |= {"same": np.zeros(2), "more": np.zeros(5)}
    shape = (old.rep.shape[0], 2 * old.rep.shape[1], 1)
    words = Vocabulary((Labels(("d", "b")),))
    params, outcomes = init_from.match_params(fresh, old, old.config, shape, words)
    np.testing.assert_array_equal(params["condition"]["labels"], [[-1, -1], [2, 3]])
    np.testing.assert_allclose(params["positions"], np.ones((1, 16, 2)))
    np.testing.assert_array_equal(params["same"], [7, 7])
    lines = "\n".join(init_from.describe_arrays("runs/first", outcomes))
    assert (
        "new 1 arrays, 5 parameters: more" in lines
        and "left out 1 arrays, 3 parameters: gone" in lines
    )
    assert "resized 2 arrays" in lines and "loaded 1 arrays" in lines
    lines = "\n".join(init_from.describe_labels(old.vocabulary, words))
    assert "loaded 1 labels" in lines and "new 1 labels: d" in lines
    assert "left out 2 labels: a, c" in lines
    assert not init_from.describe_labels(words, words)
    with pytest.raises(ValueError, match=r"same is \[2\] there and \[3\] here"):
        init_from.match_params(fresh | {"same": np.zeros(3)}, old, old.config, shape, words)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"finetune.init_from": None, "finetune.trainable": "time"},
            "finetune.trainable does nothing",
        ),
        ({"finetune.lora_rank": 2}, "need each other"),
        ({"finetune.trainable": "tiem"}, "finetune.trainable='tiem' matches no parameter"),
        (
            {"finetune.trainable": "pa(tch"},
            "finetune.trainable='pa.tch' is no regular expression: missing",
        ),
        ({"finetune.last_blocks": 3}, "finetune.last_blocks=3: there are 2"),
        ({"finetune.init_from": "runs/nowhere"}, "finetune.init_from='runs/nowhere' is no run"),
        ({"model.width": 64}, "is .* there and .* here; give model the sizes of that run"),
        ({"representation.n_mels": 16, "model.patch": (16, 4)}, "representation.n_mels is 32"),
        ({"sample.lora_scale": 0.5}, "was trained without LoRA"),
    ],
)
def test_finetuning_refuses_impossible_settings(config, first, change, message):
    for name, value in change.items():
        section, field = name.split(".")
        config[section][field] = value
    with pytest.raises(ValueError, match=message):
        check_config.check(config)
        DiffusionJob(config).start()
        sample.load_for_sampling(used(first, config))


def test_init_from_is_checked_before_work_and_not_after_a_start(first, config):
    init_from.check(config)
    config.representation.floor_db = -70.0
    with pytest.raises(ValueError, match="representation.floor_db is -80.0 in the run of"):
        init_from.check(config)
    config.finetune.init_from = "nowhere"
    with pytest.raises(ValueError, match="'nowhere' is no run"):
        init_from.check(config)
    config.finetune.init_from = f"{first.workdir}@5"
    with pytest.raises(ValueError, match="finetune.init_from=.*: there is no step 5, only "):
        init_from.check(config)
    config.workdir = first.workdir  # which has begun
    init_from.check(config)


def used(first, config):
    """The first run, sampled as the config says."""
    result = first.copy_and_resolve_references()
    result.sample = config.sample
    return result


def test_export_samples_the_same_and_can_be_finetuned(config, first, tmp_path):
    export.run(first)
    folder = pathlib.Path(first.workdir) / "export" / "step_00000006"
    ours, theirs = trained_model.load(first.workdir), trained_model.load(folder)
    for name, array in flat(ours.params).items():
        np.testing.assert_array_equal(array, flat(theirs.params)[name])
    clips = [(UNCONDITIONAL, 0)]
    waves = [generator.Generator(one, one.rep)(clips) for one in (ours, theirs)]
    np.testing.assert_array_equal(*waves)
    config.finetune.init_from = str(folder / "model.safetensors")
    state = DiffusionJob(config).start()
    np.testing.assert_array_equal(
        flat(state.params)["patch_in/kernel"], flat(ours.params)["patch_in/kernel"]
    )
    card = (folder / "README.md").read_text()
    assert card.startswith("---\n") and "$" not in card and "6 steps" in card
    assert "from the weights of" not in card
    begun = json.loads((pathlib.Path(first.workdir) / "config.json").read_text())
    begun["finetune"]["init_from"] = "runs/older"
    (tmp_path / "config.json").write_text(json.dumps(begun))
    assert "from the weights of `runs/older` on" in export.model_card(
        trained_model.dataclasses.replace(ours, workdir=tmp_path)
    )
    broken = bytearray((folder / "model.safetensors").read_bytes())
    broken[-1] ^= 1
    (folder / "model.safetensors").write_bytes(broken)
    with pytest.raises(ValueError, match="is not the file that config.json describes"):
        trained_model.load(folder)


@pytest.mark.slow
def test_export_merges_lora(config):
    config.finetune.update(LORA)
    train.run(config)
    export.run(config)
    folder = pathlib.Path(config.workdir) / "export" / "step_00000006"
    merged = flat(trained_model.load(config.workdir).params)
    for name, array in flat(trained_model.load(folder).params).items():
        np.testing.assert_array_equal(array, merged[name])
    assert (
        json.loads((folder / "config.json").read_text())["config"]["finetune"]["lora_rank"] is None
    )
    before = (folder / "model.safetensors").read_bytes()
    config.sample.update(lora_scale=0.5, ema=False)
    export.run(config)
    other = folder.with_name("step_00000006_not_averaged_lora_0.5")
    assert (folder / "model.safetensors").read_bytes() == before
    assert (other / "model.safetensors").read_bytes() != before


@pytest.mark.parametrize("way", finetune.WAYS)
def test_finetune_configs_pass_the_check(way):
    check_config.check(finetune.get_config(f"tiny,{way}"))
    check_config.check(finetune.get_config(f"base,{way}"))


def test_optimizer_without_finetuning_is_unchanged(config):
    config.finetune.init_from = None
    result = optax.sgd(1.0)
    assert finetuning.optimizer(config, result) is result


def test_export_uploads_whole_or_reports_one_line(first, monkeypatch):
    import huggingface_hub

    sent = []

    class Hub:
        def create_repo(self, repo, exist_ok):
            if repo == "nobody/nothing":
                raise RuntimeError("401 Unauthorized\nlong tale")

        def upload_folder(self, folder_path, repo_id):
            sent.extend(sorted(path.name for path in pathlib.Path(folder_path).iterdir()))
            return f"https://hub/{repo_id}"

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    config = first.copy_and_resolve_references()
    config.export.repo = "me/tiny"
    export.run(config)
    assert sent == ["README.md", "config.json", "model.safetensors"]
    config.export.repo = "nobody/nothing"
    with pytest.raises(ValueError, match=r"the upload failed \(401 Unauthorized\)"):
        export.run(config)
