"""Sets up TensorFlow before anything touches a device: quiet start, memory growth, kernels."""

from __future__ import annotations

import contextlib
import importlib
import os
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

# Those that can change a number; constraints.txt says with which the reference results were made.
PACKAGES = ("tensorflow", "tensorflow-probability", "tf-keras", "keras", "numpy", "scipy")
CONSTRAINTS = Path(__file__).parent.parent / "constraints.txt"
_prepared: ModuleType | None = None  # the TensorFlow that `load` has prepared


def load(name: str) -> ModuleType:
    """Imports `name` (TensorFlow first) and returns it; TensorFlow is prepared by `prepare`, even
    if it was imported by somebody else before."""
    global _prepared
    if _prepared and sys.modules.get("tensorflow") is _prepared and name in sys.modules:
        return sys.modules[name]
    os.environ["KERAS_BACKEND"] = "tensorflow"  # the documents are TensorFlow programs
    with _quiet():
        if "tensorflow" not in sys.modules:
            prefer_onednn()
        tf = importlib.import_module("tensorflow")
        if tf is not _prepared:
            prepare(tf)
            _prepared = tf
        return importlib.import_module(name)


def prefer_onednn() -> None:
    """Asks for oneDNN's kernels on any x86 processor; TensorFlow reads it when it is imported.

    By itself it uses them only where the processor has AVX-512 for neural networks; convolutions
    gain as much elsewhere (docs/performance.md). What TF_ENABLE_ONEDNN_OPTS says stays as it is.
    """
    if platform.machine() in ("x86_64", "AMD64"):
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def prepare(tf: Any) -> None:
    """Sets TensorFlow's options, before a device is used.

    Grappler's remapper is turned off. A GPU's memory grows as it is needed, as with the documents'
    `allow_growth`, and it multiplies float32 numbers with all their bits: the documents' TensorFlow
    did not know TF32, which keeps ten of the fraction's 23.

    Args:
      tf: the TensorFlow module. Where a GPU has been used already, its memory stays as it is.
    """
    # Grappler's remapper logs an error for leaky ReLU inside a loop, and is no faster elsewhere
    # (measured).
    tf.config.optimizer.set_experimental_options({"remapping": False})
    for gpu in tf.config.list_physical_devices("GPU"):
        with contextlib.suppress(RuntimeError):  # too late: it has been used
            tf.config.experimental.set_memory_growth(gpu, True)
    tf.config.experimental.enable_tensor_float_32_execution(False)


def on_gpu() -> bool:
    """Whether TensorFlow has a GPU to compute on."""
    return bool(load("tensorflow").config.get_visible_devices("GPU"))


def xla_for_convolutions(dtype: str) -> bool:
    """Whether XLA compiles a convolutional module: it is faster with it on a GPU, and slower on a
    CPU; in float64 it rounds too differently for the proof (docs/proof.md)."""
    return on_gpu() and dtype == "float32"


def describe() -> dict[str, Any]:
    """What can change the last bits of a run: versions, device, threads."""
    tf = load("tensorflow")
    return {
        "versions": {"python": platform.python_version(), **{p: version(p) for p in PACKAGES}},
        "device": [
            tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
            for gpu in tf.config.get_visible_devices("GPU")
        ]
        or "CPU",
        "machine": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "threads": {  # 0: one per core
            "intra_op": tf.config.threading.get_intra_op_parallelism_threads()
            or _number_in("TF_NUM_INTRAOP_THREADS"),
            "inter_op": tf.config.threading.get_inter_op_parallelism_threads()
            or _number_in("TF_NUM_INTEROP_THREADS"),
        },
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "default"),
    }


def _number_in(variable: str) -> int:
    """The number in an environment variable; 0 where there is none, as TensorFlow reads it."""
    try:
        return int(os.environ.get(variable, ""))
    except ValueError:
        return 0


def other_versions(constraints: Path = CONSTRAINTS) -> list[str]:
    """The packages whose versions are not those of the reference results: "keras 3.15.1", ...

    Args:
      constraints: a file of lines `package==version; marker`. Without it, as where the project was
        installed without its checkout, nothing is known, and the answer is [].
    """
    if not constraints.exists():
        return []
    lines = (
        line.partition(";")[0].strip()
        for line in constraints.read_text(encoding="utf-8").splitlines()
    )
    pinned = dict(line.split("==") for line in lines if "==" in line)
    return [f"{p} {pinned[p]}" for p in PACKAGES if p in pinned and version(p) != pinned[p]]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences TensorFlow's start-up chatter, unless TF_CPP_MIN_LOG_LEVEL asks for it.

    Some lines are written by native code before its logging is set up, so the file descriptor
    itself is turned away for as long as the import lasts. An exception still comes through.
    """
    level = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors only, after the import too
    if level in ("0", "1"):
        yield
        return
    sys.stderr.flush()
    try:
        saved = os.dup(2)
    except OSError:  # there is none, as in IDLE on Windows
        yield
        return
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
