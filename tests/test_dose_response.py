"""Planted mistakes change what they say, and whole runs of them are compared rightly."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import numpy as np
import pytest

from common.chance import Seeded
from common.training import Experiment, Losses, fit
from reproductions import program
from reproductions.evidence import dose_response, kept
from reproductions.evidence.documents import DOCUMENTS, RECORDED_MODULES
from reproductions.evidence.mistakes import (
    OPTIMIZER,
    epsilon,
    kl_weight,
    learning_rate,
    planted,
)
from tests.conftest import small

FACTOR = 1.5
SAME = 1e-12  # relative, of double-precision sums in another order
SHIFT = 1.1  # of all losses of made-up runs: far beyond the margin


def built(module: str) -> Experiment:
    port: Any = program(module)
    return port.experiment(port.config(), small(port.dataset), Seeded(0), "float64")


def losses_of(experiment: Experiment) -> Losses:
    """Of the first images, with weights that are spread out so that the KL counts."""
    for i, variable in enumerate(experiment.variables):
        variable.assign(0.1 * np.random.RandomState(i).standard_normal(variable.shape))
    eps = np.random.RandomState(0).standard_normal([20, experiment.latent_dim])
    return experiment.loss(experiment.images[:20], experiment.labels[:20], eps)


@pytest.mark.parametrize("module", RECORDED_MODULES)
def test_a_mistake_in_the_optimiser_is_of_the_size_that_it_says(module: str) -> None:
    good = built(module).optimizer
    assert type(good).__name__ == OPTIMIZER[module]
    with planted(learning_rate(module, FACTOR)):
        assert built(module).optimizer.learning_rate == FACTOR * good.learning_rate
    with planted(epsilon(module, FACTOR)):
        wrong = built(module).optimizer
        assert wrong.epsilon == FACTOR * good.epsilon  # type: ignore[attr-defined]
        assert wrong.learning_rate == good.learning_rate
    again = built(module).optimizer
    assert (again.learning_rate, again.epsilon) == (good.learning_rate, good.epsilon)  # type: ignore[attr-defined]


@pytest.mark.parametrize("module", RECORDED_MODULES)
def test_a_weight_of_the_kl_changes_the_kl_in_the_loss_alone(module: str) -> None:
    good = losses_of(built(module))
    with planted(kl_weight(module, 1.0)):
        np.testing.assert_allclose(losses_of(built(module)).loss, good.loss, rtol=SAME)
    with planted(kl_weight(module, FACTOR)):
        wrong = losses_of(built(module))
    count = 2 if module == "tfp_cvae" else 1  # times that the document adds the mean KL
    more = count * (FACTOR - 1) * np.mean(good.kl)
    np.testing.assert_allclose(float(wrong.loss) - float(good.loss), more, rtol=1e-9)
    np.testing.assert_array_equal(wrong.kl, good.kl)


def test_a_whole_run_is_the_one_that_training_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    port: Any = program("rmsprop_vae")
    short = dataclasses.replace(port, config=partial(port.config, steps=250, hidden=16))
    monkeypatch.setattr(dose_response, "program", lambda module: short)
    data = small("mnist")
    progress = fit(port.experiment(short.config(), data, Seeded(3)))
    rows = dose_response.whole_run("rmsprop_vae", data, 3)
    assert len(rows) == 3
    np.testing.assert_allclose(rows, [row["loss"] for row in progress.rows], rtol=1e-6)


def test_a_shift_is_rejected_and_the_right_module_is_not() -> None:
    document = DOCUMENTS["rmsprop_vae"]
    original = kept.original_curves(document.number, document.curves[0].recorded)
    found_at = {"float32": 2, "float64": 1}
    made_up = {
        "learning rate × 1.03": {seed: list(c) for seed, c in enumerate(original)},
        "learning rate × 1.1": {seed: list(SHIFT * c) for seed, c in enumerate(original)},
        "KL × 0.5": {0: [600.0], **{s: list(c) for s, c in enumerate(original, start=1)}},
    }
    results = {
        "rmsprop_vae": {
            what: {"found_at": found_at, "runs": runs} for what, runs in made_up.items()
        }
    }
    right, same, shifted, stopped = dose_response.rows(results)
    assert right.found_at is None
    assert right.verdict == same.verdict == "accepted"
    assert same.p is not None
    assert same.p > 0.99
    assert shifted.verdict == "rejected"
    assert shifted.final.difference == pytest.approx(SHIFT - 1)
    assert shifted.p is not None
    assert shifted.p < 0.01
    assert stopped.stopped == 1
    assert stopped.verdict == "rejected"
    table = dose_response.table(results)
    assert [row[-3:] for row in table[1:3]] == [["accepted", "2", "1"], ["rejected", "2", "1"]]


def test_the_kept_results_have_every_seed_and_the_lockstep_finds_every_mistake() -> None:
    results = kept.load_results(dose_response.RESULTS)
    assert results
    for module, mistakes in results.items():
        assert set(mistakes) <= {m.what for m in dose_response.MISTAKES if m.module == module}
        for entry in mistakes.values():
            assert list(entry["runs"]) == [str(seed) for seed in range(len(entry["runs"]))]
            assert entry["found_at"]["float64"] is not None
