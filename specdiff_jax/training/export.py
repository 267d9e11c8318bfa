"""--mode=export: a checkpoint as a folder to give away, in the layout of the Hugging Face Hub.

model.safetensors (plain weights, LoRA merged), config.json (what they are), README.md (a card).
"""

import dataclasses
import importlib.resources
import pathlib
import string

import jax

from specdiff_jax.audio import representation as representations
from specdiff_jax.models import weights
from specdiff_jax.reports.run_files import read_json
from specdiff_jax.runtime.logs import log
from specdiff_jax.training.trained_model import load


def run(config):
    """Writes workdir/export/step_.../ and, where export.repo says so, uploads it.

    Other weights of the same step, not averaged or with LoRA at another strength, go elsewhere.
    """
    s = config.sample
    trained = load(config.workdir, s.checkpoint_step, s.ema, s.lora_scale)
    average = "" if s.ema else "_not_averaged"
    strength = "" if s.lora_scale is None else f"_lora_{s.lora_scale:g}"
    name = f"step_{trained.step:08d}{average}{strength}"
    folder = pathlib.Path(config.workdir) / "export" / name
    about = {
        "step": trained.step,
        "ema": s.ema,
        "config": trained.config.to_dict(),
        "representation": representations.to_dict(trained.rep),
        "vocabulary": dataclasses.asdict(trained.vocabulary),
    }
    weights.save_weights(folder, jax.device_get(trained.params), about)
    (folder / "README.md").write_text(card(trained))
    log(f"exported: {folder}")
    if config.export.repo is not None:
        log(f"uploaded: {upload(folder, config.export.repo)}")


def card(trained):
    """The model card: what it is, where it comes from, how good, how to use it."""
    health, rep = read_json(trained.workdir / "health.json"), trained.rep
    run = read_json(trained.workdir / "config.json")  # that of `trained` has forgotten its origin
    origin = ((run or {}).get("finetune") or {}).get("init_from")
    errors = health and health["step"] == trained.step and health["x0_error"]
    text = (
        importlib.resources.files("specdiff_jax.reports")
        .joinpath("templates", "model_card.md")
        .read_text("utf-8")
    )
    count = sum(x.size for x in jax.tree.leaves(trained.params))
    return string.Template(text).substitute(
        name=trained.config.name,
        parameters=f"{count:,}",
        step=f"{trained.step:,}",
        seconds=f"{rep.samples / rep.sample_rate:.1f}",
        rate=f"{rep.sample_rate:,}",
        kind=rep.kind,
        source=trained.config.data.source,
        origin=f", from the weights of `{origin}` on" if origin else "",
        error=f"{sum(errors) / len(errors):.4f}" if errors else "not measured at this step",
        hears=hears(trained.vocabulary),
    )


def hears(vocabulary):
    """What can be asked for, in words."""
    told = []
    if vocabulary.text:
        told.append(f"text, read by {vocabulary.text['name']}")
    if vocabulary.labels:
        told.append("labels: " + ", ".join(vocabulary.labels))
    if vocabulary.scalars:
        told.append("numbers: " + ", ".join(vocabulary.scalars))
    return "; ".join(told) or "nothing"


def upload(folder, repo):
    """The address of the folder on the Hub.

    Raises:
      ValueError: the library is missing, or the Hub says no.
    """
    try:
        import huggingface_hub

        api = huggingface_hub.HfApi()
        api.create_repo(repo, exist_ok=True)
        return api.upload_folder(folder_path=folder, repo_id=repo)
    except ImportError as error:
        raise ValueError("export.repo: pip install huggingface_hub") from error
    except Exception as error:  # the library raises many kinds; the user needs one line
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"export.repo={repo!r}: the upload failed ({reason}); {folder} is written"
        ) from error
