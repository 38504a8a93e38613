"""How sharp the lockstep is: mistakes of every size, and harmless changes, which must pass."""

from __future__ import annotations

import numpy as np
import pytest

from reproductions.evidence import false_alarms, sharpness
from reproductions.evidence.documents import RECORDED, RECORDED_MODULES
from reproductions.evidence.lockstep import follow
from tests.conftest import SLOW, Load, long_where, train_on

STEPS = 4  # of the checks made here; `sharpness.json` has those over more steps

CHANGES = [
    (module, change)
    for module in RECORDED_MODULES
    for change in sharpness.HARMLESS
    if (module, change) not in sharpness.IMPOSSIBLE
]


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize(
    ("module", "change"), long_where(lambda c: c[0] in SLOW and "eager" not in c[1], CHANGES)
)
def test_a_harmless_change_passes(
    module: str,
    precision: str,
    change: str,
    whole: Load,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train_on(monkeypatch, whole)  # reading it anew takes longer than the steps
    with sharpness.HARMLESS[change](module):
        assert follow(module, precision, STEPS).problems == ()


@pytest.mark.parametrize("smallest", [0, 1, 7, 15])
def test_the_smallest_mistake_is_searched_by_halving(
    smallest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[float] = []

    def graded(module: str, factor: float) -> sharpness.Mistake:
        sizes.append(factor - 1)
        return sharpness.Mistake(module, "", "PIXELS", lambda good: good)

    def first_rejected(module: str, precision: str) -> int | None:
        return 3 if sizes[-1] > 0.5 * 10.0**-smallest else None

    monkeypatch.setattr(sharpness, "GRADED", {"a kind": graded})
    monkeypatch.setattr(sharpness, "first_rejected", first_rejected)
    found = sharpness.smallest_found("mlp_vae", "float64", "a kind")
    assert found == {"k": smallest, "step": 3 if smallest else None}


def test_a_run_that_strays_alone_is_an_alarm_and_its_like_are_none() -> None:
    steps = np.arange(1, 31)
    together = 100 * (1 + np.outer([0, 1, -1, 2, 1.5], 1e-6 * steps))
    assert false_alarms.leave_one_out(together) == (4, 0, pytest.approx(6e-5 / 4.6e-4, rel=0.02))
    together[3, 9:] *= 1.01  # beyond ten envelopes of the others
    assert false_alarms.leave_one_out(together)[:2] == (4, 1)


def test_the_original_itself_is_not_refused() -> None:
    rows = {number: (int(runs), int(refused)) for number, runs, refused, _ in false_alarms.table()}
    assert rows == {document.number: (20, 0) for document in RECORDED}
