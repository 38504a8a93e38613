"""Each module's command with few steps: on the sample, and as a user runs it on the whole data."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import imageio.v3 as iio
import pytest

from common.runs import read_csv
from reproductions import MODULES, program
from tests.conftest import ROOT, Load, command, long_where, small_of, train_on

COMMON = {
    *("run.json", "history.csv", "steps.npz", "weights.npz"),
    *("curves.png", "reconstructions.png", "training.gif"),
}

# module: options for a run of seconds, the files that it leaves besides, the frames of its GIF
RUNS = {
    "mlp_vae": (
        ["--epochs", "2", "--batch-size", "1000"],
        {"manifold.png", "latent.png"},
        3,
    ),
    "mlp_cvae": (
        ["--epochs", "1", "--batch-size", "1000", "--digit", "3"],
        {"manifold-3.png", "samples.png", "latent.png"},
        2,
    ),
    "conv_vae": (
        ["--epochs", "1", "--batch-size", "400", "--filters", "4"],
        {"manifold.png", "latent.png"},
        2,
    ),
    "elbo_cvae": (
        ["--epochs", "1", "--batch-size", "400", "--latent-dim", "5"],
        {"samples.png", "document.gif"},
        2,
    ),
    "rmsprop_vae": (
        ["--steps", "150", "--hidden", "32"],
        {"manifold.png", "latent.png"},
        3,
    ),
    "tfp_cvae": (
        ["--epochs", "1", "--batch-size", "400", "--base-depth", "2"],
        {"class-8.png", "class-9.png", "samples.png", "latent.png"},
        2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("module", [module for module in MODULES if module != "elbo_cvae"])
def test_a_command_leaves_its_files_and_says_nothing_on_stderr(
    module: str, on_sample: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    train_on(monkeypatch, lambda name: small_of(module))
    assert program(module).main(["--output", "run", *RUNS[module][0]]) == 0
    assert chatter(module, capfd.readouterr().err) == []
    assert_complete(module, on_sample / "run")


@pytest.mark.parametrize("module", long_where(lambda module: module != "rmsprop_vae", MODULES))
def test_a_user_trains_on_the_whole_data_set(module: str, tmp_path: Path, whole: Load) -> None:
    """One of them, rmsprop_vae, is started as a user does and evaluates as much."""
    whole(program(module).dataset)
    folder = tmp_path / "run"
    as_a_user = [sys.executable, "-m", f"reproductions.{module}"]
    start = as_a_user if module == "rmsprop_vae" else command(module, "evaluate_little(patch)")
    options = ["--output", str(folder), *RUNS[module][0]]
    done = subprocess.run([*start, *options], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert chatter(module, done.stderr) == []
    assert_complete(module, folder)


def chatter(module: str, errors: str) -> list[str]:
    """What was written to stderr, but for the line that other versions are installed."""
    expected = f"{module}: the reference results were made with "
    return [line for line in errors.splitlines() if not line.startswith(expected)]


def assert_complete(module: str, folder: Path) -> None:
    """The run is finished, and each of its files holds what it should."""
    _, pictures, frames = RUNS[module]
    files = {p.name for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")}
    assert files == COMMON | pictures
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
