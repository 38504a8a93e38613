"""Timings, apart from the tests."""

from __future__ import annotations

import argparse

from reproductions import MODULES


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Reads the command line, and the modules to measure: those that are named, or all."""
    parser.add_argument("modules", nargs="*", metavar="module", help="default: all")
    options = parser.parse_args()
    for module in options.modules:
        if module not in MODULES:
            parser.error(f"no module {module!r}: choose from {', '.join(MODULES)}")
    options.modules = options.modules or list(MODULES)
    return options
