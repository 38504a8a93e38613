"""Many seeds by one command: each is trained once, and nothing else is taken for its run."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from common.datasets import Dataset
from common.runs import read_csv
from reproductions import program
from reproductions.evidence import many_seeds

OPTIONS = ["rmsprop_vae", "--seeds", "2", "--processes", "1", "--output", "seeds"]
SHORT = ["--steps", "100", "--hidden", "16"]


@pytest.fixture
def trained(on_sample: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The options of each run that the command makes, here in this process and on the sample."""
    made: list[list[str]] = []

    def train(module: str, folder: Path, options: Sequence[str], *_: object) -> int:
        made.append([*options])
        return program(module).main(["--quiet", "--output", str(folder), *options])

    monkeypatch.setattr(many_seeds, "_train", train)
    return made


def test_each_seed_is_trained_once(
    trained: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert many_seeds.main([*OPTIONS, *SHORT]) == 0
    assert trained == [["--seed", str(seed), *SHORT] for seed in range(2)]
    rows = [read_csv(Path(f"seeds/seed-{seed}/history.csv").read_text())[-1] for seed in range(2)]
    mean = np.mean([row["loss"] for row in rows])
    assert f"  loss: mean {mean:.6g}, sd " in capsys.readouterr().out


def test_a_run_of_other_settings_or_other_code_is_refused(
    trained: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert many_seeds.main([*OPTIONS, *SHORT]) == 0
    assert many_seeds.main([*OPTIONS, *SHORT, "--dtype", "float64"]) == 2
    assert many_seeds.main([*OPTIONS, *SHORT[2:], "--steps", "200"]) == 2
    path = Path("seeds/seed-1/run.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"source_sha256": "0" * 64}))
    assert many_seeds.main([*OPTIONS, *SHORT]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert errors == [
        "many_seeds: seeds/seed-0 holds a run of other settings: name another folder",
        "many_seeds: seeds/seed-0 holds a run of other settings: name another folder",
        "many_seeds: seeds/seed-1 holds a run of other code: name another folder",
    ]
    assert len(trained) == 2


def test_an_option_that_the_module_does_not_have_is_refused_before_any_run(
    trained: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert many_seeds.main([*OPTIONS, "--stepps", "100"]) == 2
    assert "did you mean --steps?" in capsys.readouterr().err
    assert trained == []


@pytest.mark.parametrize(("exit_code", "ours"), [(4, 1), (130, 130)])
def test_a_run_that_fails_or_is_stopped_is_told(
    exit_code: int, ours: int, on_sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(many_seeds, "_train", lambda *_: exit_code)
    assert many_seeds.main([*OPTIONS, *SHORT]) == ours


@pytest.mark.long
def test_two_seeds_at_a_time_are_two_runs_of_their_own(
    tmp_path: Path, whole: Callable[[str], Dataset]
) -> None:
    whole("mnist")
    output = tmp_path / "seeds"
    options = [*OPTIONS[:3], "--processes", "2", "--output", str(output), *SHORT]
    assert many_seeds.main(options) == 0
    alone = tmp_path / "alone"
    assert (
        program("rmsprop_vae").main(["--quiet", "--output", str(alone), "--seed", "1", *SHORT]) == 0
    )
    losses = [np.load(folder / "steps.npz")["loss"] for folder in (output / "seed-1", alone)]
    # One thread and two add in another order.
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    assert (np.load(output / "seed-0" / "steps.npz")["loss"] != losses[0]).all()
