"""The commands: bad input is one line and creates nothing; settings are refused or kept."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from common import datasets, plotting
from common.datasets import Dataset
from common.errors import BadInput
from reproductions import MODULES, program
from tests.conftest import ROOT

SMALL = ["--epochs", "1", "--batch-size", "1000", "--hidden", "4"]


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def on_sample(
    empty: Path, sample: Callable[[str], Dataset], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """An empty working folder where commands train on the small sample."""
    monkeypatch.setattr(datasets, "load", lambda name, data_dir=None, quiet=False: sample(name))
    return empty


def complaint(capsys: pytest.CaptureFixture[str], module: str) -> str:
    """What went to stderr: one line that begins with the module's name."""
    text = capsys.readouterr().err
    assert text.startswith(f"{module}: ")
    assert text.count("\n") == 1
    assert "Traceback" not in text
    return text


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize(
    "arguments",
    [
        ["--epochs", "0"],
        ["--steps", "0"],
        ["--batch-size", "-1"],
        ["--batch-size", "1e9"],
        ["--batch-size", "99999999999"],
        ["--batch-size", "9" * 400],
        ["--batch-size", ""],
        ["--batch-size", "many"],
        ["--batch-size"],
        ["--learning-rate", "0"],
        ["--learning-rate", "nan"],
        ["--learning-rate", "inf"],
        ["--learning-rate", "-0.1"],
        ["--learning-rate", ""],
        ["--latent-dim", "0"],
        ["--seed", "-1"],
        ["--seed", "1.5"],
        ["--seed", str(2**63)],
        ["--dtype", "float16"],
        ["--output", ""],
        ["--data-dir", ""],
        ["--digit", "11"],
        ["--digit", "-1"],
        ["--no-such-option"],
        ["stray"],
        ["--resume"],
        ["--resume", "--output", "nowhere"],
        ["--quick", "--epochs", "3", "--steps", "3"],
    ],
    ids=" ".join,
)
def test_bad_input_is_one_line_and_creates_nothing(
    module: str, arguments: list[str], on_sample: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program(module).main(arguments) == 2
    complaint(capsys, module)
    assert list(on_sample.iterdir()) == []


@pytest.mark.parametrize("module", MODULES)
def test_every_setting_is_an_option_with_its_default(
    module: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        program(module).main(["--help"])
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for name, default in vars(program(module).config()).items():
        if name == "latent_dim" and module != "elbo_cvae":  # can be nothing but 2
            assert "--latent-dim" not in text
            continue
        assert f"--{name.replace('_', '-')}" in text
        assert default is None or f"(default: {default})" in text


@pytest.mark.parametrize("module", MODULES)
def test_help_and_bad_options_do_not_wait_for_tensorflow(module: str) -> None:
    script = f"""
import sys
from reproductions import {module}
try:
    {module}.main(["--help"])
except SystemExit:
    pass
assert {module}.main(["--epochs", "x"]) == 2
heavy = {{"tensorflow", "keras", "tf_keras", "matplotlib", "scipy", "imageio"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT, capture_output=True)


def test_the_list_of_modules_is_printed_without_tensorflow() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "reproductions"]
    done = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True)
    assert all(module in done.stdout for module in MODULES)
    assert "tensorflow" not in done.stderr


def test_a_finished_run_says_what_it_made(
    on_sample: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program("mlp_vae").main([*SMALL, "--seed", "3"]) == 0
    out = capsys.readouterr().out
    folder = on_sample / "artifacts" / "runs" / "mlp_vae" / "0001"
    record = json.loads((folder / "run.json").read_text())
    assert record["finished"] is True
    assert record["seed"] == 3
    assert record["config"]["hidden"] == 4
    assert record["environment"]["versions"]["tensorflow"]
    assert "epoch: 0001 cost= " in out
    for path in folder.iterdir():
        if path.is_file() and not path.name.startswith("."):
            assert path.name in out


def test_quiet_prints_nothing(on_sample: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert program("mlp_vae").main([*SMALL, "--quiet"]) == 0
    assert tuple(capfd.readouterr()) == ("", "")


def test_a_run_is_not_overwritten_nor_resumed_once_finished(
    on_sample: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = program("mlp_vae").main
    assert run([*SMALL, "--output", "mine"]) == 0
    before = {path: path.read_bytes() for path in Path("mine").iterdir() if path.is_file()}
    capsys.readouterr()
    assert run([*SMALL, "--output", "mine"]) == 2
    assert "not empty" in complaint(capsys, "mlp_vae")
    assert run(["--resume", "--output", "mine"]) == 2
    assert "is finished" in complaint(capsys, "mlp_vae")
    assert before == {path: path.read_bytes() for path in Path("mine").iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("option", "value"),
    [("batch-size", "999"), ("seed", "1"), ("dtype", "float64"), ("learning-rate", "0.5")],
)
def test_resuming_with_other_settings_is_refused_and_the_setting_named(
    option: str, value: str, on_sample: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = program("mlp_vae").main
    assert run([*SMALL, "--output", "mine"]) == 0
    record = json.loads(Path("mine/run.json").read_text()) | {"finished": False}
    Path("mine/run.json").write_text(json.dumps(record))
    capsys.readouterr()
    assert run(["--resume", "--output", "mine", f"--{option}", value]) == 2
    assert f"--{option}" in complaint(capsys, "mlp_vae")
    assert run(["--resume", "--output", "mine", *SMALL]) == 0  # the same settings are welcome


def test_a_run_that_goes_on_with_other_versions_says_so_and_keeps_both(
    on_sample: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = program("mlp_vae").main
    assert run([*SMALL, "--output", "mine", "--quiet"]) == 0
    record = json.loads(Path("mine/run.json").read_text())
    assert "earlier_sessions" not in record
    record["environment"]["versions"]["tensorflow"] = "2.20.0"
    Path("mine/run.json").write_text(json.dumps(record | {"finished": False}))
    capsys.readouterr()
    assert run(["--resume", "--output", "mine"]) == 0
    assert "goes on with other versions (run.json has both)" in complaint(capsys, "mlp_vae")
    record = json.loads(Path("mine/run.json").read_text())
    (earlier,) = record["earlier_sessions"]
    assert earlier["versions"]["tensorflow"] == "2.20.0"
    assert record["environment"]["versions"]["tensorflow"] != "2.20.0"


@pytest.mark.parametrize(
    ("damage", "said"),
    [({"config": {"gan": 1}}, "settings that mlp_vae has not"), ({"config": {}}, "does not fit")],
)
def test_a_run_with_other_settings_than_its_weights_is_one_line(
    damage: dict[str, object], said: str, on_sample: Path
) -> None:
    port = program("mlp_vae")
    assert port.main([*SMALL, "--output", "mine", "--quiet"]) == 0
    record = json.loads(Path("mine/run.json").read_text())
    Path("mine/run.json").write_text(json.dumps(record | damage))
    with pytest.raises(BadInput, match=said):
        port.load("mine")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["experiment", "figures"])
def test_a_signal_before_and_after_the_training_is_one_line(
    number: signal.Signals,
    moment: str,
    on_sample: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    port = program("mlp_vae")
    signalled = dataclasses.replace(port, **{moment: lambda *_: os.kill(os.getpid(), number)})
    handler = signal.getsignal(signal.SIGTERM)
    assert signalled.main([*SMALL, "--output", "my run", "--quiet"]) == 130
    line = complaint(capsys, "mlp_vae")
    assert line.startswith("mlp_vae: stopped. Continue with: ")
    assert line.endswith("--resume --output 'my run'\n")
    assert signal.getsignal(signal.SIGTERM) == handler
    assert port.main(["--resume", "--output", "my run", "--quiet"]) == 0


def test_pictures_say_which_settings_are_not_the_documents(
    on_sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = set()
    to_png = plotting.to_png
    monkeypatch.setattr(
        plotting, "to_png", lambda figure, note: (notes.add(note), to_png(figure, note))[1]
    )
    options = ["--epochs", "1", "--objective", "elbo", "--batch-size", "1000"]
    assert program("mlp_vae").main([*options, "--output", "mine", "--quiet"]) == 0
    assert notes == {"mlp_vae, 1 epochs, batch-size 1000, objective elbo, seed 0"}


def test_data_that_cannot_be_had_is_exit_3_and_creates_nothing(
    empty: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (empty / "data").mkdir()
    assert program("tfp_cvae").main(["--data-dir", "data"]) == 3
    assert "MNIST in data" in complaint(capsys, "tfp_cvae")
    assert [path.name for path in empty.iterdir()] == ["data"]


def test_a_loss_that_is_not_finite_is_exit_4(
    on_sample: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from reproductions import rmsprop_vae

    monkeypatch.setattr(rmsprop_vae, "LOG_GUARD", float("nan"))
    assert program("rmsprop_vae").main(["--steps", "3", "--hidden", "4"]) == 4
    text = complaint(capsys, "rmsprop_vae")
    assert "step 1 is nan" in text
    assert "learning rate 0.001" in text
    assert "checkpoint" in text


def test_a_finished_run_can_be_loaded_again(on_sample: Path) -> None:
    port = program("mlp_vae")
    assert port.main([*SMALL, "--output", "mine", "--quiet"]) == 0
    model = port.load("mine")
    with np.load("mine/weights.npz") as saved:
        for name, variable in zip(sorted(saved.files), model.values(), strict=True):
            np.testing.assert_array_equal(variable.numpy(), saved[name])
    with pytest.raises(BadInput, match="no finished run of tfp_cvae"):
        program("tfp_cvae").load("mine")


def test_tensorboard_gets_the_history_and_the_samples(on_sample: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    arguments = [*SMALL, "--output", "mine", "--quiet", "--tensorboard"]
    assert program("mlp_vae").main(arguments) == 0
    events = EventAccumulator("mine/tensorboard")
    events.Reload()
    tags = events.Tags()
    assert {"loss", "reconstruction", "kl"} <= set(tags["tensors"])
    assert "samples" in tags["tensors"]


def test_tensorboard_that_is_missing_is_said_before_anything_is_made(
    on_sample: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert program("mlp_vae").main(["--tensorboard"]) == 2
    assert "pip install tensorboard" in complaint(capsys, "mlp_vae")
    assert list(on_sample.iterdir()) == []


def test_an_unknown_objective_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert program("mlp_vae").main(["--objective", "gan"]) == 2
    error = capsys.readouterr().err
    assert "document" in error and "elbo" in error
    assert len(error.splitlines()) == 1
