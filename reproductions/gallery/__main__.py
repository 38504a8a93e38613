"""The command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from common.cli import OneLineParser, new_file, run_command
from common.files import write_atomically
from common.runs import RUNS, find_record
from reproductions.evidence.documents import DOCUMENTS
from reproductions.evidence.kept import REFERENCE
from reproductions.gallery.content import collect
from reproductions.gallery.page import render

OUTPUT = Path("artifacts") / "gallery.html"


def finished_runs(root: Path) -> list[tuple[Path, bool]]:
    """The finished runs below a folder; pictures are taken from the newest of each module."""
    found = []
    for folder in sorted(root.glob("*")):
        runs = [run for run in sorted(folder.glob("*")) if is_finished(run)]
        found += [(run, run == runs[-1]) for run in runs]
    return found


def is_finished(folder: Path) -> bool:
    """Whether a folder, which is no link, holds a finished run of one of the modules."""
    record = None if folder.is_symlink() else find_record(folder)
    return record is not None and record.finished and record.module in DOCUMENTS


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run_command("gallery", lambda: _make(_parse(argv)))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = OneLineParser(
        "reproductions.gallery",
        "Makes one HTML page of the reference results and of runs of one's own.",
    )
    parser.add_argument(
        "runs", nargs="*", type=Path, metavar="RUN",
        help=f"folder of a run (default: the finished runs below {RUNS})",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=new_file, default=OUTPUT, metavar="FILE", help=f"default: {OUTPUT}"
    )
    return parser.parse_args(argv)


def _make(options: argparse.Namespace) -> None:
    own = [(folder, True) for folder in options.runs] or finished_runs(RUNS)
    views = collect(REFERENCE, own)
    text = render(views)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(options.output, text)
    count = sum(len(view["runs"]) for view in views)
    print(
        f"{options.output}: {count} run{'s' * (count != 1)}, {len(text.encode()) / 2**20:.1f} MiB"
    )


if __name__ == "__main__":
    sys.exit(main())
