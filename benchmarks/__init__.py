"""Timings, apart from the tests."""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from common import devices
from common.cli import one_of
from reproductions import MODULES

MATRIX = 2048  # rows and columns of the product that is taken for the machine's peak


def command(module: str, text: str | None) -> argparse.ArgumentParser:
    """A command's parser, whose --help is the text: its module's docstring."""
    return argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Reads the command line, and the modules to measure: those that are named, or all."""
    parser.add_argument(
        "modules", nargs="*", type=one_of(MODULES), metavar="module", help="default: all"
    )
    options = parser.parse_args()
    options.modules = options.modules or list(MODULES)
    return options


def seconds_of(call: Callable[[], Any], rounds: int, seconds: float) -> list[float]:
    """How long a call takes, after two that do not count: the mean of each round.

    Args:
      call: what is timed; gives an array or a tensor.
      rounds: how many.
      seconds: about so long a round takes.
    """
    call()
    began = time.perf_counter()
    np.asarray(call())
    calls = max(1, round(seconds / (time.perf_counter() - began)))
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(calls):
            result = call()
        np.asarray(result)  # a tensor is there now
        times.append((time.perf_counter() - began) / calls)
    return times


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    names = ["tensorflow", "torch", "jax"]
    return {
        "date": date.today().isoformat(),
        "processor": processor("model name"),
        "avx512": "avx512f" in processor("flags").split(),
        "device": devices.describe()["device"],
        "threads": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {n: version(n) for n in names if importlib.util.find_spec(n)},
        "matrix": MATRIX,
    }


def processor(what: str) -> str:
    """What Linux tells of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith(what))
    except (OSError, StopIteration):
        return platform.machine()
