"""Trains a module once for each of many seeds, several at a time.

    python -m reproductions.evidence.many_seeds rmsprop_vae --seeds 10 --quick

Each run is a process of its own. Runs that share the machine use one thread each. Finished runs are
kept and a stopped one goes on, so the command can be stopped and repeated. At its end it says what
the runs ended with.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common.cli import OneLineParser, bounded, named_folder, run_command
from common.errors import BadInput, Failure, Interrupted
from common.runs import RUNS, Record, find_record, read_csv
from common.training import Row
from reproductions import MODULES, program

MOST = 10_000  # seeds, and processes
ONE_THREAD = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run_command("many_seeds", lambda: _many_seeds(argv))


def _many_seeds(argv: Sequence[str] | None) -> None:
    parser = OneLineParser(
        "reproductions.evidence.many_seeds",
        "Trains a module once for each of many seeds, several at a time. Options that"
        " are not listed here are the module's own.",
    )
    parser.add_argument("module", choices=MODULES, metavar="module", help="which module to train")
    parser.add_argument(
        "--seeds", type=bounded(int, 1, MOST), default=10, metavar="N",
        help="train with seeds 0 to N-1 (default: 10)",
    )  # fmt: skip
    parser.add_argument(
        "--processes", type=bounded(int, 1, MOST), default=os.cpu_count() or 1, metavar="N",
        help="how many to train at a time (default: one for each core)",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=named_folder, metavar="DIR",
        help="the folder of the runs (default: artifacts/runs/seeds/<module>)",
    )  # fmt: skip
    options, own = parser.parse_known_args(argv)
    of_a_run = program(options.module).options(own)
    if "seed" in of_a_run.given or of_a_run.resume:
        parser.error("leave out --seed and --resume: each run has its seed and goes on by itself")
    folder = options.output or RUNS / "seeds" / options.module
    jobs = {folder / f"seed-{n}": ["--seed", str(n), *own] for n in range(options.seeds)}
    runs = completed_runs(options.module, jobs, options.processes)
    for line in summary(runs):
        print(line)


def completed_runs(
    module: str, jobs: Mapping[Path, Sequence[str]], processes: int = 1
) -> list[Path]:
    """Makes, or completes, the runs that are not finished yet; the folders of all.

    Args:
      module: that is trained.
      jobs: for each folder, the options of its run.
      processes: how many runs are made at a time; a single one has all cores.

    Raises:
      BadInput: an option cannot be used, or a folder holds a run of other settings or other code.
      Interrupted: the user stopped it.
      Failure: a run failed; the others were made.
    """
    port = program(module)
    digest = port.source_digest
    waiting = [
        folder
        for folder, options in jobs.items()
        if not _is_finished(folder, port.record(port.options(options).given), digest)
    ]
    running: dict[Path, subprocess.Popen[bytes]] = {}
    failed = []
    alone = processes == 1  # then a run tells of itself, and this bar is silent
    bar = tqdm(total=len(waiting), desc=module, unit="run", disable=True if alone else None)
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                folder = waiting.pop(0)
                running[folder] = _start(module, folder, jobs[folder], alone)
            time.sleep(0.2)
            for folder in [f for f, process in running.items() if process.poll() is not None]:
                exit_code = running.pop(folder).returncode
                if exit_code == Interrupted.exit_code:
                    raise KeyboardInterrupt
                if exit_code != 0:
                    failed.append(folder)
                bar.update()
                if bar.disable:
                    how = "failed" if exit_code else "done"
                    print(f"{folder}: {how}, {len(waiting) + len(running)} to go", flush=True)
    except KeyboardInterrupt:
        raise Interrupted("stopped: the same command goes on with it") from None
    finally:
        bar.close()
        if os.name != "nt":  # where Ctrl-C has reached them, too, and `terminate` would kill them
            for process in running.values():
                process.terminate()  # it saves its run first
        for process in running.values():
            process.wait()
    if failed:
        raise Failure(f"{len(failed)} runs failed, the first in {failed[0]}")
    return list(jobs)


def _is_finished(folder: Path, wanted: Record, digest: str) -> bool:
    """Whether a folder holds the wanted run, finished; False where there is none.

    Raises:
      BadInput: the folder holds a run of other settings, or of code with another digest.
    """
    found = find_record(folder)
    if found is None:
        return False
    settings = ("module", "config", "seed", "dtype", "quick")
    if any(getattr(found, name) != getattr(wanted, name) for name in settings):
        raise BadInput(f"{folder} holds a run of other settings: remove it or name another folder")
    sessions = [found.source_sha256, *(s["source_sha256"] for s in found.earlier_sessions)]
    if any(session not in ("", digest) for session in sessions):
        raise BadInput(f"{folder} holds a run of other code: remove it or name another folder")
    return found.finished


def _start(
    module: str, folder: Path, options: Sequence[str], alone: bool
) -> subprocess.Popen[bytes]:
    """Makes or completes a run in a process of its own."""
    command = [sys.executable, "-m", f"reproductions.{module}", *options, f"--output={folder}"]
    command += ["--resume"] if find_record(folder) else []
    command += [] if alone else ["--quiet"]
    return subprocess.Popen(command, env=os.environ | ({} if alone else ONE_THREAD))


def _last_row(run: Path) -> Row:
    try:
        return read_csv((run / "history.csv").read_text(encoding="utf-8"))[-1]
    except (OSError, ValueError, IndexError) as error:
        raise BadInput(
            f"{run}: history.csv is missing or cannot be read: remove the folder and run this again"
        ) from error


def summary(runs: Sequence[Path]) -> Iterator[str]:
    """What runs ended with: mean, standard deviation and range of the history's last row."""
    last = [_last_row(run) for run in runs]
    yield f"{len(runs)} runs in {runs[0].parent}; the last row of their histories:"
    for name in (n for n in last[0] if n not in ("epoch", "step", "seconds")):
        values = np.array([row[name] for row in last])
        spread = f", sd {values.std(ddof=1):.4g}" if len(values) > 1 else ""
        extremes = f"{values.min():.6g} to {values.max():.6g}"
        yield f"  {name}: mean {values.mean():.6g}{spread}, {extremes}"


if __name__ == "__main__":
    sys.exit(main())
