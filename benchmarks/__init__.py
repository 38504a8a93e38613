"""Timings, apart from the tests."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from common.cli import one_of
from reproductions import MODULES


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
