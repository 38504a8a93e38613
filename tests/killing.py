"""`python -m tests.killing [module ...] [--kills N]`: runs that are killed end as runs left alone.

Each module is trained twice on a small sample: once left alone, once killed with SIGKILL at random
moments (while it starts, steps, writes a checkpoint, draws) and continued with `--resume` until it
is finished. Both must leave the same history (but for the seconds), weights, steps and pictures,
bit for bit. After every kill each file of the run must be whole.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import imageio.v3 as iio
import numpy as np

from common.runs import CheckpointFolder, read_csv
from reproductions import MODULES
from tests.conftest import ROOT, command

OPTIONS = {
    "mlp_vae": ["--epochs", "20", "--batch-size", "50", "--hidden", "32"],
    "mlp_cvae": ["--epochs", "20", "--batch-size", "50", "--hidden", "32"],
    "conv_vae": ["--epochs", "3", "--batch-size", "50", "--filters", "2"],
    "elbo_cvae": ["--epochs", "3", "--batch-size", "50", "--latent-dim", "3"],
    "rmsprop_vae": ["--steps", "1500", "--hidden", "32"],
    "tfp_cvae": ["--epochs", "3", "--batch-size", "70", "--base-depth", "1"],  # the last of 40
}
NO_CHECKPOINT = "no checkpoint"


def start(module: str, folder: Path, *options: str) -> subprocess.Popen[str]:
    """Starts a module's command, which saves often so that kills meet many checkpoints."""
    on_small = f"train_on(patch, lambda name: small_of({module!r}))"
    started = command(module, on_small, "evaluate_little(patch)", "save_often(patch)")
    return subprocess.Popen(
        [*started, "--output", str(folder), *options],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> None:
    """Waits for a command that must succeed."""
    _, errors = process.communicate()
    if process.returncode != 0:
        raise AssertionError(f"exit {process.returncode}: {errors}")


def outcome(folder: Path) -> dict[str, bytes | list[dict[str, float]]]:
    """Everything that a run leaves but what tells the time."""
    files: dict[str, bytes | list[dict[str, float]]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".png", ".gif", ".npz") and path.parent.name != "checkpoints":
            files[str(path.relative_to(folder))] = path.read_bytes()
    rows = read_csv((folder / "history.csv").read_text())
    files["history"] = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
    return files


def assert_whole(folder: Path) -> None:
    """Every file that a reader would look at can be read to its end."""
    for path in folder.rglob("*"):
        if not path.name.startswith(".") and path.is_file():
            # While a run is at work, it removes all but its latest checkpoints.
            with contextlib.suppress(FileNotFoundError):
                read_to_its_end(path)
    checkpoints = folder / "checkpoints"
    if checkpoints.exists() and any(checkpoints.glob("step-*.npz")):
        with contextlib.suppress(FileNotFoundError):
            assert CheckpointFolder(checkpoints).latest() is not None


def read_to_its_end(path: Path) -> None:
    """Reads a file of a run."""
    if path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".csv":
        read_csv(path.read_text())
    elif path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            for name in archive.files:
                archive[name]
    elif path.suffix in (".png", ".gif"):
        iio.imread(path, index=None)


def check(module: str, kills: int, scratch: Path, seed: int = 0) -> list[str]:
    """Kills runs `kills` times at random moments and compares their ends with a run left alone.

    If all kills fell before a first checkpoint, more are made until one has met a checkpoint.

    Returns:
      Where each kill fell: the last checkpoint then on the disk.
    """
    alone = scratch / "alone"
    began = time.monotonic()
    finish(start(module, alone, *OPTIONS[module]))
    length = time.monotonic() - began
    expected = outcome(alone)
    assert any((alone / "checkpoints").iterdir())

    moments = random.Random(seed)
    places: list[str] = []
    run = 0

    def enough() -> bool:
        return len(places) >= kills and set(places) != {NO_CHECKPOINT}

    while not enough():
        run += 1
        folder = scratch / f"killed-{run}"
        while not is_finished(folder):
            process = start(module, folder, *how(module, folder))
            # Most of a short run is start-up; the interesting part comes after.
            patience = None if enough() else length * moments.uniform(0.4, 1.0)
            try:
                process.wait(timeout=patience)
                finish(process)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.communicate()
                names = sorted(p.name for p in (folder / "checkpoints").glob("step-*.npz"))
                places.append(names[-1][:14] if names else NO_CHECKPOINT)
            assert_whole(folder)
        got = outcome(folder)
        assert list(got) == list(expected)
        for name, content in expected.items():
            assert content == got[name], f"{name} differs"
    return places


def how(module: str, folder: Path) -> list[str]:
    """The options that start a run, or continue it if it has begun."""
    return ["--resume"] if (folder / "run.json").exists() else OPTIONS[module]


def is_finished(folder: Path) -> bool:
    """Whether the run says of itself that it is finished."""
    path = folder / "run.json"
    return path.exists() and json.loads(path.read_text())["finished"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="module", help="default: all")
    parser.add_argument("--kills", type=int, default=10)
    options = parser.parse_args()
    for module in options.modules or MODULES:
        with tempfile.TemporaryDirectory() as scratch:
            places = check(module, options.kills, Path(scratch))
        print(f"{module}: {len(places)} kills, the same bits; killed at {', '.join(places)}")


if __name__ == "__main__":
    main()
