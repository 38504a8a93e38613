"""The kept results vouch for the code as it is, the tables say what they say, and both agree."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest

from common import runs
from common.expected import expectation
from common.runs import Record, read_csv, source_digest
from reproductions import MODULES, program
from reproductions.evidence import (
    dose_response,
    equivalence,
    kept,
    likelihood,
    rules,
    sharpness,
    tables,
)
from reproductions.evidence.documents import DOCUMENTS, RECORDED, RECORDED_MODULES
from reproductions.evidence.kept import REFERENCE, load_record, load_seeds
from reproductions.evidence.probe import differences, probe
from tests.conftest import ROOT, SLOW, Load, long_where, python

SIZE_LIMIT = 40 * 2**20  # bytes of the whole folder, 16 of them trained weights
EXPERIMENTS = [dose_response, likelihood, rules, sharpness]
ELBO, ELBO_MARGIN = -78.3, 0.5  # nats: upstream's figure, and the spread that is allowed


# --- What is kept ---------------------------------------------------------------------------------


@pytest.mark.parametrize("module", MODULES)
def test_the_results_are_those_of_the_present_code(module: str) -> None:
    advice = "the code has changed: full_runs --renew (CONTRIBUTING.md), or make the runs again"
    digest = program(module).source_digest
    assert load_seeds(module)["source_sha256"] == digest, advice
    if not DOCUMENTS[module].unrecorded:
        for name in ("lockstep", "miniature"):
            content = kept.load_results(f"{module}/{name}.json")
            assert content["source_sha256"] == digest, advice
            assert [entry["precision"] for entry in content["entries"]] == ["float32", "float64"]
            assert all(entry["passed"] for entry in content["entries"])


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_experiments_results_are_those_of_the_present_code(experiment: Any) -> None:
    results, stamps = kept.load_results(experiment.RESULTS), kept.load_results(kept.DIGESTS)
    assert stamps.keys() == {e.RESULTS for e in EXPERIMENTS}
    parts = results.values() if experiment is sharpness else [results]
    modules = {module for part in parts for module in part}
    now = {module: program(module).source_digest for module in modules}
    assert stamps[experiment.RESULTS] == now, "make them again (CONTRIBUTING.md)"


@pytest.mark.parametrize("module", long_where(lambda module: module in SLOW, MODULES))
def test_the_probe_finds_the_numbers_that_are_kept(module: str, whole: Load) -> None:
    """First losses, validation, evaluation, drawn pictures and reports, in double precision."""
    port = program(module)
    now = probe(port, whole(port.dataset))
    assert list(differences(now, load_seeds(module)["probe"])) == []


@pytest.mark.parametrize("module", MODULES)
def test_a_kept_run_is_a_whole_run_with_the_documents_settings(module: str) -> None:
    record = load_record(module)
    assert (record["finished"], record["quick"], record["seed"]) == (True, False, 0)
    config = program(module).config  # a setting that is younger than the run had its default then
    assert config(**record["config"]) == config()
    rows = read_csv((REFERENCE / module / "history.csv").read_text())
    first = load_seeds(module)["runs"][0]
    assert first["loss"] == [row["loss"] for row in rows]
    assert first["evaluation"] == record["evaluation"]
    for path in (REFERENCE / module).iterdir():
        if path.suffix in (".png", ".gif"):
            assert np.std(iio.imread(path, index=None)) > 0


@pytest.mark.parametrize("module", MODULES)
def test_no_seed_is_left_out_and_every_kept_run_has_its_evaluation(module: str) -> None:
    document, runs = DOCUMENTS[module], load_seeds(module)["runs"]
    assert [run["seed"] for run in runs] == list(range(document.seeds))
    if document.short is not None:
        short = load_seeds(module)["short_runs"]
        seeds = list(range(document.seeds, document.seeds + document.short.runs))
        assert [run["seed"] for run in short] == seeds
        assert {len(run["loss"]) for run in short} == {document.short.epochs}
    evaluations = [run.get("evaluation") for run in [*runs, load_record(module)]]
    for variant in document.variants:
        record = load_record(f"{module}/{variant.name}")
        assert record["finished"] is True
        evaluations.append(record["evaluation"])
    for evaluation in evaluations:
        assert evaluation and math.isfinite(evaluation["log_likelihood"])


def test_the_kept_results_stay_small() -> None:
    assert sum(path.stat().st_size for path in REFERENCE.rglob("*") if path.is_file()) < SIZE_LIMIT


def test_the_kept_results_are_found_from_any_folder(tmp_path: Path) -> None:
    code = (
        "from reproductions.evidence.kept import load_seeds; print(load_seeds('mlp_vae')['module'])"
    )
    assert python(code, cwd=tmp_path, PYTHONPATH=str(ROOT)).stdout == "mlp_vae\n"


# --- The digest -----------------------------------------------------------------------------------


@pytest.fixture
def digest_of(tmp_path: Path) -> Callable[[str], str]:
    """The digest of a module with some source."""

    def digest(source: str) -> str:
        path = tmp_path / "module.py"
        path.write_text(source)
        return source_digest(path)

    return digest


def test_the_digest_sees_what_can_move_a_number_and_nothing_else(
    digest_of: Callable[[str], str],
) -> None:
    source = (ROOT / "reproductions" / "mlp_vae.py").read_text()
    digest = digest_of(source)
    assert digest_of(source + "\n# a comment\n") == digest
    assert digest_of(source.replace("HELD_BACK = 5_000  #", "HELD_BACK = 5000\n#")) == digest
    assert digest_of(re.sub(r'"""Document 000', '"""The document 000', source)) == digest
    assert digest_of(source.replace("HELD_BACK = 5_000", "HELD_BACK = 5_001")) != digest
    assert digest_of(source.replace("tf.nn.relu(x @", "tf.nn.elu(x @", 1)) != digest


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("optimizers.py", True),
        ("classifier.npz", True),
        ("errors.py", False),
        ("display.py", False),
    ],
)
def test_the_digest_counts_the_files_that_a_number_passes_through(
    name: str, counts: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ROOT / "reproductions" / "mlp_vae.py"
    before = source_digest(module)
    copy = shutil.copytree(ROOT / "common", tmp_path / "common")
    monkeypatch.setattr(runs, "__file__", str(copy / "runs.py"))
    assert source_digest(module) == before
    with (copy / name).open("a") as file:
        file.write("\nX = 1\n")
    assert (source_digest(module) != before) is counts


def test_the_probe_names_what_is_not_what_it_was() -> None:
    before = {"evaluation": {"elbo": -1.5, "units": 2}, "report": ["a", None]}
    assert list(differences(before, before)) == []
    assert list(differences({**before, "report": ["b", None]}, before)) == [
        "report[0]: 'b', was 'a'"
    ]
    after = {**before, "evaluation": {"elbo": -1.5001, "units": 2}}
    assert [line.split(":")[0] for line in differences(after, before)] == ["evaluation elbo"]
    assert list(differences({**before, "report": ["a"]}, before))


# --- The tables -----------------------------------------------------------------------------------


@pytest.mark.parametrize("page", tables.pages(), ids=lambda page: page.name)
def test_the_tables_are_fresh(page: Path) -> None:
    text = page.read_text()
    assert "<!-- table " in text
    assert tables.fill(text, tables.language_of(page)) == text, "reproductions.evidence.tables"


def test_every_table_stands_in_a_page_of_each_language() -> None:
    for language in ("en", "zh"):
        pages = (page for page in tables.pages() if tables.language_of(page) == language)
        text = "".join(page.read_text() for page in pages)
        missing = {name for name in tables.TABLES if f"<!-- table {name} -->" not in text}
        assert not missing, language


def test_the_expected_intervals_are_fresh() -> None:
    assert tables.EXPECTED.read_text() == tables.expected_text(), "reproductions.evidence.tables"


def test_chinese_tables_have_no_english_words() -> None:
    names = (
        "ELBO|nat|float32|float64|Adam|Nadam|RMSProp|Keras|TensorFlow|Paddle|oneDNN|XLA|epsilon|beta"
        "|leaky ReLU|logit|exp|sqrt"
    )
    for name, table in tables.TABLES.items():
        if name != "tutorials":  # whose titles are the documents' own
            for cell in (cell for row in table.rows() for cell in map(tables.chinese, row)):
                left = re.sub(rf"`[^`]*`|“[^”]*”|\b(?:{names})(?![a-z])", "", cell, flags=re.ASCII)
                assert not re.search(r"[A-Za-z]{3}", left), cell


# --- Whole runs -----------------------------------------------------------------------------------


def test_no_row_of_the_whole_runs_fails() -> None:
    comparisons = equivalence.available()
    assert {c.module for c in comparisons} == set(RECORDED_MODULES)
    assert [equivalence.as_line(c) for c in comparisons if c.equivalent is False] == []
    shown = {c.module for c in comparisons if c.equivalent}
    assert {"mlp_vae", "rmsprop_vae", "conv_vae"} <= shown


@pytest.mark.parametrize("document", RECORDED, ids=lambda d: d.module)
def test_the_printed_losses_lie_where_ours_would(document: Any) -> None:
    assert equivalence.outliers(document) == []


def test_a_wrong_printed_loss_would_be_noticed() -> None:
    document = DOCUMENTS["rmsprop_vae"]
    assert document.printed is not None
    wrong = document.printed._replace(values=(645.08, 173.02 * 1.5, 165.30, 172.93))
    assert [o.at for o in equivalence.outliers(replace(document, printed=wrong))] == [1000]


def test_the_elbo_of_epoch_100_is_upstreams() -> None:
    finals = [curve[99] for curve in kept.our_curves("elbo_cvae", "test_elbo")]
    assert np.abs(np.array(finals) - ELBO).max() <= ELBO_MARGIN


# Pocock's level of each look, for 0.05 over all: three to six looks, see docs/proof.md.
LEVELS = {
    "mlp_vae": 0.0221, "rmsprop_vae": 0.0221, "conv_vae": 0.0182, "elbo_cvae": 0.0158,
    "tfp_cvae": 0.0142,
}  # fmt: skip
NOT_SHOWN = {("tfp_cvae", "validation loss, final")}


@pytest.mark.parametrize("module", RECORDED_MODULES)
def test_the_whole_runs_were_no_repetition_until_they_passed(module: str) -> None:
    rows = {(c.module, c.quantity): c.p() for c in equivalence.compare(DOCUMENTS[module])}
    failed = {row for row, p in rows.items() if p is not None and p >= LEVELS[module]}
    assert failed == NOT_SHOWN & rows.keys()


def comparison(ours: Any, theirs: Any) -> equivalence.Comparison:
    return equivalence.Comparison("mlp_vae", "", np.array(ours, float), np.array(theirs, float))


def test_equal_distributions_are_equivalent_and_shifted_ones_are_not() -> None:
    draws = np.random.default_rng(0)
    theirs = draws.normal(100, 0.5, 8)
    assert comparison(draws.normal(100, 0.5, 10), theirs).verdict == "equivalent within 1 %"
    for mean in (103, 97):
        wrong = comparison(draws.normal(mean, 0.5, 10), theirs)
        assert (wrong.equivalent, wrong.verdict) == (False, "DIFFERENT")


def test_too_much_noise_shows_nothing_and_fails_where_the_seeds_are_enough() -> None:
    draws = np.random.default_rng(1)
    few = comparison(draws.normal(100, 9, 5), draws.normal(100, 9, 5))
    assert (few.equivalent, few.verdict) == (None, "not shown within 2 %")
    enough = comparison(draws.normal(100, 9, 20), draws.normal(100, 9, 20))
    assert enough.equivalent is False


def test_the_interval_is_what_the_two_tests_do_not_reject() -> None:
    draws = np.random.default_rng(2)
    c = comparison(draws.normal(100, 2, 7), draws.normal(99, 1, 5))
    assert c.margin_shown is not None
    assert c.p(c.margin_shown) == pytest.approx(equivalence.ALPHA, rel=1e-6)


def test_one_in_ten_intervals_misses_the_true_ratio() -> None:
    """With equal distributions: 400 pairs, standard error 1.5 per cent."""
    draws = np.random.default_rng(3).normal(100, 5, [400, 2, 6])
    inside = [low <= 0 <= high for a, b in draws for low, high in [_interval(a, b)]]
    assert np.mean(inside) == pytest.approx(1 - 2 * equivalence.ALPHA, abs=0.03)


def _interval(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    interval = comparison(ours, theirs).interval
    assert interval is not None
    return interval


def test_power_is_how_often_equal_distributions_are_shown_equivalent() -> None:
    pairs = np.random.default_rng(4).normal(100, 0.9, [200, 2, 8])
    compared = [comparison(a, b) for a, b in pairs]
    powers = [c.power or 0.0 for c in compared]
    assert np.mean([c.equivalent is True for c in compared]) == pytest.approx(
        np.mean(powers), abs=0.05
    )


def test_spread_and_shape_are_compared_too() -> None:
    draws = np.random.default_rng(5)
    c = comparison(draws.normal(100, 4, 20), draws.normal(100, 1, 20))
    assert c.spread is not None and c.shape is not None
    assert c.spread.low < 4 < c.spread.high
    assert c.spread.low > 1 and c.spread.p < 1e-3 and c.shape < 0.05


def test_negative_numbers_are_compared_by_size() -> None:
    c = comparison([-100.0, -100.1, -99.9], [-100.0, -100.2, -99.8])
    assert c.equivalent is True
    assert comparison([-104.0, -104.1], [-100.0, -100.2]).equivalent is False


def test_a_single_run_is_held_against_the_prediction_interval_of_the_others() -> None:
    inside, outside = comparison([1.0, 1.1, 0.9], [1.2]), comparison([1.0, 1.1, 0.9], [2.0])
    assert inside.equivalent is None and "single run inside" in inside.verdict
    assert outside.equivalent is False and "OUTSIDE" in outside.verdict
    assert comparison([1.0], [1.0]).equivalent is None


def test_runs_that_were_stopped_early_are_compared_up_to_there() -> None:
    ours = [np.linspace(10, 1, 10) + i for i in range(2)]
    theirs = [np.linspace(10, 1, 10), np.linspace(10, 1, 10)[:4]]
    found = equivalence.of_curves(DOCUMENTS["mlp_vae"], "cost", ours, theirs)
    expected = [("cost, final", 1), ("cost, whole curve", 1),
                ("cost, epoch 4", 2), ("cost, first 4 epochs", 2)]  # fmt: skip
    assert [(c.quantity, len(c.theirs)) for c in found] == expected
    assert found[2].theirs.tolist() == [7, 7]
    found = equivalence.of_curves(DOCUMENTS["mlp_vae"], "cost", [*ours, ours[0][:4]], theirs[1:])
    assert [(c.quantity, len(c.ours)) for c in found] == [(f, 3) for f, _ in expected[2:]]


def test_printed_ends_count_as_runs_at_the_end_and_nowhere_else() -> None:
    theirs = [np.linspace(10, 1, 10), np.linspace(10, 1, 10)[:4]]
    found = equivalence.of_curves(DOCUMENTS["mlp_vae"], "cost", theirs[:1], theirs, (2.0, 3.0))
    assert [c.theirs.tolist() for c in found] == [[1, 2, 3], [5.5], [7, 7], [8.5, 8.5]]
    assert [c.equivalent for c in found] == [None, None, None, None]
    wrong = equivalence.of_curves(DOCUMENTS["mlp_vae"], "cost", [theirs[0] + 9], theirs, (2.0, 3.0))
    assert wrong[0].equivalent is False
    stopped = equivalence.of_curves(DOCUMENTS["mlp_vae"], "cost", theirs[:1], theirs[1:], (2.0,))
    assert [c.theirs.tolist() for c in stopped] == [[2], [7], [8.5]]


# --- What a user is told --------------------------------------------------------------------------


def test_a_run_is_told_where_it_should_end(tmp_path: Path) -> None:
    path = tmp_path / "expected.json"
    path.write_text(
        '{"m": {"column": "loss", "whole": {"seeds": 10, "interval": [164.07, 167.04]}}}'
    )
    record = {"quick": False, "results": {"final_loss": 165.61}}
    assert expectation("m", record, path) == (
        "reference: 164.1 to 167.0 (95 % prediction interval of 10 seeds); this run: 165.6, inside"
    )
    outside = expectation("m", {"quick": False, "results": {"final_loss": 170.2}}, path)
    assert outside is not None and "this run: 170.2, outside, as one good run" in outside
    assert expectation("m", {"quick": True, "results": {"final_loss": 1.0}}, path) is None
    assert expectation("n", record, path) is None


def test_a_run_is_compared_unless_its_training_is_another() -> None:
    port = program("tfp_cvae")
    record = Record("tfp_cvae", {}, 0, "float32", False, results={"final_val_loss": 35_000.0})

    def told(**settings: Any) -> bool:
        config = asdict(port.config(**settings))
        return port.expected(replace(record, config=config)) is not None

    assert told()
    assert told(digit=3)  # only what is drawn
    assert not told(mean_spread=2.0)


@pytest.mark.parametrize("module", MODULES)
def test_the_kept_run_ends_inside_its_own_interval(module: str) -> None:
    line = expectation(module, load_record(module), tables.EXPECTED)
    assert (line is None) == (DOCUMENTS[module].seeds < tables.FEWEST)
    assert line is None or line.endswith("inside")
