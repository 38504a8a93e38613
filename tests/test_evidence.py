"""The reference results vouch for the code as it is, the READMEs say what they say, and both
agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest

from reproductions import CATALOGUE, RECORDED, program, tables, wholeruns
from reproductions.reference import REFERENCE, SEEDS, load_seeds
from reproductions.verify import as_entry
from tests.conftest import ROOT

MODULES = [entry.module for entry in CATALOGUE]
SIZE_LIMIT = 15 * 2**20  # bytes of the whole folder
ELBO, ELBO_MARGIN = -78.3, 0.5  # nats: upstream's figure, and the spread that is allowed


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def digest(module: str) -> str:
    return program(module).source_digest


@pytest.mark.parametrize("module", MODULES)
def test_the_results_are_those_of_the_present_code(module: str) -> None:
    advice = (
        "the code has changed: python -m reproductions.reference --renew, or make the runs again"
    )
    assert load_seeds(module)["source_sha256"] == digest(module), advice
    if module in RECORDED.values():
        content = json.loads((REFERENCE / module / "lockstep.json").read_text())
        assert content["source_sha256"] == digest(module), advice
        assert [entry["precision"] for entry in content["entries"]] == ["float32", "float64"]
        assert all(entry["passed"] for entry in content["entries"])


@pytest.mark.parametrize("module", MODULES)
def test_a_reference_run_is_a_whole_run_with_the_documents_settings(module: str) -> None:
    folder = REFERENCE / module
    record = json.loads((folder / "run.json").read_text())
    assert record["finished"] is True
    assert record["quick"] is False
    assert record["seed"] == 0
    config = program(module).config  # a setting that is younger than the run had its default then
    assert config(**record["config"]) == config()
    assert len(load_seeds(module)["runs"]) == SEEDS[module]
    for path in folder.iterdir():
        if path.suffix in (".png", ".gif"):
            assert np.std(iio.imread(path, index=None)) > 0


def test_the_reference_results_stay_small() -> None:
    assert sum(path.stat().st_size for path in REFERENCE.rglob("*") if path.is_file()) < SIZE_LIMIT


@pytest.mark.parametrize("name", tables.READMES)
def test_the_tables_of_the_readme_are_fresh(name: str) -> None:
    text = Path(name).read_text()
    assert text.count("<!-- table ") == 3
    assert tables.fill(text, tables.READMES[name]) == text, "python -m reproductions.tables"


def test_whole_runs_are_equivalent_where_that_can_be_tested() -> None:
    comparisons = wholeruns.available()
    assert {c.module for c in comparisons} == set(RECORDED.values())
    tested = {c.module for c in comparisons if c.equivalent is not None}
    assert {"mlp_vae", "rmsprop_vae", "conv_vae"} <= tested
    assert [wholeruns.as_line(c) for c in comparisons if c.equivalent is False] == []


@pytest.mark.parametrize("document", ["000", "003"])
def test_the_printed_losses_lie_where_ours_would(document: str) -> None:
    assert wholeruns.outside(document) == []


def test_the_elbo_of_epoch_100_is_upstreams() -> None:
    final = wholeruns.curve("elbo_cvae", "test_elbo")[:, 99]
    assert np.abs(final - ELBO).max() <= ELBO_MARGIN


# --- The statistics themselves --------------------------------------------------------------------


def comparison(ours: Any, theirs: Any) -> wholeruns.Comparison:
    return wholeruns.Comparison("mlp_vae", "", np.array(ours, float), np.array(theirs, float))


def test_equal_laws_are_equivalent_and_shifted_ones_are_not() -> None:
    draws = np.random.default_rng(0)
    theirs = draws.normal(100, 0.5, 8)
    assert comparison(draws.normal(100, 0.5, 10), theirs).equivalent is True
    assert comparison(draws.normal(103, 0.5, 10), theirs).equivalent is False  # beyond 2 %
    assert comparison(draws.normal(97, 0.5, 10), theirs).equivalent is False


def test_too_much_noise_is_not_equivalence() -> None:
    draws = np.random.default_rng(1)
    noisy = comparison(draws.normal(100, 9, 5), draws.normal(100, 9, 5))
    assert noisy.power < wholeruns.POWER
    assert noisy.equivalent is None
    noisy_ours = comparison(draws.normal(100, 9, 5), draws.normal(100, 0.5, 5))
    assert noisy_ours.equivalent is False


def test_power_is_how_often_equal_laws_are_shown_to_be_equal() -> None:
    draws = np.random.default_rng(2)
    theirs = draws.normal(100, 0.9, 8)
    expected = comparison(theirs, theirs).power
    pairs = draws.normal(theirs.mean(), theirs.std(ddof=1), [400, 2, 8])
    shown = [c.equivalent for c in (comparison(a, b) for a, b in pairs) if c.p is not None]
    assert expected > 0.8
    assert np.mean(shown) == pytest.approx(expected, abs=0.1)


def test_negative_figures_are_compared_by_size() -> None:
    assert comparison([-100.0, -100.1, -99.9], [-100.0, -100.2, -99.8]).equivalent is True


def test_too_few_seeds_make_no_claim() -> None:
    few = comparison([1.0, 1.1, 0.9], [1.05])
    assert few.equivalent is None
    assert few.p is None
    assert few.in_spreads == pytest.approx(-0.5)
    assert comparison([1.0], [1.0, 1.0]).in_spreads is None


def test_a_wrong_printed_loss_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = wholeruns.PRINTED["003"]
    wrong = printed._replace(values=(printed.values[0] * 1.5, *printed.values[1:]))
    monkeypatch.setitem(wholeruns.PRINTED, "003", wrong)
    assert [found[0] for found in wholeruns.outside("003")] == [1000]


def test_entries_of_verify_survive_json() -> None:
    from common import lockstep
    from reproductions import GOLDEN

    recording = lockstep.load(GOLDEN / "000" / "lockstep-float64.json")
    same = lockstep.Replay(recording.loss, recording.initial_weights, recording.weights, 0.0)
    entry = as_entry("mlp_vae", recording, lockstep.compare(recording, same))
    assert json.loads(json.dumps(entry)) == entry
