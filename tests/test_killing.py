"""Killed and resumed, a run ends with the same bits; `python -m tests.killing` tries it longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.killing import check


@pytest.mark.long
@pytest.mark.parametrize(("module", "kills"), [("rmsprop_vae", 2), ("tfp_cvae", 3)])
def test_a_killed_run_ends_as_one_left_alone(module: str, kills: int, tmp_path: Path) -> None:
    check(module, kills, tmp_path)
