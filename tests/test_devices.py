"""Devices are prepared before their first use, TensorFlow starts quietly, and only when needed."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from common import devices, lazy
from common.chance import Seeded
from reproductions import program
from tests.conftest import python, small_of

HEAVY = ("tensorflow", "keras", "tf_keras", "tensorflow_probability")


def test_versions_other_than_the_pinned_ones_are_named(tmp_path: Path) -> None:
    constraints = tmp_path / "constraints.txt"
    right = f"numpy=={version('numpy')}; python_version >= '3.11'"
    constraints.write_text(f"# a comment\n{right}\ntensorflow==1.14.0\n")
    assert devices.other_versions(constraints) == ["tensorflow 1.14.0"]
    assert devices.other_versions(tmp_path / "none") == []


# --- Before the first use -------------------------------------------------------------------------


class FakeTensorFlow(ModuleType):
    """TensorFlow as far as devices go: writes down what is done to it, in order."""

    def __init__(self, gpus: int) -> None:
        super().__init__("tensorflow")
        self.log: list[Any] = []
        self.gpus = [f"GPU:{i}" for i in range(gpus)]
        self.config = self
        self.experimental = self
        self.optimizer = self
        self.used = False
        self.tf32 = True

    def list_physical_devices(self, kind: str | None = None) -> list[str]:
        return {"GPU": self.gpus, "CPU": ["CPU:0"], None: ["CPU:0", *self.gpus]}[kind]

    def set_memory_growth(self, device: str, enable: bool) -> None:
        if self.used:
            raise RuntimeError("Physical devices cannot be modified after being initialized")
        self.log.append((device, enable))

    def set_experimental_options(self, options: dict[str, bool]) -> None:
        pass

    def enable_tensor_float_32_execution(self, enabled: bool) -> None:
        self.tf32 = enabled

    def constant(self, value: int) -> int:
        self.used = True
        self.log.append("used")
        return value


@pytest.mark.parametrize(("value", "threads"), [("3", 3), ("", 0), ("abc", 0)])
def test_the_number_of_threads_is_read_as_tensorflow_reads_it(
    value: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", value)
    assert devices.describe()["threads"]["intra_op"] == threads


def test_a_gpu_multiplies_with_all_bits() -> None:
    assert not lazy.tf.config.experimental.tensor_float_32_execution_enabled()


@pytest.mark.parametrize("module", ["conv_vae", "elbo_cvae"])
def test_xla_compiles_convolutions_on_a_gpu_in_float32(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = program(module)

    def compiled(gpu: bool, dtype: str) -> bool:
        monkeypatch.setattr(devices, "on_gpu", lambda: gpu)
        return port.experiment(port.config(), small_of(module), Seeded(0), dtype).compile_with_xla

    assert not compiled(False, "float32")
    assert compiled(True, "float32")
    assert not compiled(True, "float64")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeTensorFlow:
    """Two GPUs, a TensorFlow that nobody has imported, and what imports it."""
    tf = FakeTensorFlow(2)
    for name in HEAVY:
        monkeypatch.delitem(sys.modules, name, raising=False)

    def import_module(name: str) -> ModuleType:
        if name not in sys.modules:
            tf.log.append(f"import {name}")
            module = tf if name == "tensorflow" else ModuleType(name)
            monkeypatch.setitem(sys.modules, name, module)
        return sys.modules[name]

    monkeypatch.setattr(devices.importlib, "import_module", import_module)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    return tf


GROWTH = [("GPU:0", True), ("GPU:1", True)]


def test_the_first_touch_of_tf_finds_its_devices_prepared(fake: FakeTensorFlow) -> None:
    tf = type(lazy.tf)("tensorflow")
    assert fake.log == []  # the name alone imports nothing
    assert tf.constant(1) == 1
    assert tf.constant(2) == 2
    assert fake.log == ["import tensorflow", *GROWTH, "used", "used"]


@pytest.mark.parametrize("name", ["keras", "tf_keras", "tensorflow_probability"])
def test_whatever_is_touched_first_devices_are_prepared_before_it_is_imported(
    fake: FakeTensorFlow, name: str
) -> None:
    """These import TensorFlow themselves: without preparation if they came first."""
    devices.load(name)
    assert fake.log == ["import tensorflow", *GROWTH, f"import {name}"]
    assert os.environ["KERAS_BACKEND"] == "tensorflow"
    devices.load(name)
    devices.load("tensorflow")
    assert len(fake.log) == 4  # once is enough


def test_a_tensorflow_that_somebody_else_imported_is_prepared(
    fake: FakeTensorFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", fake)
    devices.load("tensorflow")
    assert fake.log == GROWTH
    assert not fake.tf32


def test_a_gpu_that_is_in_use_already_is_no_error(
    fake: FakeTensorFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", fake)
    fake.constant(1)
    devices.load("tensorflow")
    assert fake.log == ["used"]  # its memory stays as it is
    assert not fake.tf32


@pytest.mark.parametrize(
    ("machine", "asked_for", "expected"),
    [("x86_64", None, "1"), ("AMD64", None, "1"), ("x86_64", "0", "0"), ("aarch64", None, None)],
)
def test_onednn_is_preferred_on_x86_unless_somebody_says_otherwise(
    fake: FakeTensorFlow,
    machine: str,
    asked_for: str | None,
    expected: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "")  # so that it is put back afterwards
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS")
    if asked_for is not None:
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", asked_for)
    monkeypatch.setattr(devices.platform, "machine", lambda: machine)
    at_import: list[str | None] = []
    monkeypatch.setattr(
        devices, "prepare", lambda tf: at_import.append(os.environ.get("TF_ENABLE_ONEDNN_OPTS"))
    )
    devices.load("keras")
    assert at_import == [expected]
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    devices.load("tensorflow")  # imported already: nothing is pretended
    assert os.environ.get("TF_ENABLE_ONEDNN_OPTS") is None


def test_a_failed_import_comes_through_and_stderr_comes_back(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        devices.load("no_such_module")
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"


@pytest.mark.parametrize("level", [None, "0", "1", "2", "3"])
def test_what_an_import_writes_is_heard_only_at_levels_0_and_1(
    level: str | None, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process started by one that has loaded TensorFlow inherits level 2: quiet, too."""
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "")  # so that it is put back afterwards
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")
    if level is not None:
        monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", level)

    def import_module(name: str) -> ModuleType:
        if name == "tensorflow":
            return tf
        os.write(2, b"native chatter")
        return ModuleType(name)

    tf = FakeTensorFlow(0)
    monkeypatch.setitem(sys.modules, "tensorflow", tf)
    monkeypatch.setattr(devices.importlib, "import_module", import_module)
    devices.load("chatty")
    assert capfd.readouterr().err == ("native chatter" if level in ("0", "1") else "")
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == (level or "2")


