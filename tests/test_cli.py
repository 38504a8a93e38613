"""The commands: bad input is one line and creates nothing; settings are refused or kept."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from common import display, plotting
from common.chance import Seeded
from common.cli import new_file, output_file, quoted, run_command
from common.errors import BadInput
from common.lazy import tf
from common.training import Progress, Trainer
from reproductions import MODULES, program, rmsprop_vae
from tests.conftest import (
    CONDITIONAL,
    complaint,
    evaluate_little,
    noted,
    python,
    small,
    train_on,
)

pytestmark = pytest.mark.usefixtures("without_graphs")
SMALL = ["--epochs", "1", "--batch-size", "1000", "--hidden", "4"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a finished run of mlp_vae on the sample, and what the run printed."""
    folder, printed = tmp_path_factory.mktemp("finished") / "run", io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        train_on(patch)
        evaluate_little(patch)
        assert program("mlp_vae").main([*SMALL, "--seed", "3", "--output", str(folder)]) == 0
    return folder, printed.getvalue()


@pytest.fixture
def mine(on_sample: Path, finished: tuple[Path, str]) -> Path:
    """A copy of the finished run, in the working folder."""
    return Path(shutil.copytree(finished[0], "mine"))


def change_record(run: Path, **changes: Any) -> None:
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | changes))


# --- Bad input ------------------------------------------------------------------------------------

