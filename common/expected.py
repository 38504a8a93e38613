"""What a run with a document's settings is expected to end with, told to its user in one line."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

EXPECTED = Path(__file__).with_name("expected.json")  # reproductions.evidence.tables writes it


def expectation(module: str, record: Mapping[str, Any], path: Path = EXPECTED) -> str | None:
    """The last value of a finished run, compared with where one further run is expected to end.

    Args:
      module: the run's.
      record: the run's run.json. Its settings must be the document's, or those of `--quick`.
      path: a JSON file: for each module the `column` of the history, and for "whole" and "quick"
        runs the number of `seeds` and the 95 % prediction `interval` they give.

    Returns:
      A line for the terminal; None if no interval is known.
    """
    expected = json.loads(path.read_text(encoding="utf-8")).get(module, {})
    known = expected.get("quick" if record["quick"] else "whole")
    if known is None:
        return None
    low, high = known["interval"]
    value = record["results"][f"final_{expected['column']}"]
    decimals = max(0, 1 - math.floor(math.log10(high - low)))
    low_text, high_text, text = (f"{x:,.{decimals}f}" for x in (low, high, value))
    line = (
        f"reference: {low_text} to {high_text} (95 % prediction interval of {known['seeds']}"
        f" seeds); this run: {text}, "
    )
    if low <= value <= high:
        return line + "inside"
    return line + (
        "outside, as one good run in twenty is. If other seeds are, too, compare versions and"
        f" processor in run.json with those in artifacts/reference/{module}/run.json"
    )
