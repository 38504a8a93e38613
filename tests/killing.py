"""`python -m tests.killing [module ...] [--kills N]`: runs that are killed end as runs left alone.

Each module is trained twice with a few steps: once left alone, once killed with SIGKILL at random
moments (while it starts, steps, writes a checkpoint, draws) and continued with `--resume` until it
is finished. Both must leave the same history (but for the seconds), weights, steps and pictures,
bit for bit. After every kill each file of the run must be whole.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import imageio.v3 as iio
import numpy as np

from common.runs import CheckpointFolder, read_csv
from tests.conftest import ROOT

OPTIONS = {
    "mlp_vae": ["--epochs", "20", "--batch-size", "500", "--hidden", "32"],
    "mlp_cvae": ["--epochs", "20", "--batch-size", "500", "--hidden", "32"],
    "conv_vae": ["--epochs", "3", "--batch-size", "1000", "--filters", "2"],
    "elbo_cvae": ["--epochs", "2", "--batch-size", "4000", "--latent-dim", "3"],
    "rmsprop_vae": ["--steps", "4000", "--hidden", "32"],
    "tfp_cvae": ["--epochs", "3", "--batch-size", "2000", "--base-depth", "1"],
}
# A checkpoint after every call of the graph, so that kills meet many of them.
EAGER = (
    "import sys; from common import training; training.CHECKPOINT_SECONDS = 0;"
    " from reproductions import {module}; sys.exit({module}.main(sys.argv[1:]))"
)


def start(module: str, folder: Path, *options: str) -> subprocess.Popen[str]:
    """Starts a module's command."""
    command = [sys.executable, "-c", EAGER.format(module=module), "--output", str(folder), *options]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
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
        if path.name.startswith(".") or not path.is_file():
            continue
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
    checkpoints = folder / "checkpoints"
    if checkpoints.exists() and any(checkpoints.glob("step-*.npz")):
        assert CheckpointFolder(checkpoints, lambda rows: None).latest() is not None


def check(module: str, kills: int, scratch: Path, seed: int = 0) -> list[str]:
    """Kills runs `kills` times at random moments and compares their ends with a run left alone.

    Returns:
      Where each kill fell: the last checkpoint then on the disk.
    """
    alone = scratch / "alone"
    began = time.monotonic()
    finish(start(module, alone, *OPTIONS[module]))
    length = time.monotonic() - began
    expected = outcome(alone)

    moments = random.Random(seed)
    places: list[str] = []
    run = 0
    while len(places) < kills:
        run += 1
        folder = scratch / f"killed-{run}"
        while not is_finished(folder):
            process = start(module, folder, *how(module, folder))
            # Most of a short run is start-up; the interesting part comes after.
            patience = length * moments.uniform(0.4, 1.0) if len(places) < kills else None
            try:
                process.wait(timeout=patience)
                finish(process)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.communicate()
                names = sorted(p.name for p in (folder / "checkpoints").glob("step-*.npz"))
                places.append(names[-1][:14] if names else "no checkpoint")
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
    for module in options.modules or OPTIONS:
        with tempfile.TemporaryDirectory() as scratch:
            places = check(module, options.kills, Path(scratch))
        print(f"{module}: {len(places)} kills, the same bits; killed at {', '.join(places)}")


if __name__ == "__main__":
    main()
