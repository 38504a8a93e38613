"""The rules of other guides are applied as the guides print them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from reproductions.evidence import rules
from reproductions.evidence.lockstep import recording_of

THEIRS = np.linspace(550.0, 160.0, rules.STEPS)
SIZES = 10.0 ** np.arange(-9, 0.1, 0.25)  # relative differences, from far below each rule on


def holds(assertion: Any, *arguments: Any, **settings: Any) -> bool:
    """Whether NumPy's assertion passes."""
    try:
        assertion(*arguments, **settings)
    except AssertionError:
        return False
    return True


def validate_correctness(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """`assert_allclose(a, b)` on what constant weights compute."""
    return holds(np.testing.assert_allclose, ours[0], theirs[0])


def debug_a_pipeline(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """1e-5 for the first ten steps, five per cent afterwards."""
    first = holds(np.testing.assert_allclose, ours[:10], theirs[:10], atol=1e-5)
    return first and holds(np.testing.assert_allclose, ours[10:], theirs[10:], rtol=0.05)


def two_rounds(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Both of the first losses to 1e-6."""
    return bool((np.abs(ours - theirs)[:2] <= 1e-6).all())


@pytest.mark.parametrize(
    ("rule", "printed", "seen"),  # by the rule: so many steps
    [
        (rules.RULES[0], validate_correctness, 1),
        (rules.RULES[1], debug_a_pipeline, rules.STEPS),
        (rules.RULES[2], two_rounds, 2),
    ],
    ids=["validate", "debug", "paddle"],
)
def test_a_rule_decides_as_its_guide_prints_it(rule: rules.Rule, printed: Any, seen: int) -> None:
    assert rule.equal is not None
    for step, sign in itertools.product(range(rules.STEPS), (-1, 1)):
        decided = []
        for size in SIZES:
            ours = THEIRS.copy()
            ours[step] *= 1 + sign * size
            decided.append(rule.equal(ours, THEIRS))
            assert decided[-1] == printed(ours, THEIRS), (step, size)
        assert (decided[0], decided[-1]) == (True, step >= seen)


def test_the_lockstep_finds_what_its_verdict_says() -> None:
    right = {"difference": [0.0] * rules.STEPS, "problems": []}
    wrong = {"difference": [0.0] * rules.STEPS, "problems": ["loss of step 2"]}
    for rule in rules.RULES[3:]:
        assert not rules.finds(rule, "mlp_vae", {rule.precision: right})
        assert rules.finds(rule, "mlp_vae", {rule.precision: wrong})


def test_a_rule_sees_the_losses_that_were_kept() -> None:
    """A kept difference of 1e-5 at step 1 is 0.005 nats of mlp_vae's first loss."""
    recording = recording_of("mlp_vae", "float32")
    assert recording.loss[0] * 1e-5 > 1e-3
    entry = {"float32": {"difference": [1e-5, *[0.0] * (rules.STEPS - 1)], "problems": []}}
    assert [rules.finds(rule, "mlp_vae", entry) for rule in rules.RULES[:3]] == [True] * 3


def test_what_is_found_in_a_module_that_a_rule_refuses_is_counted_apart() -> None:
    same = {"difference": [0.0] * rules.STEPS, "problems": []}
    apart = {"difference": [1e-3] * rules.STEPS, "problems": ["loss of step 1"]}
    good, bad = (dict.fromkeys(("float32", "float64"), e) for e in (same, apart))
    results = {
        "mlp_vae": {rules.RIGHT: good, "a mistake": bad, "one that nobody sees": good},
        "conv_vae": {rules.RIGHT: bad, "a mistake": bad},
    }
    for row in rules.table(results):
        assert row[1:] == ["1 / 2", "`conv_vae`", "1 / 2", "2 / 3"]
