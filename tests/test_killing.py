"""Killed and resumed, a run ends with the same bits; `python -m tests.killing` tries it longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from reproductions import MODULES
from tests.killing import OPTIONS, check


def test_the_command_knows_a_short_run_of_every_module() -> None:
    assert OPTIONS.keys() == set(MODULES)


@pytest.mark.long
@pytest.mark.parametrize(("module", "kills"), [("rmsprop_vae", 2), ("tfp_cvae", 3)])
def test_a_killed_run_ends_as_one_left_alone(module: str, kills: int, tmp_path: Path) -> None:
    check(module, kills, tmp_path)
