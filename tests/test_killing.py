"""Killed and resumed, a run ends with the same bits. `python -m tests.killing` does it at
length."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from common.datasets import Dataset
from tests.killing import check


@pytest.mark.parametrize("module", ["rmsprop_vae", "tfp_cvae"])
def test_a_killed_run_ends_as_one_left_alone(
    module: str, tmp_path: Path, whole: Callable[[str], Dataset]
) -> None:
    whole("mnist")
    check(module, kills=3, scratch=tmp_path)
