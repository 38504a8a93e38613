"""The runner of the originals' whole runs, without TensorFlow 1; and the runs that are kept."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reproductions import GOLDEN

ORIGINALS = sorted(GOLDEN.glob("*/full-runs.json"))
EPOCHS_002 = {25, 100}  # a run of 002 was stopped after 25 epochs, or is whole
PROGRAM = "print('a program')\n"


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`whole_runs.py`, which expects `record.py` beside it as a script does."""
    monkeypatch.syspath_prepend(str(GOLDEN))
    import whole_runs  # type: ignore[import-not-found]

    return whole_runs


# --- The runner -----------------------------------------------------------------------------------


def test_seeds_are_read_as_ranges_and_lists(runner: Any) -> None:
    assert runner.seeds_of("1-3,7") == [1, 2, 3, 7]


def test_numbers_keep_the_digits_of_a_float32(runner: Any) -> None:
    assert runner.rounded([np.float32(3182.6690673), [1 / 3]]) == [3182.669, [0.3333333]]


def test_printed_lines_are_seen_whole_and_passed_on(runner: Any) -> None:
    seen: list[str] = []
    onwards = io.StringIO()
    print("Epoch: 1,", "ELBO", file=(stream := runner.Lines(seen.append, onwards)))
    stream.write("half a")
    assert seen == ["Epoch: 1, ELBO"]
    stream.write(" line\n")
    assert seen == ["Epoch: 1, ELBO", "half a line"]
    assert onwards.getvalue() == "Epoch: 1, ELBO\nhalf a line\n"


def test_rows_are_means_over_their_steps(runner: Any) -> None:
    steps = runner.Steps.__new__(runner.Steps)
    steps.values = [[1, 2, 3], [3, 4, 5], [10, 20, 30], [30, 40, 50]]
    assert steps.rows(2) == [[2, 20], [3, 30], [4, 40]]


def test_the_grid_of_a_class_lies_around_its_mean_with_the_first_code_to_the_right(
    runner: Any,
) -> None:
    class Decoder:
        """Draws z as grey levels: the first code on the left half, the second on the right."""

        def predict(self, z: np.ndarray) -> np.ndarray:
            pictures = np.zeros([len(z), 28, 28, 1])
            pictures[:, :, :14, 0], pictures[:, :, 14:, 0] = z[:, :1, None], z[:, 1:, None]
            return pictures

    grid = runner.class_grid(Decoder(), np.array([0.4, 0.2]))
    pictures = runner.as_pictures([grid] * 10)[3]
    np.testing.assert_array_equal(pictures[7, 7, 0, [0, 14]], [102, 51])  # the mean in the middle
    assert pictures[0, 8, 0, 0] == pictures[14, 8, 0, 0] > pictures[0, 7, 0, 0]
    assert pictures[8, 0, 0, 14] == pictures[8, 14, 0, 14] > pictures[7, 0, 0, 14]


def test_a_stopped_command_goes_on_where_it_was(
    runner: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, output = tmp_path / "program.py", tmp_path / "full-runs.json"
    program.write_text(PROGRAM)
    output.write_text(json.dumps({"document": "003", "runs": [{"seed": 2, "kept": True}]}))
    made: list[int] = []

    def run(job: Any, function: object) -> dict[str, Any]:
        assert function is runner.run
        if len(made) == 2:
            raise KeyboardInterrupt
        assert job.program == PROGRAM
        made.append(job.seed)
        return {"seed": job.seed}

    monkeypatch.setattr(runner.record, "in_its_own_process", run)
    arguments = [str(program), "--document=003", f"--data={tmp_path}", f"--output={output}"]
    with pytest.raises(KeyboardInterrupt):
        runner.main([*arguments, "--seeds=1-4"])
    assert made == [1, 3]
    content = json.loads(output.read_text())
    assert content["document"] == "003"
    assert content["runs"] == [{"seed": 1}, {"seed": 2, "kept": True}, {"seed": 3}]


# --- The runs that are kept -----------------------------------------------------------------------


@pytest.mark.parametrize("path", ORIGINALS, ids=lambda path: path.parent.name)
def test_no_seed_is_missing_and_no_run_is_cut(path: Path) -> None:
    content = json.loads(path.read_text())
    runs = content["runs"]
    assert content["document"] == path.parent.name
    assert [run["seed"] for run in runs] == list(range(1, len(runs) + 1))
    for name in {name for run in runs for name, values in run.items() if isinstance(values, list)}:
        lengths = {len(run[name]) for run in runs if name in run}
        assert lengths <= EPOCHS_002 if path.parent.name == "002" else len(lengths) == 1, name
