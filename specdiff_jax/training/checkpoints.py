"""Checkpoints that restore whole or raise an error, and what a resume may change.

`workdir/checkpoints/00001000/` holds `state/` (orbax), `run.json` (config, representation, never
code) and, written last, `sha256.json` with a digest of every other file. A step is listed only
once that manifest is there, so a killed save is never taken for a checkpoint. The digests find
damage that array formats restore without an error.
"""

import json
import pathlib
import shutil
import sys
import threading

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from specdiff_jax.config.fields import json_equal
from specdiff_jax.runtime import distributed, mesh
from specdiff_jax.runtime.files import hash_file, write_bytes
from specdiff_jax.runtime.logs import log
from specdiff_jax.runtime.text import first_line

MANIFEST = "sha256.json"
FORMAT = 3  # of run.json; another one is refused
FREE = (
    "name",
    "workdir",
    "sample",
    "edit",
    "demo",
    "evaluate",
    "sweep",
    "export",
    "search",
    "head",
    "tag",
    "embed",
    "valid",
    "mesh",
    "profile_steps",
)  # may change between a checkpoint and its resume
FREE_FIELDS = {  # of the others
    "train": ("num_steps", "num_epochs", "eval_every", "checkpoint_every", "max_to_keep"),
    "model": ("attention", "remat", "dtype"),  # how it is computed, not what
}


def folder_of(workdir, step):
    """Return the folder of a step."""
    return pathlib.Path(workdir).absolute() / "checkpoints" / f"{step:08d}"


def steps(workdir):
    """List the complete steps, oldest first."""
    manifests = (pathlib.Path(workdir) / "checkpoints").glob(f"*/{MANIFEST}")
    return sorted(int(path.parent.name) for path in manifests if path.parent.name.isdigit())


def digests(folder):
    """Return {relative path: sha256} of every file of a checkpoint but its manifest."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {path.relative_to(folder).as_posix(): hash_file(path) for path in files}


def hide_closed_loops(unraisable, shown=sys.unraisablehook):
    """Drop the tracebacks of a failed save's writers once its event loop is closed.

    The failure itself is raised by `Writer.finish`, in one line.
    """
    if "Event loop is closed" not in str(unraisable.exc_value):
        shown(unraisable)


class Writer:
    """Saves in the background; `finish` waits and raises the error of a failed save.

    Several processes of one job save in the foreground: each writes its own shards, and their
    barriers must come in the same order in all of them. They must share the disk.
    """

    def __init__(self, workdir, keep):
        sys.unraisablehook = hide_closed_loops
        self.workdir, self.keep = workdir, keep
        self.thread, self.error = None, None

    def save(self, state, run):
        """Start saving a state with `run`, a JSON-able dict. Raise an earlier save's error."""
        self.finish()
        step = int(state.step)
        folder = folder_of(self.workdir, step)
        if distributed.is_single_process():
            state = jax.tree.map(jnp.copy, state)  # the next dispatch donates the original
            self.thread = threading.Thread(target=self._write, args=(folder, state, run))
            self.thread.start()
        else:
            self._write(folder, state, run)
            self.finish()

    def _write(self, folder, state, run):
        try:
            if distributed.is_first_process():
                self._open(folder, state, run)
            distributed.sync_processes("checkpoint opened")
            with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
                checkpointer.save(folder / "state", args=ocp.args.StandardSave(state))
            if distributed.is_first_process():
                self._close(folder)
            distributed.sync_processes("checkpoint closed")
        except Exception as error:  # a full disk shows up as several kinds
            self.error = error

    def _open(self, folder, state, run):
        shutil.rmtree(folder, ignore_errors=True)  # a killed save's remains
        folder.mkdir(parents=True)
        refuse_full_disk(folder, state)
        (folder / "run.json").write_text(json.dumps({"format": FORMAT} | run))

    def _close(self, folder):
        write_bytes(folder / MANIFEST, json.dumps(digests(folder), indent=1))
        self._remove_old()

    def _remove_old(self):
        for step in steps(self.workdir)[: -self.keep]:
            folder = folder_of(self.workdir, step)
            (folder / MANIFEST).unlink()  # first: a killed removal leaves no listed step
            shutil.rmtree(folder)

    def finish(self):
        """Wait for the save in progress.

        Raises:
          OSError: it failed; earlier checkpoints are untouched.
        """
        if self.thread is not None:
            self.thread.join()
            self.thread = None
        if self.error is not None:
            error, self.error = self.error, None
            reason = first_line(error)[:200]
            raise OSError(
                f"{self.workdir}/checkpoints: saving failed ({reason}); free disk space or set "
                "workdir elsewhere, then run the same command again to resume"
            ) from error


def refuse_full_disk(folder, state):
    """Raise OSError where a state does not fit: array libraries fail late and with tracebacks."""
    needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(f"{needed / 1e6:.0f} MB needed, {free / 1e6:.0f} MB free")


