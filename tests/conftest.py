"""What tests share: small samples for hermetic tests, the whole data sets for the proofs."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import gc
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from common import datasets, evaluation, pictures, plotting, training
from common.datasets import Dataset
from common.datasets import load as load_published
from common.errors import DataUnavailable
from reproductions import MODULES, program
from reproductions.evidence.documents import DOCUMENTS
from reproductions.evidence.sharpness import eager

if TYPE_CHECKING:
    from tests.chromium import Browser

Load = Callable[[str], Dataset]  # a data set by its name

SAMPLES = Path(__file__).parent / "samples"
ROOT = Path(__file__).parent.parent
PATIENCE = 60.0  # seconds until a child process counts as stuck
MOUNT, UMOUNT = shutil.which("mount"), shutil.which("umount")
SHIFTS = ((0, 1), (1, 0), (0, -1), (-1, 0), (1, 1))  # down and right, in pixels

SLOW = ("conv_vae", "elbo_cvae", "tfp_cvae")  # the convolutional modules
SLOW_DOCUMENTS = tuple(DOCUMENTS[module].number for module in SLOW)
CONDITIONAL = tuple(module for module in MODULES if program(module).draw)
# Modules that minimise an ELBO only if they are told to: as documented, the KL weighs less.
WITH_OBJECTIVE = tuple(m for m in MODULES if hasattr(program(m).config(), "objective"))
# Of mean reconstruction and mean KL in their objective, as documented; 1 and 1 in the others'.
FACTORS = {"mlp_vae": (128, 1), "mlp_cvae": (128, 1), "tfp_cvae": (256, 2)}
SLOW_FILES = ("miniature", "lockstep", "killing", "read_back", "smoke", "recorder")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slowest files come first: a worker that began one last would end long after the other."""
    items.sort(key=lambda item: item.path.stem.removeprefix("test_") not in SLOW_FILES)


def long_where(is_long: Callable[[Any], bool], values: Iterable[Any]) -> list[Any]:
    """Parameters of a test, marked `long` where its values say so."""
    return [
        pytest.param(
            *(v if type(v) is tuple else [v]), marks=[pytest.mark.long] if is_long(v) else []
        )
        for v in values
    ]


@cache
def small(name: str) -> Dataset:
    """6,000 different training images, because two of the documents hold 5,000 back; 500 for tests.

    The first 1,000 are those of the data set. The others are the same images moved by a pixel, in
    another order for each of five directions: no image comes twice, and labels that belong to
    images further on are wrong wherever one looks.
    """
    order = np.random.default_rng(0)
    with np.load(SAMPLES / f"{name}.npz") as arrays:
        first_images, first_labels = arrays["x_train"], arrays["y_train"]
        images, labels = [first_images], [first_labels]
        for shift in SHIFTS:
            chosen = order.permutation(len(first_images))
            images.append(np.roll(first_images[chosen], shift, axis=(1, 2)))
            labels.append(first_labels[chosen])
        return Dataset(
            name,
            tuple("0123456789"),
            np.concatenate(images),
            np.concatenate(labels),
            arrays["x_test"],
            arrays["y_test"],
        )


def small_of(module: str) -> Dataset:
    """A module's small data set; the convolutional ones, which hold no image back, have 600."""
    data = small(program(module).dataset)
    if module not in SLOW:
        return data
    return dataclasses.replace(
        data, train_images=data.train_images[:600], train_labels=data.train_labels[:600]
    )


def train_on(patch: pytest.MonkeyPatch, data: Load = small) -> None:
    """Commands train on `data(name)`, wherever they would load a whole data set."""
    patch.setattr(datasets, "load", lambda name, data_dir=None, quiet=False: data(name))


def evaluate_little(patch: pytest.MonkeyPatch) -> None:
    """Runs end with metrics of 3 images and of 20 drawn pictures of each digit.

    The usual 100 and 1,000 take longer than all else that the short runs of the tests do.
    """
    patch.setattr(evaluation, "evaluate", partial(evaluation.evaluate, images=3))
    patch.setattr(evaluation, "DRAWN", 20)


def save_often(patch: pytest.MonkeyPatch) -> None:
    """A checkpoint after every call of the graph."""
    patch.setattr(training, "CHECKPOINT_SECONDS", 0)


