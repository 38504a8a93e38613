"""A run's folder: numbered, locked, whole; checkpoints that notice damage."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from common.errors import BadInput
from common.runs import (
    KEPT_CHECKPOINTS,
    RUNS,
    CheckpointFolder,
    Record,
    Run,
    new_run,
    read_csv,
    read_finished,
    read_record,
    to_csv,
    unfinished_run,
)
from common.training import Progress

pytestmark = pytest.mark.usefixtures("here")


def npy() -> bytes:
    """An array alone, where an archive of arrays is expected."""
    content = io.BytesIO()
    np.save(content, np.zeros(3))
    return content.getvalue()


def record() -> Record:
    return Record("mlp_vae", {"epochs": 1}, seed=0, dtype="float32", quick=False)


def made(output: Path | None = None, finished: bool = False) -> Run:
    """A run that no process holds any more."""
    with new_run(record(), output) as run:
        run.record.finished = finished
        run.save()
    return run


def test_runs_are_numbered_and_latest_points_to_the_last() -> None:
    first, second = made(), made()
    assert [run.folder.name for run in (first, second)] == ["0001", "0002"]
    assert (RUNS / "mlp_vae" / "latest").resolve() == second.folder.resolve()
    content = json.loads((first.folder / "run.json").read_text())
    assert content["finished"] is False
    assert content["module"] == "mlp_vae"


def test_a_record_comes_back_as_it_was_written() -> None:
    run = made()
    run.begin_session("digest", {"cores": 2})
    run.record.results = {"result": 1 / 3}
    run.save()
    assert read_record(run.folder) == run.record


def test_a_session_with_other_versions_is_kept_beside_the_earlier_one() -> None:
    run = made()
    assert run.begin_session("digest", {"cores": 2}) == []
    assert run.begin_session("digest", {"cores": 2}) == []
    assert run.record.earlier_sessions == []
    assert run.begin_session("another", {"cores": 4}) == ["source_sha256", "cores"]
    assert run.record.earlier_sessions == [{"source_sha256": "digest", "cores": 2}]


def test_resume_takes_the_latest_unfinished_run() -> None:
    runs = [made(), made(), made(finished=True)]
    with unfinished_run("mlp_vae", None) as run:
        assert run.folder == runs[1].folder


def test_two_processes_cannot_share_a_run(tmp_path: Path) -> None:
    with (
        new_run(record(), tmp_path / "mine") as run,
        pytest.raises(BadInput, match="another process"),
        unfinished_run("mlp_vae", run.folder),
    ):
        pass
    with unfinished_run("mlp_vae", run.folder):
        pass  # it was let go


def test_a_run_that_fails_lets_go_of_its_folder(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), new_run(record(), tmp_path / "mine"):
        raise ZeroDivisionError
    with unfinished_run("mlp_vae", tmp_path / "mine"):
        pass


def test_a_run_of_another_module_is_refused(tmp_path: Path) -> None:
    made(tmp_path / "mine")
    with (
        pytest.raises(BadInput, match="a run of mlp_vae, not of tfp_cvae"),
        unfinished_run("tfp_cvae", tmp_path / "mine"),
    ):
        pass


@pytest.mark.parametrize("content", [None, "{", "[]", "{}", '{"module": "mlp_vae"}', "[" * 100_000])
def test_a_folder_without_a_run_is_refused(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    what = "holds no run" if content is None else "run.json is damaged"
    with (
        pytest.raises(BadInput, match=what),
        unfinished_run("mlp_vae", tmp_path),
    ):
        pass


def test_a_run_that_another_process_ends_meanwhile_stays_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, acquire = made(tmp_path / "mine"), FileLock.acquire

    def late(lock: FileLock, **options: Any) -> Any:  # the other process is just letting go of it
        run.record.finished = True
        run.save()
        return acquire(lock, **options)

    monkeypatch.setattr(FileLock, "acquire", late)
    with (
        pytest.raises(BadInput, match="is finished"),
        unfinished_run("mlp_vae", tmp_path / "mine"),
    ):
        pass


def test_precision_and_seed_in_words() -> None:
    assert record().seed_in_words == ["seed 0"]
    assert replace(record(), dtype="float64").seed_in_words == ["float64", "seed 0"]


@pytest.mark.parametrize(
    "damage",
    [
        {"config": [5]}, {"config": None}, {"seed": ...}, {"seed": None}, {"seed": "x"},
        {"seed": -1}, {"seed": 2**63}, {"earlier_sessions": [1]}, {"dtype": "float16"},
        {"finished": "yes"}, {"evaluation": [1]},
    ],
)  # fmt: skip
def test_a_damaged_record_is_refused(damage: dict[str, object], tmp_path: Path) -> None:
    run = made(tmp_path / "mine")
    content = {k: v for k, v in (asdict(run.record) | damage).items() if v is not ...}
    run.write("run.json", json.dumps(content))
    with pytest.raises(BadInput, match=r"run.json is damaged"):
        read_record(run.folder)


def hostile(header: str) -> bytes:
    """An archive with an array whose header is this text."""
    text = header.encode()
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("00.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)
    return content.getvalue()


HEADERS = [
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1" + "0" * 15 + ",)}",  # 4 petabytes
    "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "(" * 300,
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1" + "0" * 40 + ",)}",
    "{'descr': '" + "\0" * 9,
]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", npy(), *map(hostile, HEADERS)])
def test_weights_that_cannot_be_read_are_one_line(content: bytes, tmp_path: Path) -> None:
    run = made(tmp_path / "mine", finished=True)
    with pytest.raises(BadInput, match="kept without its weights"):
        read_finished(run.folder, ["mlp_vae"])
    run.write("weights.npz", content)
    with pytest.raises(BadInput, match=r"weights.npz cannot be read"):
        read_finished(run.folder, ["mlp_vae"])


def test_weights_with_any_byte_altered_are_one_line_or_read(tmp_path: Path) -> None:
    run = made(tmp_path / "mine", finished=True)
    run.write_arrays("weights.npz", {"00": np.arange(50.0)})
    whole = (run.folder / "weights.npz").read_bytes()
    refused = 0
    for i in range(len(whole)):
        run.write("weights.npz", whole[:i] + bytes([whole[i] ^ 0x55]) + whole[i + 1 :])
        try:
            read_finished(run.folder, ["mlp_vae"])
        except BadInput:
            refused += 1
    assert refused > len(whole) // 2


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for output, complaint in (
        (tmp_path / "file", "is a file, not a folder"),
        (tmp_path / "file" / "below", "cannot write"),
    ):
        with pytest.raises(BadInput, match=complaint), new_run(record(), output):
            pass


def test_history_comes_back_in_full() -> None:
    rows = [{"epoch": 1.0, "loss": 1 / 3}, {"epoch": 2.0, "loss": 1e-300}]
    assert read_csv(to_csv(rows)) == rows
    assert to_csv([]) == ""


@pytest.mark.parametrize("text", ["a\n1,2\n", "a,b\n1\n", "a\nx\n", 'a\n"' + "1" * 200_000])
def test_a_damaged_history_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        read_csv(text)


def progress(step: int) -> Progress:
    return Progress(
        step=step,
        seconds=1.5,
        losses=np.arange(3.0 * step).reshape(step, 3),
        rows=[{"epoch": 1, "loss": 1 / 3}],
        frames=[np.zeros([2, 2], np.uint8), np.ones([2, 2], np.uint8)],
    )


def saved(folder: Path, steps: list[int]) -> CheckpointFolder:
    checkpoints = CheckpointFolder(folder)
    for step in steps:
        checkpoints.save(progress(step), {"state_000": np.full([2], step, np.float32)})
    return checkpoints


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    found = saved(tmp_path / "new" / "c", [7]).latest()
    assert found is not None
    got, state = found
    expected = progress(7)
    assert (got.step, got.seconds, got.rows) == (7, 1.5, expected.rows)
    np.testing.assert_array_equal(got.losses, expected.losses)
    np.testing.assert_array_equal(got.frames, expected.frames)
    assert list(state) == ["state_000"]
    np.testing.assert_array_equal(state["state_000"], [7, 7])
    assert state["state_000"].dtype == np.float32


def test_only_the_latest_checkpoints_are_kept(tmp_path: Path) -> None:
    saved(tmp_path / "c", [9, 10, 100, 1000])
    names = sorted(path.name for path in (tmp_path / "c").iterdir())
    assert len(names) == KEPT_CHECKPOINTS
    assert names[0].startswith("step-000000100")


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path / "c", [1, 2])
    newest = max((tmp_path / "c").iterdir())
    whole = newest.read_bytes()
    generator = np.random.default_rng(0)
    damages = [whole[:-1], whole[: len(whole) // 2], b"", whole + b"\0"]
    for place in generator.integers(0, len(whole), 200):
        damages.append(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    for damage in damages:
        newest.write_bytes(damage)
        found = checkpoints.latest()
        assert found is not None
        assert found[0].step == 1
    newest.write_bytes(whole)
    found = checkpoints.latest()
    assert found is not None
    assert found[0].step == 2


def test_a_new_checkpoint_outlives_damaged_ones_of_later_steps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = saved(tmp_path / "c", [8, 9])
    later = sorted((tmp_path / "c").iterdir())
    for path in later:
        path.write_bytes(path.read_bytes()[:-1])
    assert checkpoints.latest() is None
    told = capsys.readouterr().err.splitlines()
    assert told == [f"{path} is damaged: it is left out" for path in reversed(later)]
    for step in (1, 2):
        saved(tmp_path / "c", [step])
        found = checkpoints.latest()
        assert found is not None
        assert found[0].step == step
    assert capsys.readouterr().err == ""


def test_a_checkpoint_with_pickles_is_not_opened(tmp_path: Path) -> None:
    """Even under the right name, an object array is refused and the run starts from before."""
    content = io.BytesIO()
    np.savez(content, progress=np.array([object()], dtype=object))
    digest = hashlib.sha256(content.getvalue()).hexdigest()[:16]
    (tmp_path / f"step-000000001-{digest}.npz").write_bytes(content.getvalue())
    assert CheckpointFolder(tmp_path).latest() is None


def test_no_checkpoint_at_all(tmp_path: Path) -> None:
    assert CheckpointFolder(tmp_path / "none").latest() is None


def test_a_full_disk_leaves_the_earlier_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = saved(tmp_path / "c", [1])

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk, pytest.raises(OSError, match="No space"):
        disk.setattr(os, "fsync", full)
        checkpoints.save(progress(2), {"state_000": np.zeros(2)})
    found = checkpoints.latest()
    assert found is not None
    assert found[0].step == 1
    assert len(list((tmp_path / "c").iterdir())) == 1
