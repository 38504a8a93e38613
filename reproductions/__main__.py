"""`python -m reproductions` lists the reproductions."""

from __future__ import annotations

import sys

from common.cli import OneLineParser, run_command
from reproductions import CATALOGUE


def main() -> int:
    """Runs the command; returns its exit code."""
    return run_command("reproductions", _print_list)


def _print_list() -> None:
    OneLineParser(
        prog="python -m reproductions",
        description="Lists the reproductions. To train one: python -m reproductions.<module>",
    ).parse_args()
    print("python -m reproductions.<module>   trains and draws what the document shows\n")
    for entry in CATALOGUE:
        print(f"  {entry.module:12} {entry.document:7} {entry.dataset:16} {entry.summary}")
    print(
        "\npython -m reproductions.verify     compares the ports with recordings of the originals"
    )


if __name__ == "__main__":
    sys.exit(main())
