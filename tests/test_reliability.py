"""What is promised when things go wrong around a run, see docs/reliability.md."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common import display
from reproductions import mlp_vae
from tests.conftest import ROOT, Load, complaint, small_disk
from tests.killing import assert_whole, finish, outcome, start

pytestmark = pytest.mark.usefixtures("without_graphs")
SMALL = ["--epochs", "2", "--batch-size", "500", "--hidden", "8"]


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


def test_a_full_disk_is_one_line_and_harms_no_earlier_run(
    on_sample: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mlp_vae.main([*SMALL, "--output", "earlier", "--quiet"]) == 0
    before = outcome(Path("earlier"))
    with small_disk(on_sample / "disk", 300_000) as disk:
        assert mlp_vae.main([*SMALL, "--output", str(disk / "run"), "--quiet"]) == 1
        said = complaint(capsys, "mlp_vae")
        assert f"No space left on device, in {disk / 'run'}" in said
        assert f"python -m reproductions.mlp_vae --resume --output={disk / 'run'}" in said
        assert_whole(disk / "run")
        assert outcome(Path("earlier")) == before
        # With room again, the run goes on where it was.
        remount(disk, "size=100m")
        assert mlp_vae.main(["--resume", "--output", str(disk / "run"), "--quiet"]) == 0
        assert outcome(disk / "run") == before


def test_a_folder_that_cannot_be_written_is_one_line(
    on_sample: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with small_disk(on_sample / "disk", 300_000) as disk:
        remount(disk, "ro")
        assert mlp_vae.main([*SMALL, "--output", str(disk / "run")]) == 2
        assert "cannot write to" in complaint(capsys, "mlp_vae")


def test_the_bar_does_not_touch_the_bits(on_sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mlp_vae.main([*SMALL, "--output", "plain", "--quiet"]) == 0
    monkeypatch.setattr(display.sys.stderr, "isatty", lambda: True)
    assert mlp_vae.main([*SMALL, "--output", "with-bar"]) == 0
    assert outcome(Path("plain")) == outcome(Path("with-bar"))


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)]
)
def test_a_signal_saves_and_names_the_command_to_continue(
    number: int, tmp_path: Path, whole: Load
) -> None:
    whole("mnist")
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "reproductions.mlp_vae", "--output", str(folder)]
    process = subprocess.Popen(
        [*command, "--hidden", "8"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 1/"):
            process.send_signal(number)
            break
    _, errors = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in errors
    line = errors.splitlines()[-1]  # the one before may tell of other versions
    assert "stopped and saved after step" in line
    assert f"python -m reproductions.mlp_vae --resume --output={folder}" in line
    assert_whole(folder)
    assert list((folder / "checkpoints").iterdir())


def test_two_runs_at_once_take_a_number_each(tmp_path: Path) -> None:
    script = (
        "from common.runs import Record, new_run; import time\n"
        "record = Record('mlp_vae', {}, seed=0, dtype='float32', quick=False)\n"
        "with new_run(record, None) as run: print(run.folder.name); time.sleep(1)"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        for _ in range(4)
    ]
    numbers = sorted(process.communicate()[0].strip() for process in processes)
    assert numbers == ["0001", "0002", "0003", "0004"]


def test_a_reader_sees_only_whole_files_while_a_run_writes(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start("rmsprop_vae", folder, "--steps", "1000", "--hidden", "16", "--quiet")
    seen: set[str] = set()  # checkpoints
    while process.poll() is None:
        if folder.exists():
            assert_whole(folder)
            seen |= {path.name for path in folder.glob("checkpoints/*.npz")}
        time.sleep(0.05)
    finish(process)
    assert len(seen) > 2  # more than lie in the folder at a time
    assert_whole(folder)


FORBIDDEN_CALLS = {"eval", "exec", "os.system", "os.popen"}


def test_nothing_that_is_read_is_run() -> None:
    """No pickle, no eval, no shell. The recorders alone run something: the documents' programs."""
    paths = [*ROOT.glob("common/**/*.py"), *ROOT.glob("reproductions/**/*.py")]
    for path in paths:
        if path.parent.name == "golden":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                imported = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                assert not imported & {"pickle", "marshal", "shelve", "dill", "cloudpickle"}, path
            if isinstance(node, ast.Call):
                keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert ast.unparse(node.func) not in FORBIDDEN_CALLS, path
                assert "shell" not in keywords, path
                assert keywords.get("allow_pickle", "False") == "False", path
