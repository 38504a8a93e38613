"""Trains a module once for each of many seeds, several at a time.

    python -m reproductions.evidence.many_seeds rmsprop_vae --seeds 10 --quick

A run is a process of its own with one core, because one run leaves half of two cores idle. Finished
runs are kept and a stopped one goes on, so the command can be stopped and repeated. It tells how
long the rest will take and, at the end, what the runs ended with.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common.cli import OneLineParser, run_command
from common.errors import BadInput, Failure, Interrupted
from common.runs import RUNS, read_csv, read_record
from reproductions import MODULES, program

ONE_THREAD = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run_command("many_seeds", lambda: _many_seeds(sys.argv[1:] if argv is None else argv))


def _many_seeds(argv: Sequence[str]) -> None:
    parser = OneLineParser(
        prog="python -m reproductions.evidence.many_seeds",
        description="Trains a module once for each of many seeds, several at a time. Options that"
        " are not listed here are the module's own.",
        allow_abbrev=False,
    )
    parser.add_argument("module", choices=MODULES, metavar="module", help="which module to train")
    parser.add_argument(
        "--seeds", type=int, default=10, metavar="N", help="train with seeds 0 to N-1 (default: 10)"
    )
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, metavar="N",
        help="how many to train at a time (default: one for each core)",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, metavar="DIR",
        help="the folder of the runs (default: artifacts/runs/seeds/<module>)",
    )  # fmt: skip
    options, own = parser.parse_known_args(argv)
    if options.seeds < 1 or options.processes < 1:
        parser.error("--seeds and --processes must be at least 1")
    folder = options.output or RUNS / "seeds" / options.module
    jobs = {folder / f"seed-{n}": ["--seed", str(n), *own] for n in range(options.seeds)}
    runs = finished(options.module, jobs, options.processes)
    for line in summary(runs):
        print(line)


def finished(module: str, jobs: Mapping[Path, Sequence[str]], processes: int = 1) -> list[Path]:
    """The folders of finished runs; makes or completes those that are not finished.

    Args:
      module: that is trained.
      jobs: for each folder, the options of its run.
      processes: how many runs are made at a time; a single one has all cores.

    Raises:
      BadInput: an option cannot be used, or a folder holds a run of other settings or other code.
      Interrupted: the user stopped it.
      Failure: a run failed; the others were made.
    """
    todo = {folder: how for folder, how in jobs.items() if not _is_finished(module, folder, how)}
    processes = min(processes, len(todo))
    failed = []
    with ThreadPoolExecutor(processes or 1) as pool:
        ends = {
            pool.submit(_train, module, folder, how, processes > 1): folder
            for folder, how in todo.items()
        }
        for end in tqdm(as_completed(ends), module, len(todo), unit="run", disable=None):
            if end.result() == Interrupted.exit_code:
                pool.shutdown(cancel_futures=True)
                raise Interrupted("stopped: the same command goes on with it")
            if end.result() != 0:
                failed.append(ends[end])
    if failed:
        raise Failure(f"{len(failed)} runs failed, the first in {failed[0]}")
    return list(jobs)


def _is_finished(module: str, folder: Path, options: Sequence[str]) -> bool:
    """Whether a folder holds the finished run of these options."""
    port = program(module)
    wanted, found = port.record(port.options(options).given), read_record(folder)
    if found is None:
        return False
    settings = ("module", "config", "seed", "dtype", "quick")
    if any(getattr(found, name) != getattr(wanted, name) for name in settings):
        raise BadInput(f"{folder} holds a run of other settings: name another folder")
    if found.finished and found.source_sha256 != port.source_digest:
        raise BadInput(f"{folder} holds a run of other code: name another folder")
    return found.finished


def _train(module: str, folder: Path, options: Sequence[str], one_core: bool) -> int:
    """Makes or completes a run in a process of its own; its exit code."""
    how = ["--resume"] if read_record(folder) else list(options)
    command = [sys.executable, "-m", f"reproductions.{module}", "--quiet", *how]
    environment = os.environ | (ONE_THREAD if one_core else {})
    return subprocess.run([*command, "--output", str(folder)], env=environment).returncode


def summary(runs: Sequence[Path]) -> Iterator[str]:
    """What runs ended with: mean, standard deviation and range of the history's last row."""
    last = [read_csv((run / "history.csv").read_text())[-1] for run in runs]
    yield f"{len(runs)} runs in {runs[0].parent}; the last row of their histories:"
    for name in (n for n in last[0] if n not in ("epoch", "step", "seconds")):
        values = np.array([row[name] for row in last])
        spread = f", sd {values.std(ddof=1):.4g}" if len(values) > 1 else ""
        extremes = f"{values.min():.6g} to {values.max():.6g}"
        yield f"  {name}: mean {values.mean():.6g}{spread}, {extremes}"


if __name__ == "__main__":
    sys.exit(main())
