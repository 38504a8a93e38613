"""What makes the kept results: nothing is vouched for that has not been computed again."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from common.errors import Failure, VerificationFailed
from reproductions import program
from reproductions.evidence import dose_response, full_runs, kept, mistakes
from reproductions.evidence.documents import DOCUMENTS, Short
from tests.conftest import Load, train_on

DOCUMENT = DOCUMENTS["rmsprop_vae"]
Written = dict[str, dict[str, Any]]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Written:
    """What the commands would write into `artifacts/reference`, by its name there."""
    files: Written = {}
    monkeypatch.setattr(kept, "write", files.__setitem__)
    return files


def computes(
    patch: pytest.MonkeyPatch, content: dict[str, Any], losses: float = 1.0, probe: float = 1.0
) -> None:
    """The module has these kept results, and computes them now, times a factor."""
    now = dict(content["probe"])
    now["first_losses"] = (probe * np.array(now["first_losses"])).tolist()
    first = losses * np.array(content["first_losses"])[:, np.newaxis]
    trainer = SimpleNamespace(run=lambda start, stop: first[start:stop])
    train_on(patch)
    patch.setattr(full_runs, "Trainer", lambda experiment: trainer)
    patch.setattr(full_runs, "_probe", lambda module: now)
    patch.setattr(full_runs, "make_proof", lambda document: None)
    patch.setattr(full_runs, "check_variant", lambda port, folder: None)
    patch.setattr(kept, "load_seeds", lambda module: dict(content))
    stamps = {"rules.json": {DOCUMENT.module: "old"}, "other.json": {DOCUMENT.module: "older"}}
    patch.setattr(kept, "load_results", lambda name: stamps)


def test_renew_brings_digests_up_to_date_where_the_computation_is_the_same(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = kept.load_seeds(DOCUMENT.module) | {"source_sha256": "old"}
    computes(monkeypatch, content)
    full_runs.renew(DOCUMENT)
    digest = program(DOCUMENT.module).source_digest
    assert written["rmsprop_vae/seeds.json"] == content | {"source_sha256": digest}
    assert written[kept.DIGESTS] == {
        "rules.json": {"rmsprop_vae": digest},
        "other.json": {"rmsprop_vae": "older"},  # made by code that nobody vouched for
    }


@pytest.mark.parametrize("change", [{"losses": 1.01}, {"probe": 1 + 1e-6}])
def test_renew_refuses_code_that_computes_something_else(
    change: dict[str, float], written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    computes(monkeypatch, kept.load_seeds(DOCUMENT.module), **change)
    with pytest.raises(VerificationFailed, match="make the runs again"):
        full_runs.renew(DOCUMENT)
    assert written == {}


def test_renew_refuses_a_variant_that_trains_otherwise(whole: Load) -> None:
    whole("mnist")
    port, folder = program("rmsprop_vae"), kept.REFERENCE / "rmsprop_vae" / "30000"
    full_runs.check_variant(port, folder)
    with (
        mistakes.planted(mistakes.kl_weight("rmsprop_vae", 0.5)),
        pytest.raises(VerificationFailed, match="make the variants again"),
    ):
        full_runs.check_variant(program("rmsprop_vae"), folder)


def made_by(patch: pytest.MonkeyPatch, digest: str) -> list[list[int]]:
    """Runs are finished as they are asked for; the seeds that were, call by call."""
    asked: list[list[int]] = []

    def completed_runs(module: str, jobs: dict[Path, list[str]], processes: int) -> list[Path]:
        asked.append([int(options[1]) for options in jobs.values()])
        return list(jobs)

    patch.setattr(full_runs, "completed_runs", completed_runs)
    patch.setattr(
        full_runs, "curves", lambda folder: {"loss": [float(folder.name.rpartition("-")[2])]}
    )
    patch.setattr(full_runs, "_first_run", lambda module, folder: {"first_losses": [1.0]})
    content = {"source_sha256": digest, "runs": [{"seed": 1, "loss": [7.0]}], "quick_runs": [7]}
    patch.setattr(kept, "load_seeds", lambda module: content)
    return asked


def test_kept_seeds_are_not_made_again_and_those_of_other_code_are_dropped(
    written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = list(range(DOCUMENT.seeds))
    asked = made_by(monkeypatch, program(DOCUMENT.module).source_digest)
    full_runs.make_seeds(DOCUMENT, tmp_path, 1)
    content = written["rmsprop_vae/seeds.json"]
    assert asked == [[0, *seeds[2:]]]
    assert [run["seed"] for run in content["runs"]] == seeds
    assert content["runs"][1]["loss"] == [7.0]
    assert content["quick_runs"] == [7]

    asked = made_by(monkeypatch, "other code")
    full_runs.make_seeds(DOCUMENT, tmp_path, 1)
    content = written["rmsprop_vae/seeds.json"]
    assert asked == [seeds]
    assert content["runs"][1]["loss"] == [1.0]
    assert "quick_runs" not in content


def test_kept_short_runs_are_not_made_again_unless_they_are_of_other_code(
    written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = dataclasses.replace(DOCUMENT, seeds=1, short=Short(runs=2, epochs=25))
    digest = program(document.module).source_digest
    for made_with, expected in ((digest, [[2]]), ("other code", [[1, 2]])):
        asked = made_by(monkeypatch, made_with)
        content = kept.load_seeds(document.module) | {"short_runs": [{"seed": 1, "loss": [7.0]}]}
        monkeypatch.setattr(kept, "load_seeds", lambda module, content=content: content)
        full_runs.make_short(document, tmp_path, 1)
        assert asked == expected
        rows = written["rmsprop_vae/seeds.json"]["short_runs"]
        assert [row["seed"] for row in rows] == [1, 2]
        assert rows[1]["loss"] == [2.0]


def test_a_kept_folder_has_the_new_run_and_what_is_made_beside_it(tmp_path: Path) -> None:
    run, target = tmp_path / "run", tmp_path / "kept"
    for folder, names in {
        run: ("run.json", "weights.npz", "steps.npz", "curves.png"),
        target: ("run.json", "old.png", "seeds.json", "explorer.npz"),
    }.items():
        folder.mkdir()
        for name in names:
            (folder / name).write_text(folder.name)
    (target / "variant").mkdir()
    full_runs.keep_folder(run, target)
    found = {path.name: path.read_text() for path in target.iterdir() if path.is_file()}
    assert found == {
        "run.json": "run", "weights.npz": "run", "curves.png": "run",
        "seeds.json": "kept", "explorer.npz": "kept",
    }  # fmt: skip
    assert (target / "variant").is_dir()


def test_every_seed_of_a_mistake_is_trained_with_its_own_seed(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_on(monkeypatch)
    monkeypatch.setattr(kept, "load_results", lambda name: {})
    monkeypatch.setattr(dose_response, "found_at", lambda module: {"float64": 1})
    monkeypatch.setattr(dose_response, "whole_run", lambda module, data, seed: [float(seed)])
    dose_response.make(["conv_vae"], 3)
    found = written[dose_response.RESULTS]["conv_vae"]
    assert len(found) == 2
    for mistake in found.values():
        assert mistake["runs"] == {"0": [0.0], "1": [1.0], "2": [2.0]}
    assert written[kept.DIGESTS][dose_response.RESULTS].keys() == {"conv_vae"}


def test_results_of_other_code_are_not_added_to(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "load_results", lambda name: {"rules.json": {"mlp_vae": "old"}})
    with pytest.raises(Failure, match=r"rules\.json has results of mlp_vae by other code"):
        kept.stamp("rules.json", "mlp_vae", "new")
    assert written == {}
    kept.stamp("rules.json", "conv_vae", "new")
    assert written[kept.DIGESTS] == {"rules.json": {"mlp_vae": "old", "conv_vae": "new"}}
