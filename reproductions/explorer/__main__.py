"""`python -m reproductions.explorer`: the page of the trained models, live in a browser."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from common.cli import OneLineParser, new_file, run_command
from common.files import write_atomically
from reproductions.evidence.kept import REFERENCE
from reproductions.explorer.build import build

OUTPUT = Path("artifacts") / "explorer.html"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run_command("explorer", lambda: _make(_parse(argv)))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = OneLineParser(
        "reproductions.explorer",
        "Makes one HTML page in which the trained models run live. It opens from disk"
        " and fetches nothing.",
    )
    parser.add_argument(
        "--output", type=new_file, default=OUTPUT, metavar="FILE", help=f"default: {OUTPUT}"
    )
    return parser.parse_args(argv)


def _make(options: argparse.Namespace) -> None:
    page = build(REFERENCE)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(options.output, page)
    print(f"{options.output}: {len(page.encode()) / 1e6:.1f} MB. Open it in a browser.")


if __name__ == "__main__":
    sys.exit(main())
