"""--mode=export: a checkpoint as a folder to share, in the layout of the Hugging Face Hub.

model.safetensors (plain weights, LoRA merged), config.json (what they are), README.md (a card).
"""

import importlib.resources
import pathlib
import string

import jax

from specdiff_jax.audio import representation as representations
from specdiff_jax.models import weights
from specdiff_jax.runtime.files import read_json
from specdiff_jax.runtime.logs import log
from specdiff_jax.runtime.text import first_line
from specdiff_jax.training.trained_model import load


def run(config):
    """Write workdir/export/step_.../ and upload it where export.repo is set.

    Other weights of the same step, not averaged or with LoRA at another scale, have a folder each.
    """
    s = config.sample
    model = load(config.workdir, s.checkpoint_step, s.ema, s.lora_scale)
    average = "" if s.ema else "_not_averaged"
    scale = "" if s.lora_scale is None else f"_lora_{s.lora_scale:g}"
    name = f"step_{model.step:08d}{average}{scale}"
    folder = pathlib.Path(config.workdir) / "export" / name
    about = {
        "step": model.step,
        "ema": s.ema,
        "config": model.config.to_dict(),
        "representation": representations.to_dict(model.rep),
        "vocabulary": model.vocabulary.to_dict(),
    }
    weights.save_weights(folder, jax.device_get(model.params), about)
    (folder / "README.md").write_text(model_card(model))
    log(f"exported: {folder}")
    if config.export.repo is not None:
        log(f"uploaded: {upload(folder, config.export.repo)}")


def model_card(model):
    """Return the text of the model card: data, origin, validation error, conditions."""
    health, rep = read_json(model.workdir / "health.json"), model.rep
    run = read_json(model.workdir / "config.json")  # `model.config` has no init_from any more
    origin = ((run or {}).get("finetune") or {}).get("init_from")
    errors = health and health["step"] == model.step and health["x0_error"]
    text = (
        importlib.resources.files("specdiff_jax.reports")
        .joinpath("templates", "model_card.md")
        .read_text("utf-8")
    )
    count = sum(x.size for x in jax.tree.leaves(model.params))
    return string.Template(text).substitute(
        name=model.config.name,
        parameters=f"{count:,}",
        step=f"{model.step:,}",
        seconds=f"{rep.samples / rep.sample_rate:.1f}",
        rate=f"{rep.sample_rate:,}",
        kind=rep.kind,
        source=model.config.data.source,
        origin=f", from the weights of `{origin}` on" if origin else "",
        error=f"{sum(errors) / len(errors):.4f}" if errors else "not measured at this step",
        conditions=model.vocabulary.describe(),
    )


def upload(folder, repo):
    """Upload a folder and return its address on the Hub.

    Raises:
      ValueError: the library is missing, or the Hub refuses.
    """
    try:
        import huggingface_hub

        api = huggingface_hub.HfApi()
        api.create_repo(repo, exist_ok=True)
        return api.upload_folder(folder_path=folder, repo_id=repo)
    except ImportError as error:
        raise ValueError("export.repo: pip install huggingface_hub") from error
    except Exception as error:  # the library raises many kinds; the user needs one line
        reason = first_line(error)
        raise ValueError(
            f"export.repo={repo!r}: the upload failed ({reason}); {folder} is written"
        ) from error
