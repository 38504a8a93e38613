"""`python -m benchmarks.whole [module ...]`: where the time and memory of a run go.

For each module: the seconds from the command to the end of its first training step, compared with
those that importing TensorFlow and TensorFlow Probability take; then a run (`--quick`, or with
--full the document's whole training), its seconds split into steps (the first of which compiles),
validation, frame and preview after each epoch, pictures at the end, final evaluation, and the rest
(imports, data, checkpoints); its peak resident memory, and what the peak was after a third and
after two thirds of the training: memory that grows shows there. Linux only.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from bisect import bisect
from collections.abc import Callable
from pathlib import Path

from benchmarks import command, parse
from common.runs import read_csv

IMPORTS = "import tensorflow, tensorflow_probability; tensorflow_probability.layers"
FIRST_STEP = """
import os, sys
from common.training import Trainer
from reproductions import program
run = Trainer.run
def one_step(self, start, stop):
    run(self, start, start + 1)
    os._exit(0)
Trainer.run = one_step
program(sys.argv[1]).main(["--quiet", "--output", sys.argv[2]])
os._exit(1)
"""
HEADER = (
    f"{'module':12} {'first step':>10} {'/ imports':>10} {'run':>8} {'steps':>7} {'epochs':>7}"
    f" {'pictures':>8} {'final ev.':>10} {'rest':>6} {'peak':>9} {'a third':>9} {'two thirds':>11}"
)


def main() -> None:
    """Prints a line for each module."""
    parser = command("benchmarks.whole", __doc__)
    parser.add_argument("--full", action="store_true", help="the document's whole training")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where to leave the runs")
    options = parse(parser)
    print(HEADER)
    with tempfile.TemporaryDirectory() as folder:
        for module in options.modules:
            output = (options.keep or Path(folder)) / module
            print(line(module, options.full, output), flush=True)


def line(module: str, full: bool, output: Path) -> str:
    """Measures a module; its run goes to a folder that does not exist yet."""
    imports, starts = [], []
    for _ in range(3):  # in turn
        imports.append(seconds([sys.executable, "-c", IMPORTS]))
        with tempfile.TemporaryDirectory() as folder:
            starts.append(seconds([sys.executable, "-c", FIRST_STEP, module, f"{folder}/run"]))
    start = statistics.median(starts)
    whole, peak_at = watch(module, output, full)
    record = json.loads((output / "run.json").read_text())
    steps = sum(row["seconds"] for row in read_csv((output / "history.csv").read_text()))
    parts = record["seconds"]
    trained = whole - parts["pictures"] - parts["evaluation"]
    moments = (whole, trained - parts["training"] * 2 / 3, trained - parts["training"] / 3)
    peak, third, two_thirds = (f"{peak_at(moment):.0f} MiB" for moment in moments)
    return (
        f"{module:12} {start:8.1f} s {start / statistics.median(imports):10.2f} {whole:6.0f} s"
        f" {steps / whole:7.0%} {(parts['training'] - steps) / whole:7.0%}"
        f" {parts['pictures'] / whole:8.0%} {parts['evaluation'] / whole:10.0%}"
        f" {(whole - sum(parts.values())) / whole:6.0%} {peak:>9} {third:>9} {two_thirds:>11}"
    )


def seconds(command: list[str]) -> float:
    """How long a command takes."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def watch(module: str, output: Path, full: bool) -> tuple[float, Callable[[float], float]]:
    """Runs a module. Returns its seconds, and its peak memory as a function of time, in MiB."""
    command = [sys.executable, "-m", f"reproductions.{module}", "--quiet", "--output", str(output)]
    began = time.perf_counter()
    process = subprocess.Popen([*command, *([] if full else ["--quick"])])
    times, peaks = [], []
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        high = next((x for x in status.splitlines() if x.startswith("VmHWM:")), None)
        if high:
            times.append(time.perf_counter() - began)
            peaks.append(int(high.split()[1]) / 1024)
        time.sleep(0.5)
    if process.returncode:
        raise SystemExit(f"{module} failed")
    return time.perf_counter() - began, lambda t: peaks[bisect(times, t) - 1]


if __name__ == "__main__":
    main()
