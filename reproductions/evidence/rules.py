"""What other rules see of the forty mistakes: `python -m reproductions.evidence.rules`.

TensorFlow's two guides to migration and Paddle's guide to reproducing papers say when a port counts
as equal. Each mistake of `controls.py` is trained for a few steps, and each rule is asked whether
it finds it; and whether it lets the right modules pass. The rules are taken as their guides print
them. What they are applied to is ours: the losses of a module on its recording's weights, images
and noise. The results go to `artifacts/reference/rules.json`, one at a time, so a command that was
stopped goes on where it was.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np

from common.cli import OneLineParser, run_command
from reproductions import program
from reproductions.evidence import kept, lockstep
from reproductions.evidence.controls import CONTROLS
from reproductions.evidence.documents import RECORDED
from reproductions.evidence.mistakes import Mistake, planted

RESULTS = "rules.json"  # module -> mistake -> precision -> {"difference", "problems"}
STEPS = 20
RIGHT = "the right module"


class Rule(NamedTuple):
    """When a guide calls two series of losses equal."""

    name: str
    precision: str
    equal: Callable[[np.ndarray, np.ndarray], bool] | None  # (ours, theirs); None: the lockstep's


def _forward_only(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """`assert_allclose` with its default, on what the forward pass computes before any update."""
    return bool(np.allclose(ours[:1], theirs[:1], rtol=1e-7, atol=0))


def _ten_then_the_rest(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Two tolerances for the first ten steps, and 5 % for those that follow."""
    first = np.allclose(ours[:10], theirs[:10], rtol=1e-7, atol=1e-5)
    return bool(first and np.allclose(ours[10:], theirs[10:], rtol=0.05, atol=0))


def _two_rounds(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """An absolute tolerance for the losses of two steps."""
    return bool(np.abs(ours[:2] - theirs[:2]).max() <= 1e-6)


RULES = (
    Rule("TensorFlow's guide “Validate correctness”: forward pass, 1e-7", "float32", _forward_only),
    Rule(
        "TensorFlow's guide “Debug a migrated pipeline”: 1e-5 + 1e-7 for ten steps, then 5 %",
        "float32",
        _ten_then_the_rest,
    ),
    Rule(
        "Paddle's guide: two rounds of the loss, 1e-6 (its tool's default)", "float32", _two_rounds
    ),
    Rule("the lockstep in float32", "float32", None),
    Rule("the lockstep in float64", "float64", None),
)


# --- Making the results ---------------------------------------------------------------------------


def followed(module: str, precision: str, mistake: Mistake | None) -> dict[str, Any]:
    """How far a module's losses are from its recording's, and what the lockstep says of it."""
    with planted(mistake) if mistake else nullcontext():
        verdict = lockstep.follow(module, precision, STEPS)
    return {"difference": lockstep.series(verdict), "problems": list(verdict.problems)}


def make() -> None:
    """Makes what the file does not have yet."""
    content = kept.load_results(RESULTS)
    for document in RECORDED:
        kept.stamp(RESULTS, document.module, program(document.module).source_digest)
    wanted = [(d.module, RIGHT, None) for d in RECORDED]
    mistakes = [(c.mistake.module, c.mistake.what, c.mistake) for c in CONTROLS]
    for module, what, mistake in [*wanted, *mistakes]:
        entry = content.setdefault(module, {}).setdefault(what, {})
        for precision in lockstep.FLOOR:
            if precision not in entry:
                entry[precision] = followed(module, precision, mistake)
                kept.write(RESULTS, content)
                print(module, what, precision, entry[precision]["problems"][:1], flush=True)


# --- What they say --------------------------------------------------------------------------------


def finds(rule: Rule, module: str, entry: dict[str, Any]) -> bool:
    """Whether a rule calls a module different from its original."""
    found = entry[rule.precision]
    if rule.equal is None:
        return bool(found["problems"])
    theirs = lockstep.recording_of(module, rule.precision).loss[: len(found["difference"])]
    return not rule.equal(theirs * (1 + np.array(found["difference"])), theirs)


def table(results: dict[str, Any]) -> list[list[str]]:
    """A row for each rule: the right modules that it accepts, and the mistakes that it finds.

    What it finds in a module whose right version it refuses says nothing, and is counted apart.
    """
    rows = []
    for rule in RULES:
        refused = [m for m, entries in results.items() if finds(rule, m, entries[RIGHT])]
        found = {
            module: [finds(rule, module, entry) for what, entry in entries.items() if what != RIGHT]
            for module, entries in results.items()
        }
        everywhere = [hit for hits in found.values() for hit in hits]
        accepted = [hit for module in found if module not in refused for hit in found[module]]
        names = ", ".join(f"`{m}`" for m in refused)
        rows.append(
            [rule.name, f"{len(results) - len(refused)} / {len(results)}", names or "–",
             f"{sum(accepted)} / {len(accepted)}", f"{sum(everywhere)} / {len(everywhere)}"]
        )  # fmt: skip
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run_command("rules", lambda: _rules(argv))


def _rules(argv: Sequence[str] | None) -> None:
    OneLineParser(
        "reproductions.evidence.rules",
        "Asks other guides' rules what they see of this project's mistakes.",
    ).parse_args(argv)
    make()
    for row in table(kept.load_results(RESULTS)):
        print(" | ".join(row))


if __name__ == "__main__":
    sys.exit(main())
