"""How often the lockstep would refuse the original itself.

    python -m reproductions.evidence.false_alarms

Beside a recording lie the losses of further runs of the original, each with its initial weights
moved by one unit in the last place. Each of them is taken for a port in turn, and is compared by
the lockstep's rule with the envelope of the others.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from common.cli import OneLineParser, run_command
from reproductions import GOLDEN
from reproductions.evidence.documents import RECORDED, Document
from reproductions.evidence.lockstep import ENVELOPES, FLOOR, HORIZON

PRECISION = "float32"


class Alarms(NamedTuple):
    """What leaving out one run at a time says of a document's rule."""

    runs: int
    refused: int
    closest: float  # the largest share of what was allowed that a run used


def leave_one_out(losses: np.ndarray) -> Alarms:
    """Applies the rule to runs of one program.

    Args:
      losses: [1 + runs, steps]; row 0 is the program as it is, the others are nudged.
    """
    apart = np.abs(losses[1:] / losses[0] - 1)
    refused, closest = 0, 0.0
    for left_out in range(len(apart)):
        others = np.delete(apart, left_out, axis=0)
        envelope = np.maximum.accumulate(others.max(axis=0))
        within = envelope <= HORIZON[PRECISION]
        used = (apart[left_out] / (FLOOR[PRECISION] + ENVELOPES * envelope))[within]
        refused += bool((used > 1).any())
        closest = max(closest, float(used.max()))
    return Alarms(len(apart), refused, closest)


def losses_of(document: Document) -> np.ndarray:
    """The losses of the runs beside a recording, [1 + runs, steps]."""
    path = GOLDEN / document.number / f"lockstep-{PRECISION}.npz"
    with np.load(path, allow_pickle=False) as arrays:
        return np.array(arrays["loss"])


def table() -> list[list[str]]:
    """A row for each document: how many nudged runs are refused, how close one came."""
    rows = []
    for document in RECORDED:
        alarms = leave_one_out(losses_of(document))
        cells = [str(alarms.runs), str(alarms.refused), f"{alarms.closest:.2f}"]
        rows.append([document.number, *cells])
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run_command("false_alarms", lambda: _false_alarms(argv))


def _false_alarms(argv: Sequence[str] | None) -> None:
    OneLineParser(
        "reproductions.evidence.false_alarms",
        "Says how often the lockstep's rule would refuse the original itself.",
    ).parse_args(argv)
    for row in table():
        print(" | ".join(row))


if __name__ == "__main__":
    sys.exit(main())