BAD_INPUT = [
    ["--epochs", "0"],
    ["--steps", "0"],
    ["--batch-size", "9" * 400],
    ["--batch-size", ""],
    ["--batch-size", "many"],
    ["--batch-size"],
    ["--learning-rate", "0"],
    ["--learning-rate", "nan"],
    ["--learning-rate", "inf"],
    ["--learning-rate", ""],
    ["--latent-dim", "0"],
    ["--seed", "-1"],
    ["--seed", "1.5"],
    ["--seed", str(2**63)],
    ["--dtype", "float16"],
    ["--objective", "gan"],
    ["--output", ""],
    ["--data-dir", ""],
    ["--digit", "10"],
    ["--digit", "-1"],
    ["stray"],
    ["--resume", "--output", "nowhere"],
    ["--quick", "--epochs", "3"],
]
OF_EVERY_MODULE = [["--batch-size", "0"], ["--no-such-option"], ["--resume"]]


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        *(("tfp_cvae", arguments) for arguments in BAD_INPUT),
        *((module, arguments) for module in MODULES for arguments in OF_EVERY_MODULE),
        ("mlp_cvae", ["--digit", "10"]),
    ],
    ids=lambda part: part if isinstance(part, str) else " ".join(part)[:40],
)
def test_bad_input_is_one_line_and_creates_nothing(
    module: str, arguments: list[str], on_sample: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program(module).main(arguments) == 2
    complaint(capsys, module)
    assert list(on_sample.iterdir()) == []


def test_an_option_that_is_nearly_right_is_hinted_at(capsys: pytest.CaptureFixture[str]) -> None:
    assert program("mlp_vae").main(["--epoch", "3"]) == 2
    assert "did you mean --epochs?" in complaint(capsys, "mlp_vae")


@pytest.mark.parametrize("module", MODULES)
def test_every_setting_is_an_option_with_its_default(
    module: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        program(module).main(["--help"])
    assert stop.value.code == 0
    _, _, text = " ".join(capsys.readouterr().out.split()).partition(" options: ")
    told = dict(re.findall(r"--([\w-]+) (.*?)(?= --|$)", text))
    for name, default in vars(program(module).config()).items():
        assert default is None or f"(default: {default})" in told[name.replace("_", "-")]


HEAVY = {
    *("tensorflow", "tensorflow_probability", "keras", "tf_keras"),
    *("matplotlib", "scipy", "imageio"),
}


def test_help_bad_options_and_the_list_do_not_wait_for_tensorflow() -> None:
    script = f"""
import sys
import reproductions.verify
from reproductions import __main__, program
assert __main__.main([]) == 0
for module in {MODULES}:
    try:
        program(module).main(["--help"])
    except SystemExit:
        pass
    assert program(module).main(["--epochs", "x"]) == 2
heavy = {HEAVY} & set(sys.modules)
assert not heavy, heavy
"""
    python(script)


def test_output_that_nobody_wants_or_that_cannot_be_shown_ends_no_command() -> None:
    script = f"""
import os, sys
from common.cli import run_command
sys.stdout = None
assert run_command("x", lambda: print("nobody sees it")) == 0
sys.stdout = open({os.devnull!r}, "w", encoding="ascii")
assert run_command("x", lambda: print("half of it: ½")) == 0
"""
    python(script)


def test_paths_are_quoted_for_the_shell_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, spaced = Path("runs/1"), Path("my runs")
    assert [quoted(plain), quoted(spaced)] == ["runs/1", "'my runs'"]
    monkeypatch.setattr(os, "name", "nt")
    assert [quoted(plain), quoted(spaced)] == ["runs/1", '"my runs"']


@pytest.mark.parametrize("kind", [new_file, output_file])
def test_a_file_that_cannot_be_written_is_refused_before_the_work(
    kind: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kind("page.html") == Path("page.html")
    Path("file").touch()
    with pytest.raises(argparse.ArgumentTypeError):
        kind("file/page.html")
    monkeypatch.setattr(os, "access", lambda folder, mode: folder != here)
    with pytest.raises(argparse.ArgumentTypeError, match="cannot write to"):
        kind("page.html")


def test_a_command_whose_reader_is_gone_exits_1(monkeypatch: pytest.MonkeyPatch) -> None:
    def write() -> None:
        raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", sys.stdout)  # which the command takes away
    assert run_command("mlp_vae", write) == 1


def test_the_bar_of_a_resumed_run_counts_only_the_steps_of_this_session(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(display.sys.stderr, "isatty", lambda: True)
    experiment = SimpleNamespace(steps=100, round_name="step")
    shown = display.Display(experiment, quiet=False)  # type: ignore[arg-type]
    shown.on_start(Progress(step=60, losses=np.zeros([60, 3])))
    assert capsys.readouterr().out == "goes on after step 60\n"
    shown.on_steps(Progress(step=70, losses=np.array([[0.0, 0, 0]] * 69 + [[9, 7, 2]])))
    assert shown.bar is not None
    assert (shown.bar.n, shown.bar.initial) == (70, 60)
    assert shown.bar.postfix == "loss 9, reconstruction 7, KL 2"
    shown.close()


def test_data_that_is_not_available_is_exit_3_and_creates_nothing(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "data").mkdir()
    assert program("tfp_cvae").main(["--data-dir", "data"]) == 3
    assert "MNIST in data" in complaint(capsys, "tfp_cvae")
    assert [path.name for path in here.iterdir()] == ["data"]


# --- Runs -----------------------------------------------------------------------------------------


def test_a_finished_run_says_what_it_made(finished: tuple[Path, str]) -> None:
    folder, printed = finished
    record = json.loads((folder / "run.json").read_text())
    assert record["environment"]["versions"]["tensorflow"]
    assert "epoch: 0001 cost= " in printed
    for path in folder.iterdir():
        if path.is_file() and not path.name.startswith("."):
            assert path.name in printed


def test_pictures_say_which_settings_are_not_the_documents_and_quiet_prints_nothing(
    on_sample: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    _, drawn = noted(monkeypatch)
    options = ["--epochs", "1", "--objective", "elbo", "--batch-size", "1000"]
    assert program("mlp_vae").main([*options, "--quiet"]) == 0
    notes = {note for _, note in drawn}
    assert notes == {"mlp_vae, 1 epoch, batch-size 1000, objective elbo, seed 0"}
    assert tuple(capfd.readouterr()) == ("", "")
    assert (on_sample / "artifacts" / "runs" / "mlp_vae" / "0001" / "run.json").exists()


def test_a_preview_stands_in_the_folder_while_a_run_trains(
    on_sample: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn: list[tuple[Any, ...]] = []
    frames: list[np.ndarray] = []
    plain_preview = plotting.preview

    def preview(frame: np.ndarray, *rest: Any) -> Figure:
        drawn.append((len(rest[0]), *rest[1:3], rest[-1]))
        frames.append(frame)
        assert (Path("run") / "preview.png").exists() == (rest[0][-1]["step"] == 4)
        figure = plain_preview(frame, *rest)
        assert figure.axes[0].get_images()[0].get_clim() == (0, 255)
        return figure

    monkeypatch.setattr(plotting, "preview", preview)
    monkeypatch.setattr(rmsprop_vae, "STEPS_PER_ROW", 2)
    options = ["--steps", "5", "--hidden", "4", "--output", "run"]
    monkeypatch.setattr(display, "PREVIEW_SECONDS", 3600)
    assert rmsprop_vae.main([*options[:-1], "first"]) == 0
    assert drawn == [(1, "step", 5, "rmsprop_vae after step 2 of 5")]
    drawn.clear()
    monkeypatch.setattr(display, "PREVIEW_SECONDS", 0)
    capsys.readouterr()
    assert rmsprop_vae.main(options) == 0
    assert [rows for rows, *_ in drawn] == [1, 2]  # the third round is the last: no preview
    assert (frames[-1] != frames[-2]).any()  # each shows the model of its moment
    assert capsys.readouterr().out.count("preview.png") == 1
    assert not (Path("run") / "preview.png").exists()


def test_a_run_is_not_overwritten_nor_resumed_once_finished(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in mine.iterdir() if path.is_file()}
    assert program("mlp_vae").main([*SMALL, "--output", "mine"]) == 2
    assert "not empty" in complaint(capsys, "mlp_vae")
    assert program("mlp_vae").main(["--resume", "--output", "mine"]) == 2
    assert "is finished" in complaint(capsys, "mlp_vae")
    assert before == {path: path.read_bytes() for path in mine.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("option", "value"),
    [("batch-size", "999"), ("seed", "1"), ("dtype", "float64"), ("learning-rate", "0.5")],
)
def test_resuming_with_other_settings_is_refused_and_the_setting_named(
    option: str, value: str, mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change_record(mine, finished=False)
    assert program("mlp_vae").main(["--resume", "--output", "mine", f"--{option}", value]) == 2
    assert f"--{option}" in complaint(capsys, "mlp_vae")


def test_a_run_that_goes_on_with_other_versions_says_so_and_keeps_both(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = json.loads((mine / "run.json").read_text())["environment"]
    environment["versions"]["tensorflow"] = "2.20.0"
    change_record(mine, finished=False, environment=environment, source_sha256="other")
    same_settings = [*SMALL, "--seed", "3"]
    assert program("mlp_vae").main(["--resume", "--output", "mine", *same_settings]) == 0
    errors = capsys.readouterr().err
    assert "mlp_vae: resumed with other code and versions (run.json has both)" in errors
    record = json.loads((mine / "run.json").read_text())
    (earlier,) = record["earlier_sessions"]
    assert earlier["versions"]["tensorflow"] == "2.20.0"
    assert record["environment"]["versions"]["tensorflow"] != "2.20.0"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ({"gan": 1}, "settings that mlp_vae cannot have"),
        ({"hidden": True}, "hidden: True is not a whole number"),
        ({}, "does not fit"),
    ],
)
def test_a_run_with_other_settings_than_its_weights_is_one_line(
    damage: dict[str, int], said: str, mine: Path
) -> None:
    change_record(mine, config=damage)
    with pytest.raises(BadInput, match=said):
        program("mlp_vae").load("mine")


@pytest.mark.parametrize(
    ("number", "moment"), [(signal.SIGTERM, "experiment"), (signal.SIGINT, "pictures")]
)
def test_a_signal_before_and_after_the_training_is_one_line(
    number: signal.Signals, moment: str, on_sample: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = program("mlp_vae")
    stop: Any = {moment: lambda *_: os.kill(os.getpid(), number)}
    signalled = dataclasses.replace(port, **stop)
    handler = signal.getsignal(signal.SIGTERM)
    assert signalled.main([*SMALL, "--output", "my run", "--quiet"]) == 130
    line = complaint(capsys, "mlp_vae")
    assert line.startswith("mlp_vae: stopped. Continue with: ")
    assert line.endswith("--resume --output='my run'\n")
    assert signal.getsignal(signal.SIGTERM) == handler
    assert port.main(["--resume", "--output", "my run", "--quiet"]) == 0


def test_a_loss_that_is_not_finite_is_exit_4(
    on_sample: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rmsprop_vae, "LOG_GUARD", float("nan"))
    assert program("rmsprop_vae").main(["--steps", "3", "--hidden", "4", "--quiet"]) == 4
    text = complaint(capsys, "rmsprop_vae")
    assert "step 1 is nan" in text
    assert "learning rate 0.001" in text
    assert "checkpoint" in text


def test_a_last_step_that_spoils_the_weights_is_exit_4(
    on_sample: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = ["--steps", "1", "--learning-rate", "1", "--quiet"]  # the loss is that of before it
    assert program("rmsprop_vae").main(steps) == 4
    assert "test images is not finite; the last checkpoint" in complaint(capsys, "rmsprop_vae")


def test_a_batch_that_the_memory_does_not_hold_is_one_line(
    on_sample: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*_: object) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(Trainer, "run", out_of_memory)
    assert program("mlp_vae").main(["--epochs", "1", "--quiet"]) == 1
    assert "a smaller --batch-size" in complaint(capsys, "mlp_vae")


def test_a_run_is_opened_by_its_own_module_and_data_set_alone(mine: Path) -> None:
    port = program("mlp_vae")
    model = port.load("mine")
    with np.load("mine/weights.npz") as saved:
        assert len(saved.files) == len(model.variables)
        for name, variable in zip(sorted(saved.files), model.variables, strict=True):
            np.testing.assert_array_equal(variable.numpy(), saved[name])
    with pytest.raises(BadInput, match="a run of mlp_vae, not of tfp_cvae"):
        program("tfp_cvae").load("mine")
    assert port.reopen("mine", small("mnist")).steps
    with pytest.raises(BadInput, match="trained on mnist, not on fashion_mnist"):
        port.reopen("mine", small("fashion_mnist"))


@pytest.mark.parametrize("module", CONDITIONAL)
@pytest.mark.parametrize("digit", [-1, 10, 2.0])
def test_a_digit_that_there_is_not_is_one_line(module: str, digit: Any) -> None:
    port = program(module)
    model = port.build(port.config(), Seeded(0).initializer(), "float32")
    assert port.draw is not None
    assert port.draw(model, 9, np.zeros([3, 2])).shape == (3, 28, 28)
    with pytest.raises(BadInput, match=rf"digit: {digit} is not a whole number from 0 to 9"):
        port.draw(model, digit, np.zeros([3, 2]))


def test_a_setting_that_is_younger_than_the_run_has_its_default(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = json.loads((mine / "run.json").read_text())
    del record["config"]["objective"]
    change_record(mine, finished=False, config=record["config"])
    assert program("mlp_vae").main(["--resume", "--output", "mine", "--quiet"]) == 0
    assert json.loads((mine / "run.json").read_text())["config"]["objective"] == "document"


def test_numbers_of_numpy_are_settings_as_pythons_are() -> None:
    config = rmsprop_vae.Config(steps=np.int64(7), learning_rate=np.float32(0.5))
    assert json.loads(json.dumps(dataclasses.asdict(config)))["steps"] == 7
    assert config == rmsprop_vae.Config(steps=7, learning_rate=0.5)
    for wrong in (True, np.True_, 7.0, "7", None, np.array([7])):
        with pytest.raises(BadInput, match=r"steps: .* is not a whole number"):
            rmsprop_vae.Config(steps=wrong)  # type: ignore[arg-type]


# --- TensorBoard ----------------------------------------------------------------------------------


def test_tensorboard_gets_the_history_and_the_samples(on_sample: Path) -> None:
    from tensorboard.backend.event_processing import event_accumulator

    arguments = [*SMALL, "--output", "mine", "--quiet", "--tensorboard"]
    assert program("mlp_vae").main(arguments) == 0
    events = event_accumulator.EventAccumulator("mine/tensorboard")
    events.Reload()
    tags = events.Tags()
    assert {"loss", "reconstruction", "kl"} <= set(tags["tensors"])
    assert "samples" in tags["tensors"]


def test_files_for_tensorboard_that_cannot_be_written_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="for TensorBoard cannot be written"):
        display.TensorBoard(tmp_path / "file" / "tensorboard", "epoch")


def test_a_missing_tensorboard_is_one_line_and_creates_nothing(
    on_sample: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert program("mlp_vae").main(["--tensorboard"]) == 2
    assert "pip install tensorboard" in complaint(capsys, "mlp_vae")
    assert list(on_sample.iterdir()) == []