def command(module: str, *changes: str) -> list[str]:
    """What starts a module's command in a process, after changes such as "save_often(patch)"."""
    lines = [
        "import sys, pytest",
        "from tests.conftest import *",
        "patch = pytest.MonkeyPatch()",
        *changes,
        f"sys.exit(program({module!r}).main())",
    ]
    return [sys.executable, "-c", "\n".join(lines)]


def python(
    code: str, *arguments: str, cwd: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs a program in a fresh interpreter, at the root of the project; it must succeed."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("TF_", "KERAS_"))}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        env=inherited | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done


def complaint(capsys: pytest.CaptureFixture[str], name: str) -> str:
    """What a command wrote to stderr: one line that begins with its name."""
    text = capsys.readouterr().err
    assert text.startswith(f"{name}: ")
    assert text.count("\n") == 1
    assert "Traceback" not in text
    return text


def noted(patch: pytest.MonkeyPatch) -> tuple[list[str], list[tuple[str, str]]]:
    """Lists that fill up with the captions of a run's GIF, and with its pictures' words.

    Those are the title and the note of each picture, preview included.
    """
    captions: list[str] = []
    drawn: list[tuple[str, str]] = []
    gif, to_png = pictures.gif, plotting.to_png

    def noted_gif(frames: Any, lines: list[str]) -> bytes:
        captions.extend(lines)
        return gif(frames, lines)

    def noted_png(figure: Any, note: str) -> bytes:
        drawn.append((figure.get_suptitle() or figure.axes[0].get_title(), note))
        return to_png(figure, note)

    patch.setattr("common.program.gif", noted_gif)
    patch.setattr(plotting, "to_png", noted_png)
    return captions, drawn


@pytest.fixture(autouse=True, scope="module")
def _memory_is_given_back() -> Iterator[None]:
    """A trainer holds its images, and its graph holds the trainer: only a collection ends both.

    glibc keeps what XLA's compilations have freed, up to gigabytes, until it is asked for it.
    """
    yield
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another system, or another libc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


@pytest.fixture(autouse=True, scope="session")
def _sigint_is_heard() -> None:
    """A parent that ignores SIGINT (nohup, a background job) hands that on to its children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@cache
def _whole(name: str) -> Dataset | str:
    try:
        return load_published(name, quiet=True)  # whatever a test has put in its place
    except DataUnavailable as error:
        return str(error)


def load_whole(name: str) -> Dataset:
    """A whole data set, fetched if need be; where it cannot be, the test is skipped.

    Where the environment says that the proofs must run (REQUIRE_DATA), it fails instead.
    """
    data = _whole(name)
    if isinstance(data, str):
        if os.environ.get("REQUIRE_DATA"):
            pytest.fail(data)
        pytest.skip(data)
    return data


@pytest.fixture
def whole() -> Iterator[Load]:
    """`whole(name)` is a whole data set, see `load_whole`; what the test leaves is collected."""
    gc.freeze()  # what was there before, so that the collection is quick
    yield load_whole
    gc.collect()
    gc.unfreeze()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def on_sample(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder in which commands train on the small samples."""
    train_on(monkeypatch)
    evaluate_little(monkeypatch)
    return here


@pytest.fixture(scope="module")
def without_graphs() -> Iterator[None]:
    """For runs in this process whose few steps are sooner made than compiled."""
    with eager():
        yield


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Chromium, one for all tests of a file; where there is none, they are skipped."""
    from tests.chromium import CHROMIUM, chromium  # which needs Unix

    if not CHROMIUM:
        pytest.skip("no chromium on PATH")
    with chromium(tmp_path_factory.mktemp("profile")) as started:
        yield started


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """Mounts a disk of `size` bytes on `folder`; skips the test where that is not allowed."""
    folder.mkdir()
    if MOUNT is None or UMOUNT is None:
        pytest.skip("there is no mount")
    mount = [MOUNT, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a small disk takes root")
    try:
        yield folder
    finally:
        subprocess.run([UMOUNT, "--lazy", str(folder)], check=True)


def names(folder: Path) -> list[str]:
    """What lies in a folder, in order."""
    return sorted(os.listdir(folder))