def verify(folder):
    """Raise ValueError naming the first file whose digest is not the manifest's."""
    expected = json.loads((folder / MANIFEST).read_text())
    actual = digests(folder)
    for name in sorted(expected.keys() | actual.keys()):
        if expected.get(name) != actual.get(name):
            state = "missing" if name not in actual else "damaged"
            raise ValueError(f"{folder / name} is {state}")


def read_run(workdir, step):
    """Return the `run` dict that was saved with a step.

    Raises:
      ValueError: another version of the package wrote it.
    """
    saved = json.loads((folder_of(workdir, step) / "run.json").read_text())
    if saved.get("format") != FORMAT:
        raise ValueError(
            f"{folder_of(workdir, step)} has format {saved.get('format', 1)}, this version reads "
            f"format {FORMAT}; train again in another workdir"
        )
    return saved


def manifest_sha256(workdir, step):
    """Return one digest that identifies a whole checkpoint."""
    return hash_file(folder_of(workdir, step) / MANIFEST)


def newest_good(workdir, step=None):
    """Return the newest step that verifies, or `step` itself; None where there is no checkpoint.

    Raises:
      ValueError: there are checkpoints and none verifies, or `step` does not.
    """
    listed = steps(workdir)
    if step is not None and step not in listed:
        raise ValueError(f"sample.checkpoint_step={step} is not among the saved steps {listed}")
    problems = []
    for candidate in [step] if step is not None else reversed(listed):
        try:
            verify(folder_of(workdir, candidate))
            return candidate
        except (ValueError, OSError) as error:
            problems.append(str(error))
            log(f"checkpoint {candidate} is not used: {error}")
    if problems:
        raise ValueError(
            f"{workdir}/checkpoints: no checkpoint can be read ({problems[0]}); restore the files "
            "from a copy, or set workdir elsewhere to start again"
        )
    return None


def require_step(workdir, step=None):
    """Return `newest_good`; raise ValueError where there is no checkpoint."""
    step = newest_good(workdir, step)
    if step is None:
        raise ValueError(
            f"workdir={workdir} holds no checkpoint; train it first (--mode=train, tag or embed)"
        )
    return step


def restore(workdir, step, like):
    """Restore the state of a verified step on the present devices.

    Args:
      like: a TrainState of arrays or jax.ShapeDtypeStruct with the expected shapes and dtypes.

    Raises:
      ValueError: a parameter's shape or dtype is not the config's (orbax would cast it silently).
    """
    folder = folder_of(workdir, step) / "state"
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
        saved = checkpointer.metadata(folder).item_metadata.tree
        state = ocp.utils.serialize_tree(like, keep_empty_nodes=True)
        check_same(saved, state, folder)
        return checkpointer.restore(
            folder, args=ocp.args.StandardRestore(mesh.with_shardings(like))
        )


def restore_params(workdir, step, like, ema=True):
    """Restore the parameters of a verified step alone, or their average, on the first device.

    Args:
      like: a tree of jax.ShapeDtypeStruct, the expected parameters.

    Raises:
      ValueError: a parameter's shape or dtype is not the config's.
    """
    folder, name = folder_of(workdir, step) / "state", "ema_params" if ema else "params"
    home = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=home), like)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        saved = checkpointer.metadata(folder).item_metadata.tree
        check_same({name: saved[name]}, {name: like}, folder)
        restore_args = ocp.checkpoint_utils.construct_restore_args({name: like})
        args = ocp.args.PyTreeRestore({name: like}, restore_args, partial_restore=True)
        return checkpointer.restore(folder, args=args)[name]


def check_same(saved, wanted, folder):
    """Raise ValueError at the first leaf whose shape or dtype differs."""
    flatten = lambda tree: {
        jax.tree_util.keystr(path): (tuple(leaf.shape), jnp.dtype(leaf.dtype).name)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if hasattr(leaf, "shape")
    }
    saved, wanted = flatten(saved), flatten(wanted)
    for path in sorted(saved.keys() | wanted.keys()):
        if saved.get(path) != wanted.get(path):
            raise ValueError(
                f"{folder}: {path} is saved as {saved.get(path)}, the config wants "
                f"{wanted.get(path)}; use the config it was trained with"
            )


def refuse_changed(saved, config, free_sections=FREE):
    """Raise ValueError naming the first field that a resume may not change.

    Args:
      saved: the dict of the config that a checkpoint keeps; config: of the resume.
    """
    wanted, workdir = config.to_dict(), config.workdir
    for section in sorted(saved.keys() | wanted.keys()):
        old, new = saved.get(section), wanted.get(section)
        if section in free_sections or old == new:
            continue
        if not isinstance(old, dict) or not isinstance(new, dict):
            old, new, section = {section: old}, {section: new}, ""
        for field in sorted(old.keys() | new.keys()):
            free = field in FREE_FIELDS.get(section, ())
            if not free and json_equal(old.get(field)) != json_equal(new.get(field)):
                name = f"{section}.{field}".lstrip(".")
                raise ValueError(
                    f"{workdir} was trained with {name}={old.get(field)!r}, the config says "
                    f"{new.get(field)!r}; set workdir elsewhere or the field back"
                )