# --- The real one ---------------------------------------------------------------------------------


USE = "from common.lazy import tf; tf.constant(1)"
AFTERWARDS = """
from common.lazy import keras, tf_keras, tfp
keras.layers, tf_keras.layers, tfp.layers
import os, sys
growth = tf.config.experimental.get_memory_growth
print([growth(gpu) for gpu in tf.config.list_physical_devices("GPU")])
print("one", file=sys.stderr, flush=True)
os.write(2, b"two")
"""


@pytest.fixture(scope="module")
def started() -> subprocess.CompletedProcess[str]:
    """A program that starts TensorFlow and then writes to stderr."""
    return python(USE + AFTERWARDS)


def test_tensorflow_starts_without_a_word_and_what_follows_is_heard(
    started: subprocess.CompletedProcess[str],
) -> None:
    assert started.stderr == "one\ntwo"


def test_every_gpu_of_this_machine_has_memory_growth(
    started: subprocess.CompletedProcess[str],
) -> None:
    if started.stdout == "[]\n":
        pytest.skip("this machine has no GPU")
    assert "False" not in started.stdout


def test_tensorflow_speaks_when_asked_to() -> None:
    """The control of the test above: there is something to silence, and a way to hear it."""
    assert "tensorflow" in python(USE, TF_CPP_MIN_LOG_LEVEL="0").stderr.lower()
