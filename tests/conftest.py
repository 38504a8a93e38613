"""Fixtures: small samples for hermetic tests, the whole data sets for the proofs."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from common import datasets
from common.datasets import Dataset
from common.errors import DataUnavailable

SAMPLES = Path(__file__).parent / "samples"
ROOT = Path(__file__).parent.parent


@cache
def small(name: str) -> Dataset:
    """The first images of a data set: 6,000 for training (1,000, six times over), 500 for testing.

    Six thousand, because two of the documents hold 5,000 back.
    """
    with np.load(SAMPLES / f"{name}.npz") as arrays:
        return Dataset(
            name,
            tuple("0123456789"),
            np.tile(arrays["x_train"], (6, 1, 1)),
            np.tile(arrays["y_train"], 6),
            arrays["x_test"],
            arrays["y_test"],
        )


@pytest.fixture
def sample() -> Callable[[str], Dataset]:
    """`sample(name)` is a small data set, without any network."""
    return small


@cache
def _whole(name: str) -> Dataset | str:
    try:
        return datasets.load(name, quiet=True)
    except DataUnavailable as error:
        return str(error)


@pytest.fixture
def whole() -> Callable[[str], Dataset]:
    """`whole(name)` is a whole data set, fetched if need be; where it cannot be, the test is
    skipped.

    Where the environment says that the proofs must run (REQUIRE_DATA), it fails instead.
    """

    def load(name: str) -> Dataset:
        data = _whole(name)
        if isinstance(data, str):
            if os.environ.get("REQUIRE_DATA"):
                pytest.fail(data)
            pytest.skip(data)
        return data

    return load
