"""Each module's command, as a user runs it, on the whole data set with few steps."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import imageio.v3 as iio
import pytest

from common.datasets import Dataset
from common.runs import read_csv
from tests.conftest import ROOT

COMMON = {"run.json", "history.csv", "steps.npz", "weights.npz", "curves.png", "training.gif"}
PICTURES = {"reconstructions.png"}

# module: options for a run of seconds, the files that it leaves besides, the frames of its GIF
RUNS = {
    "mlp_vae": (
        ["--epochs", "2", "--batch-size", "5000"],
        {"manifold.png", "latent.png"},
        3,
    ),
    "mlp_cvae": (
        ["--epochs", "1", "--batch-size", "5000", "--digit", "3"],
        {"manifold-3.png", "samples.png", "latent.png"},
        2,
    ),
    "conv_vae": (
        ["--epochs", "1", "--batch-size", "6000", "--filters", "4"],
        {"manifold.png", "latent.png"},
        2,
    ),
    "elbo_cvae": (
        ["--epochs", "1", "--batch-size", "6000", "--latent-dim", "5"],
        {"samples.png", "document.gif"},
        2,
    ),
    "rmsprop_vae": (
        ["--steps", "150", "--hidden", "32"],
        {"manifold.png", "latent.png"},
        3,
    ),
    "tfp_cvae": (
        ["--epochs", "1", "--batch-size", "7000", "--base-depth", "2"],
        {"class-8.png", "class-9.png", "samples.png", "latent.png"},
        2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("module", RUNS)
def test_command(module: str, tmp_path: Path, whole: Callable[[str], Dataset]) -> None:
    whole("fashion_mnist" if module == "conv_vae" else "mnist")
    options, pictures, frames = RUNS[module]
    folder = tmp_path / "run"
    command = [sys.executable, "-m", f"reproductions.{module}", "--output", str(folder), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no chatter, no warnings

    files = {p.name for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")}
    assert files == COMMON | PICTURES | pictures
    record = json.loads((folder / "run.json").read_text())
    assert record["finished"] is True
    rows = read_csv((folder / "history.csv").read_text())
    assert len(rows) == frames - 1
    for name in files:
        if name.endswith(".png"):
            assert iio.imread(folder / name).std() > 0
    assert len(iio.imread(folder / "training.gif", index=None)) == frames
    if module == "elbo_cvae":
        epochs = sorted(p.name for p in (folder / "epochs").iterdir())
        assert epochs == ["image_at_epoch_0000.png", "image_at_epoch_0001.png"]
